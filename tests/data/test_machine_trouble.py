"""No memory, no permission, a disk that fails: tried again, told in one line, and never remembered as an image's fault."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prunedge.data import check, load_folder
from prunedge.data import decode as module
from prunedge.data.decode import at_once, try_image
from prunedge.edge.image.photograph import open_photo
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError, MachineError
from prunedge.utils.machine import machine_trouble
from tests.scarce import ERROR, exit_code_without_memory
from tests.tiny_images import write_tiny

TROUBLES = [
    MemoryError(),
    OSError("out of memory error when reading image file"),  # Pillow's words for a decoder's
    *(
        OSError(number, os.strerror(number))
        for number in (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ESTALE)
    ),
]
VERDICTS = [
    OSError("image file is truncated (3 bytes not processed)"),
    OSError(errno.EINVAL, "Invalid argument"),  # a damaged TIFF points before its own beginning
    SyntaxError("broken PNG file"),
    ValueError("Decompressed data too large"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))
    return write_tiny(tmp_path / "data", 10, 16)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, int], None]:
    """Let Pillow fail with an error at one image, so many times."""
    real = Image.open
    left = [0]

    def arrange(error: Exception, times: int) -> None:
        left[0] = times

        def opened(file: Any, *more: Any, **named: Any) -> Image.Image:
            if str(file).endswith("3.png") and left[0] > 0:
                left[0] -= 1
                raise error
            return real(file, *more, **named)

        monkeypatch.setattr(Image, "open", opened)

    return arrange


@pytest.mark.parametrize("error", TROUBLES, ids=str)
def test_trouble_of_the_machine_s_ends_the_loading_and_is_not_remembered(
    error: Exception, folder: Path, tmp_path: Path, fail: Callable[[Exception, int], None]
) -> None:
    fail(error, 10**6)
    for skip in (False, True):  # a sound image must not be left out either
        with pytest.raises(MachineError, match=r"3\.png") as caught:
            load_folder(folder, size=16, skip_unreadable=skip, cache_dir=tmp_path / "cache")
        assert caught.value.remedy
        assert "again" not in caught.value.remedy
    with pytest.raises(MachineError):
        check(folder, size=16, cache_dir=tmp_path / "cache")
    fail(error, 0)
    assert not check(folder, size=16, cache_dir=tmp_path / "cache").unreadable
    assert not load_folder(folder, size=16, cache_dir=tmp_path / "cache").skipped


@pytest.mark.parametrize("error", TROUBLES, ids=str)
def test_trouble_that_passes_is_not_even_told(
    error: Exception, folder: Path, tmp_path: Path, fail: Callable[[Exception, int], None]
) -> None:
    fail(error, 2)
    assert len(load_folder(folder, size=16, cache_dir=tmp_path / "cache").train) > 0


@pytest.mark.parametrize("error", VERDICTS, ids=str)
def test_what_a_damaged_file_makes_its_decoder_raise_is_its_own(
    error: Exception, folder: Path, tmp_path: Path, fail: Callable[[Exception, int], None]
) -> None:
    fail(error, 10**6)
    with pytest.raises(DataError, match="can't be read"):
        load_folder(folder, size=16, cache_dir=tmp_path / "cache")
    assert machine_trouble(error) is None


@pytest.mark.parametrize("error", TROUBLES, ids=str)
def test_both_decoders_tell_trouble_from_verdicts(
    error: Exception, folder: Path, fail: Callable[[Exception, int], None]
) -> None:
    image = next(folder.rglob("*3.png"))
    fail(error, 10**6)
    with pytest.raises(MachineError):
        read_image(image, square(16))
    with pytest.raises(MachineError):
        open_photo(image, 1.0)


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user whom files of others refuse: root may read everything."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_image_that_may_not_be_read_is_read_when_it_may(folder: Path, tmp_path: Path) -> None:
    image = next(folder.rglob("*3.png"))
    image.chmod(0)
    # A root's folders refuse others as well.
    for place in (tmp_path, *tmp_path.parents[:-2]):
        if place.stat().st_uid == os.geteuid():
            place.chmod(place.stat().st_mode | 0o755)
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    with without_rights():
        with pytest.raises(MachineError, match="right to"):
            try_image(image, square(16))
        with pytest.raises(MachineError, match=r"3\.png"):
            load_folder(folder, size=16, cache_dir=cache)
    image.chmod(0o644)
    assert not load_folder(folder, size=16, cache_dir=cache).skipped


def test_without_memory_no_thread_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would die before it begins, and Python would wait for it for ever.
    monkeypatch.setattr("prunedge.utils.machine.is_scarce", lambda: True)
    with pytest.raises(MemoryError):
        list(at_once(len, ["ab", "c"], 2))


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the trouble is made with Linux's limits"
)
@pytest.mark.parametrize("spare_mb", [20, 64, 80])
def test_threads_that_would_get_no_memory_are_not_begun(spare_mb: int) -> None:
    """A thread that dies before it begins is waited for, for ever: glibc may give all there is to the one before it."""
    code = exit_code_without_memory(
        lambda: list(at_once(len, ["a"] * 64, 4)), spare_mb * 2**20, hoards=True
    )
    assert code == ERROR
