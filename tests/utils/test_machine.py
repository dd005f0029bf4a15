"""What the machine lacks becomes one line, whichever library says it in whatever words; other errors stay what they are."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from safetensors.torch import save_file

from prunedge.cli import app
from prunedge.edge.inspect import video
from prunedge.edge.update import statement
from prunedge.errors import MachineError, RunError
from prunedge.importance.audit.run import _folder as audit_folder
from prunedge.report.html import save as save_page
from prunedge.runs.new import create as create_run
from prunedge.study import Grid, results
from prunedge.study import create as create_study
from prunedge.utils.machine import (
    machine_error,
    machine_trouble,
    pass_on,
    pass_on_reading,
    unusable_cache,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/history.jsonl"),
            r"No space left on device \(runs/a/history.jsonl\): free",
        ),
        (
            FileNotFoundError(
                errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']"
            ),
            r"no folder for temporary files can be written \(No usable .*'/tmp'.*\) \(here\): free space in one of them, or set TMPDIR",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            r"Read-only file system \(here\): give yourself the right",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), r"not enough memory \(here\): free some"),
        (MemoryError(), r"not enough memory \(here\)"),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
        (RuntimeError("could not create a primitive"), "not enough memory"),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "not enough memory",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "x"),
            r"Too many open files \(x\): raise the limit",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
            ),
            "not enough memory",
        ),
        (MachineError("there is not enough memory", where="x"), r"not enough memory \(x\)"),
    ],
)
def test_it_is_told_with_the_file_the_cause_and_the_remedy(error: Exception, words: str) -> None:
    found = machine_error(error, where="here")
    assert found is not None
    assert re.match(words.replace("not enough memory", ".*not enough memory", 1), str(found)), str(
        found
    )
    assert "\n" not in str(found)


def test_safetensors_words_are_understood(tmp_path: Path) -> None:
    with pytest.raises(
        Exception, match="os error"
    ) as told:  # a class of its own, which is no OSError
        save_file({"a": torch.zeros(3)}, tmp_path / "gone" / "file")
    found = machine_error(told.value, where="file")
    assert found is not None
    assert str(found).startswith(f"{os.strerror(errno.ENOENT)} (file)")


def test_onnx_runtime_s_own_kinds_are_understood() -> None:
    error = RuntimeException(
        "bfc_arena.cc: Failed to allocate memory for requested buffer of size 4096"
    )
    assert not isinstance(error, RuntimeError)
    with pytest.raises(MachineError, match="not enough memory"):
        pass_on(error)
    pass_on(
        RuntimeException(
            "bfc_arena.cc: Failed to allocate memory for requested buffer of size 171798691840000"
        )
    )
    pass_on(RuntimeException("Non-zero status code returned while running Conv node"))


def test_without_memory_no_error_tells_what_it_seems_to_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = (
        SystemError("bad argument to internal function"),
        ModuleNotFoundError("No module named 'onnxscript'"),
        KeyError("a"),
    )
    assert [machine_error(error) for error in errors] == [None] * 3

    monkeypatch.setattr("prunedge.utils.machine._LITTLE", 2**62)  # bytes that no machine has
    for error in errors:
        assert "not enough memory" in str(machine_error(error))
    assert machine_error(RunError("damaged")) is None


@pytest.mark.parametrize("place", ["make_app", "_obey"])
def test_no_memory_at_the_very_start_is_one_line(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Raised in code of a verb's own, as when its module is imported; that says nothing of the output.
    verb: dict[str, Any] = {"__name__": "prunedge.cli.check"}
    exec("def fails(*_):\n    raise MemoryError", verb)
    monkeypatch.setattr(app, place, verb["fails"])
    with pytest.raises(SystemExit) as ended:
        app.main(["check", "x"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: there is not enough memory: ")
    assert said.count("\n") == 1


def test_a_file_that_can_t_be_read_now_is_not_called_damaged() -> None:
    with pytest.raises(MachineError, match=r"Permission denied.*\(a.json\)"):
        pass_on_reading(PermissionError(errno.EACCES, "Permission denied", "a.json"), "a.json")
    with pytest.raises(MachineError, match=r"not enough memory \(a.json\)"):
        pass_on_reading(MachineError("there is not enough memory"), "a.json")
    pass_on_reading(FileNotFoundError(errno.ENOENT, "gone"), "a.json")
    pass_on_reading(ValueError("truncated"), "a.json")


def test_a_file_that_asks_for_more_than_any_machine_has_is_damaged() -> None:
    with pytest.raises(MemoryError) as told:
        np.empty(2**60, dtype=np.uint8)
    assert machine_trouble(told.value, "a.npz") is None
    assert (
        machine_trouble(MemoryError("Unable to allocate 3.00 KiB for an array"), "a.npz")
        is not None
    )


def test_torch_really_says_so_when_there_is_no_memory() -> None:
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**60, dtype=torch.uint8)
    assert machine_error(told.value) is not None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        RuntimeError("could not create a primitive descriptor"),
        KeyError("a"),
        RunError("damaged"),
        OSError("truncated"),
    ],
)
def test_other_errors_are_none_of_the_machines(error: Exception) -> None:
    assert machine_error(error) is None


def test_what_says_something_about_the_thing_that_was_tried_stays_with_it() -> None:
    with pytest.raises(MachineError, match="not enough memory"):
        pass_on(MemoryError())
    with pytest.raises(MachineError, match="No space"):
        pass_on(OSError(errno.ENOSPC, "No space left on device", "x"))
    for error in (
        FileNotFoundError(errno.ENOENT, "gone"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ValueError("shapes"),
    ):
        pass_on(error)
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**60, dtype=torch.uint8)
    pass_on(told.value)  # a model that asks for an exabyte is at fault itself


def test_the_trouble_behind_a_library_s_error_is_passed_on() -> None:
    failed = RuntimeError("Failed to decompose the graph")
    pass_on(failed)
    failed.__cause__ = MemoryError()
    with pytest.raises(MachineError, match="not enough memory"):
        pass_on(failed)
    # A library that answers an error with one of its own, without saying from what.
    with pytest.raises(RuntimeError) as told:
        try:
            raise MemoryError
        except MemoryError:
            raise RuntimeError("no kernel")  # noqa: B904
    with pytest.raises(MachineError, match="not enough memory"):
        pass_on(told.value)
    told.value.__suppress_context__ = True  # "from None": it was dealt with
    pass_on(told.value)


@pytest.mark.parametrize(
    "said",
    [
        "error return without exception set",
        "<built-in f> returned NULL without setting an exception",
    ],
)
def test_an_error_that_python_lost_is_a_lack_of_memory(said: str) -> None:
    """C code that fails and sets no exception: Python had no memory for its MemoryError; there may be some again by now."""
    failed = RuntimeError("Failed to decompose the graph")
    failed.__cause__ = SystemError(f"{said}\n\nWhile executing %batch_norm")
    with pytest.raises(MachineError, match="not enough memory"):
        pass_on(failed)
    assert machine_error(SystemError("bad argument to internal function")) is None


def test_a_cache_that_can_t_be_written_is_the_machines_trouble() -> None:
    error = OSError(errno.EROFS, "Read-only file system", "home/0.lock")
    trouble = unusable_cache(error, "home")
    assert machine_error(trouble) is trouble  # so that the command line says how to go on
    assert re.fullmatch(
        r"can't use the cache \(Read-only file system\) \(home\): make it writable, or set PRUNEDGE_CACHE .*",
        str(trouble),
    )


def begin_run(out: Path) -> object:
    return create_run(out, {"data": ".", "model": "resnet18", "weights": "none"}, "train")


def begin_study(out: Path) -> object:
    return create_study(out, Grid({"data": ".", "model": "resnet18", "weights": "none"}))


def write_page(out: Path) -> object:
    return save_page("page", out)


@pytest.mark.parametrize("begin", [begin_run, begin_study, audit_folder, write_page])
def test_what_can_t_be_written_names_the_remedy_of_its_cause(
    begin: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk wants room, and not another --out alone."""
    out = tmp_path / "out"

    def full(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", os.fspath(path))

    (tmp_path / "file").touch()
    with pytest.raises(
        MachineError, match=r"can't write.*Not a directory\).*: see whether the path is right"
    ):
        begin(tmp_path / "file" / "out")
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(
        MachineError,
        match=r"can't write.*\(No space left on device\) \(.*out.*\): free space there",
    ):
        begin(out)
    assert not out.exists()


def test_a_library_that_could_not_be_loaded_for_want_of_memory_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] in ("pyarrow", "cv2", "ray", "cryptography", "paho"):
                raise ImportError(f"{name}.so: failed to map segment from shared object")

    for name in [
        name
        for name in sys.modules
        if name.partition(".")[0] in ("pyarrow", "cv2", "ray", "cryptography", "paho")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Full(), *sys.meta_path])
    tries: list[Callable[[], object]] = [
        lambda: results._parquet(tmp_path / "study.parquet", []),
        lambda: video._opencv(),
        lambda: statement.load_signer(tmp_path / "key.pem"),
    ]
    for attempt in tries:
        with pytest.raises(MachineError, match="not enough memory"):
            attempt()
