"""The command `prunedge`: verbs by import path, so that `--help` loads none of them but the one
that is asked for.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, get_args

from prunedge import __version__
from prunedge.errors import ExtraMissing, MachineError, PrunedgeError
from prunedge.utils import distributed
from prunedge.utils.advice import command, speaking
from prunedge.utils.machine import is_scarce, machine_error
from prunedge.utils.sanitize import Lines, shown

if TYPE_CHECKING:
    # Imported below where Ctrl-C is answered already: the `prunedge` of an installation imports
    # this module before it calls `main`.
    from cyclopts import App, Token

# What each verb does, in a line: `--help` loads none of them.
VERBS = {
    "demo": "All of it on 2,624 photographs of solar cells, to a report.",
    "check": "What is in a folder of images? Unreadable files, leaks between splits.",
    "patches": "Cut patches from photographs with damage masks.",
    "groups": "Which channels of a model leave together, and which can't?",
    "train": "Teach a model your images.",
    "audit": "Which criterion is right on your model and images?",
    "prune": "Teach a model your images, then remove the channels that they don't need.",
    "show": "Each step of a run, before and after.",
    "export": "A bundle for the device, compared with torch on real images.",
    "bench": "Time, memory and energy of bundles, here or on a device.",
    "inspect": "Look for damage in photographs, folders, videos and cameras.",
    "agent": "Inspect what arrives, and publish findings over MQTT.",
    "sign": "Announce a bundle to devices in the field, signed.",
    "report": "One HTML page of a run or a study.",
    "study": "Many runs, one table.",
}
HIDDEN = ("probe",)  # for prunedge itself

# What torchrun may start: several processes of the others would write the same files.
DIVIDED = ("train", "prune")
REPORT_AFTER_S = 3.0
AGAIN = ("demo", "audit", "inspect", "study", "agent")  # go on when the same command is given again
DEMO = "demo-run"  # where `demo` writes without --out
_SO_FAR = "; what was finished is kept"

# What a plain install lacks, and the part of prunedge that brings it.
EXTRAS = {"elpv_dataset": "demo"}
TRAINING = {
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "torchmetrics",
    "sklearn",
    "scipy",
    "imagehash",
    "safetensors",
    "tomli_w",
    "onnx",
    "onnxscript",
    "filelock",
    "fsspec",
    "plotly",
}


def _converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """What the text of an option stands for. Where a whole number is wanted 1.5 is none; cyclopts
    would round it without a word.

    An empty path is none either: it would stand for the folder where the command is given.
    """
    from cyclopts import CoercionError, convert

    if int in (kind, *get_args(kind)):
        for token in tokens:
            if "." in token.value:
                raise CoercionError(token=token, target_type=int)
    if Path in (kind, *get_args(kind)):
        for token in tokens:
            if not token.value:
                raise CoercionError("an empty path names nothing", token=token, target_type=Path)
    return convert(kind, tokens)


def make_app(verb: str | None) -> App:
    """The command. Without a verb its help tells what each does, in the lines above; with one the
    verb explains itself.
    """
    from cyclopts import App, Parameter

    app = App(
        name="prunedge",
        help="From images of damage to a small model, proven on the device that will run it.",
        version=__version__,
        help_format="markdown",
        default_parameter=Parameter(converter=_converted),
        version_format="plaintext",  # Markdown takes a quarter of the time to load
        suppress_keyboard_interrupt=False,  # `main` says how to go on
    )
    for place, name in enumerate((*VERBS, *HIDDEN)):
        line = {} if verb in (*VERBS, *HIDDEN) or name in HIDDEN else {"help": VERBS[name]}
        app.command(
            f"prunedge.cli.{name}:{name}",
            name=name,
            sort_key=place,
            show=name not in HIDDEN,
            **line,
        )
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a verb; exit with 0, with 2 and one line on stderr for what the user can mend, or with
    130 when interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    with speaking("command", tokens[0] if tokens else None):
        _answered(tokens)
    sys.exit(0)


def _answered(tokens: list[str]) -> None:
    """Run the verb, and end with a line and the exit code where it was interrupted or the machine
    is in trouble.
    """
    try:
        _obey(tokens)
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted{_how_to_go_on(tokens)}\n")
        sys.exit(130)
    except BrokenPipeError:
        _let_go_of_streams()
        sys.exit(141)
    except Exception as error:
        _fail_of_machine(error, tokens)
        raise


def _obey(tokens: list[str]) -> None:
    """Run the verb that the command line names."""
    from cyclopts import CycloptsError

    is_first = distributed.get_rank() == 0
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING if is_first else logging.ERROR, handlers=[handler])
    if not is_first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    if distributed.world_size() > 1 and tokens and tokens[0] in VERBS and tokens[0] not in DIVIDED:
        _fail(f"'{tokens[0]}' is not divided among processes", "start it without torchrun")
    if unsound := next((token for token in tokens if "\0" in token), None):
        _fail(f"an argument holds a NUL character, which no name may: {unsound}", "leave it out")
    try:
        make_app(tokens[0] if tokens else None)(
            tokens, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()  # a full disk may show itself only now
    except SystemExit as error:
        if _raised_in(error, ("rich.",)):
            raise BrokenPipeError from None  # rich ends the process where nobody reads the help
        if not _raised_in(error, ("prunedge.", "cyclopts")):
            _fail(
                f"code that this command ran ended it with sys.exit({error.code!r})",
                "let it raise an exception, or return",
            )
        raise
    except CycloptsError as error:
        _fail(
            " ".join(str(error).split()).rstrip("."),
            "see prunedge " + " ".join([*tokens[:1], "--help"]) if tokens else "prunedge --help",
        )
    except MachineError as error:
        _fail(_one_line(error) + _once_mended(tokens))
    except PrunedgeError as error:
        if isinstance(error, ExtraMissing) and is_scarce():
            _fail_of_machine(MemoryError(), tokens)
        _fail(_one_line(error))
    except ModuleNotFoundError as error:
        if is_scarce():
            _fail_of_machine(error, tokens)
        missing = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(missing) or ("prune" if missing in TRAINING else None)
        if extra is None:
            raise
        _fail(
            f"'{tokens[0] if tokens else 'this'}' needs {missing}, which is not installed",
            f"pip install 'prunedge[{extra}]'",
        )


def _open_streams() -> None:
    """Put something in the place of standard streams that were closed: the first file to be opened
    would else take their number.

    Errors lead nowhere then; results can't be written (`_Closed`).
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _Closed()
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


class _Closed(io.TextIOBase):
    """A standard output that was closed: nobody would see the result, which is said instead of
    passed over.
    """

    def write(self, text: str) -> int:
        """Raise MachineError."""
        raise MachineError(
            "standard output is closed",
            remedy="open it, or send the result to a file or to /dev/null",
        )


def _is_of_output(error: BaseException) -> bool:
    """Whether what was printed can't be written: files are never written where it is raised
    then.
    """
    is_printed = _raised_in(error, ("prunedge.cli", "rich."))
    if is_printed:
        _let_go_of_streams((sys.stdout,))
    return is_printed


def _raised_in(error: BaseException, modules: tuple[str, ...]) -> bool:
    """Whether it was raised in a module whose name begins so."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith(modules)


def _let_go_of_streams(streams: Sequence[TextIO] | None = None) -> None:
    """Let what still waits to be printed lead nowhere: Python would try again at its end, and
    complain.
    """
    for stream in streams or (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _once_mended(tokens: Sequence[str]) -> str:
    """What goes on with a command that the machine could not end."""
    kept = _to_resume(tokens)
    return f"; go on with {kept}" if kept else ", and give the same command again"


def _how_to_go_on(tokens: Sequence[str]) -> str:
    """What an interrupted command leaves, and what goes on with it."""
    verb = tokens[0] if tokens else ""
    if (kept := _to_resume(tokens)) is not None:
        folder = _value_of(tokens, "--resume") or _value_of(tokens, "--out") or ""
        return f"{_SO_FAR if _has_kept(folder) else '; nothing is finished yet'}: go on with {kept}"
    if verb in AGAIN and _has_begun(verb, tokens):
        return f"{_SO_FAR}: the same command goes on"
    return " before there was anything to keep: give the same command again"


def _to_resume(tokens: Sequence[str]) -> str | None:
    """The command that goes on with the run that was being written; None where there is none
    yet.
    """
    verb = tokens[0] if tokens else ""
    folder = _value_of(tokens, "--resume") or _value_of(tokens, "--out")
    if (
        verb not in DIVIDED
        or folder is None
        or not os.path.isfile(os.path.join(folder, "config.toml"))
    ):
        return None
    return command(verb, "--resume", folder)


def _has_kept(run: str) -> bool:
    """Whether a run has a model already, or an epoch of the first training."""
    return any(
        os.path.exists(os.path.join(run, name))
        for name in ("history.jsonl", "training.safetensors")
    )


def _has_begun(verb: str, tokens: Sequence[str]) -> bool:
    """Whether what the verb writes is there: some name the folder themselves, or write nothing."""
    if verb == "agent":
        return True  # its queue
    folder = _value_of(tokens, "--out") or (DEMO if verb == "demo" else None)
    if folder is None and verb == "audit":
        folder = next(
            (
                os.path.join(token, "audit")
                for token in tokens[1:]
                if os.path.isdir(os.path.join(token, "audit"))
            ),
            None,
        )
    return folder is not None and (
        "://" in folder or (os.path.isdir(folder) and bool(os.listdir(folder)))
    )


def _value_of(tokens: Sequence[str], option: str) -> str | None:
    """What an option of the command line is given."""
    for place, token in enumerate(tokens):
        if token == option and place + 1 < len(tokens):
            return tokens[place + 1]
        if token.startswith(f"{option}="):
            return token.partition("=")[2]
    return None


def _one_line(error: Exception) -> str:
    """What an error says, in a line; spaces stay as they are, since a path or a command to copy may
    hold several.
    """
    return re.sub(r"\s*[\n\r\v\f]\s*", " ", str(error)).strip()


def _fail_of_machine(error: Exception, tokens: Sequence[str]) -> None:
    """End with a line where an error is the machine's trouble."""
    trouble = machine_error(
        error, where="the output" if isinstance(error, OSError) and _is_of_output(error) else None
    )
    if trouble is not None:
        _fail(_one_line(trouble) + _once_mended(tokens))


def _fail(what: str, remedy: str | None = None) -> NoReturn:
    place = ""
    if distributed.get_rank():
        # Nearly always the first process fails in the same way, says so, and torchrun ends this one
        # while it waits.
        time.sleep(REPORT_AFTER_S)
        place = f"process {distributed.get_rank()}: "
    with suppress(OSError):  # nobody listens
        sys.stderr.write(shown(f"error: {place}{what}" + (f": {remedy}" if remedy else "")) + "\n")
        sys.stderr.flush()
    sys.exit(2)
