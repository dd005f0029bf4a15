"""Downloads of ImageNet weights: one clear line when they fail, and no waiting for a hub that is
out of reach.
"""

from __future__ import annotations

import contextlib
import io
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prunedge.errors import WeightsError
from prunedge.utils.machine import pass_on

log = logging.getLogger(__name__)


@contextmanager
def one_clear_line(name: str, others: str) -> Iterator[None]:
    """WeightsError for whatever a download raises, with what to do about it: `others`."""
    log.info("downloading the ImageNet weights of %s, unless they are here already", name)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    # urllib, http clients, hubs and hash checks each raise kinds of their own.
    except Exception as error:
        pass_on(error)
        log.debug("download of %s failed", name, exc_info=True)
        raise WeightsError(
            f"the ImageNet weights of {name} can't be downloaded ({type(error).__name__})",
            remedy=f"{others}: a file that you have, or random weights",
        ) from error


@contextmanager
def offline_unless_hub_answers() -> Iterator[None]:
    """Keep timm's hub offline while it doesn't answer."""
    # The hub's client retries for most of a minute without a model; offline it looks into its
    # cache at once.
    from huggingface_hub import constants

    was = constants.HF_HUB_OFFLINE
    try:
        question = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(question, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was
