"""Memory that a training frees is needed again a moment later: the process keeps it."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys

log = logging.getLogger(__name__)

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEPT_BYTES = 2**31 - 1


@functools.cache
def keep_freed_pages() -> bool:
    """Let glibc keep what is freed, up to 2 GB, for the rest of the process; gives whether it does.

    By default it gives the memory of every large tensor back, and the kernel clears each page anew:
    a tenth of the time of a training step on a CPU. Nothing is changed where the user says in the
    environment (`MALLOC_...`) how malloc works, or where it isn't glibc's.
    """
    is_set_by_user = any(name.startswith("MALLOC_") for name in os.environ)
    if is_set_by_user or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    done = bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
    log.debug("malloc keeps what is freed: %s", done)
    return done
