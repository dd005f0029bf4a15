"""Put before everything on PYTHONPATH: the machine gets into trouble at a moment of this process, and stays there.

TROUBLE="full:7": from the seventh hidden place that prunedge makes for what it writes, no file can grow any more (RLIMIT_FSIZE is 0: the
system itself refuses it, to C++ and Rust as well). "full:call:900": from the 900th call of a function of prunedge's, wherever that is.

full         no file can grow
readonly     nothing can be opened for writing, made, renamed or deleted below TROUBLE_ROOT
memory       the process gets hardly more memory than it has (RLIMIT_AS)
unreadable   nothing can be opened for reading below TROUBLE_ROOT
none         nothing: how many calls a command makes is added to the file TROUBLE_CALLS

Processes that this one starts are in the same trouble, counted anew.
"""

import atexit
import builtins
import errno
import io
import os
import resource
import sys

_kind, *_unit, _number = os.environ.get("TROUBLE", "none:0").split(":")
_left = int(_number)
_calls = 0
_hoarded = []
_root = os.environ.get("TROUBLE_ROOT", "/nowhere")
_package = os.sep + "prunedge" + os.sep
_mkdir, _open, _io_open = os.mkdir, os.open, io.open


def _grow_no_more():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _no_more_memory():
    with _io_open("/proc/self/statm") as told:
        now = int(told.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    # A little is left: with nothing at all Python waits for ever for a new thread that could not begin (threading.Thread.start).
    spare = int(os.environ.get("TROUBLE_SPARE", 4 * 2**20))
    resource.setrlimit(resource.RLIMIT_AS, (now + spare, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if "TROUBLE_SPARE" in os.environ:
        _hoard(spare)


def _hoard(spare):
    """Take what freed objects have left to this process as well, but for the spare."""
    piece = 2**14
    try:
        while True:
            _hoarded.append(bytearray(piece))
    except MemoryError:
        del _hoarded[-max(1, spare // piece) :]


def _refuse(path, number=errno.EROFS):
    if isinstance(path, (str, os.PathLike)) and os.path.abspath(os.fspath(path)).startswith(_root):
        raise OSError(number, os.strerror(number), os.fspath(path))


def _patch_opening(refused):
    """Let `refused(path, is_written)` decide before any file is opened."""

    def opened(path, flags, *args, **kwargs):
        refused(path, flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return _open(path, flags, *args, **kwargs)

    def io_opened(path, mode="r", *args, **kwargs):
        refused(path, set(mode) & set("wxa+"))
        return _io_open(path, mode, *args, **kwargs)

    os.open, io.open, builtins.open = opened, io_opened, io_opened


def _read_only():
    _patch_opening(lambda path, is_written: _refuse(path) if is_written else None)
    for name in (
        "mkdir",
        "rmdir",
        "unlink",
        "remove",
        "rename",
        "replace",
        "link",
        "symlink",
        "chmod",
    ):
        setattr(os, name, _refusing(getattr(os, name)))


def _refusing(change):
    def changed(path, *args, **kwargs):
        if kwargs.get("dir_fd") is None:
            _refuse(path)
        return change(path, *args, **kwargs)

    return changed


def _unreadable():
    _patch_opening(lambda path, is_written: None if is_written else _refuse(path, errno.EACCES))


def _begin():
    {
        "full": _grow_no_more,
        "memory": _no_more_memory,
        "readonly": _read_only,
        "unreadable": _unreadable,
    }[_kind]()


def _made(path, *args, **kwargs):
    global _left
    if os.path.basename(os.fspath(path)).startswith(".prunedge-"):
        _left -= 1
        if _left == 0:
            _begin()
        if _left <= 0 and _kind == "readonly":
            _refuse(path)
    return _mkdir(path, *args, **kwargs)


def _called(frame, event, argument):
    """At each call in this process's main thread."""
    global _calls
    if event == "call" and _package in frame.f_code.co_filename:
        _calls += 1
        if _calls == _left:
            sys.setprofile(None)
            _begin()


def _count():
    with _io_open(os.environ["TROUBLE_CALLS"], "a") as told:
        told.write(f"{_calls}\n")


if _unit and (_left or _kind == "none"):
    if _kind == "none":
        atexit.register(_count)
    sys.setprofile(_called)
elif _left:
    os.mkdir = _made
