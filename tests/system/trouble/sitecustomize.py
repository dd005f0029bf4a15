"""Put before everything on PYTHONPATH: the machine gets into trouble at the n-th write of this process, and stays there.

TROUBLE="full:7": from the seventh hidden place that prunedge makes for what it writes, no file can grow any more (RLIMIT_FSIZE is 0: the
system itself refuses it, to C++ and Rust as well). "readonly:7": nothing can be opened for writing or made below TROUBLE_ROOT. "memory:7":
the process gets hardly more memory than it has (RLIMIT_AS).

Processes that this one starts are in the same trouble, counted anew.
"""

import builtins
import errno
import io
import os
import resource

_kind, _, _number = os.environ.get("TROUBLE", "none:0").partition(":")
_left = int(_number)
_root = os.environ.get("TROUBLE_ROOT", "/nowhere")
_mkdir, _open, _io_open = os.mkdir, os.open, io.open


def _grow_no_more():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _no_more_memory():
    with _io_open("/proc/self/statm") as told:
        now = int(told.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    # A little is left: with nothing at all Python waits for ever for a new thread that could not begin (threading.Thread.start).
    now += int(os.environ.get("TROUBLE_SPARE", 4 * 2**20))
    resource.setrlimit(resource.RLIMIT_AS, (now, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _refuse(path):
    if isinstance(path, (str, os.PathLike)) and os.path.abspath(os.fspath(path)).startswith(_root):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))


def _read_only():
    def opened(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _refuse(path)
        return _open(path, flags, *args, **kwargs)

    def io_opened(path, mode="r", *args, **kwargs):
        if set(mode) & set("wxa+"):
            _refuse(path)
        return _io_open(path, mode, *args, **kwargs)

    os.open, io.open, builtins.open = opened, io_opened, io_opened


def _made(path, *args, **kwargs):
    global _left
    if os.path.basename(os.fspath(path)).startswith(".prunedge-"):
        _left -= 1
        if _left == 0:
            {"full": _grow_no_more, "memory": _no_more_memory, "readonly": _read_only}[_kind]()
        if _left <= 0 and _kind == "readonly":
            _refuse(path)
    return _mkdir(path, *args, **kwargs)


if _left:
    os.mkdir = _made
