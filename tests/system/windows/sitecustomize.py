"""Put before everything on PYTHONPATH: Python starts as on a system without Unix's modules and habits, as Windows is.

What this takes away: `fcntl`, `resource` and their like; opening folders, and so synchronising them; synchronising files that
were opened for reading only; limiting a process to some processors; reading at a place; paths relative to an open folder.
"""

import os
import sys

for module in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[module] = None

for name in (
    "sched_setaffinity",
    "sched_getaffinity",
    "preadv",
    "pread",
    "getuid",
    "geteuid",
    "getloadavg",
):
    delattr(os, name)
os.supports_dir_fd.clear()
os.supports_fd.clear()

_open, _fsync = os.open, os.fsync


def _open_files_only(path, *args, **kwargs):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return _open(path, *args, **kwargs)


def _fsync_what_is_open_for_writing(opened):
    number = opened if isinstance(opened, int) else opened.fileno()
    with open(f"/proc/self/fdinfo/{number}") as told:
        flags = int(told.read().split("flags:")[1].split()[0], 8)
    if not flags & (os.O_WRONLY | os.O_RDWR):
        raise OSError(9, "Bad file descriptor")
    _fsync(number)


os.open, os.fsync = _open_files_only, _fsync_what_is_open_for_writing
