"""What goes on with a command that was interrupted, or that the machine could not end."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prunedge.utils.advice import command

# What torchrun may start: several processes of the others would write the same files.
DIVIDED = ("train", "prune")
AGAIN = ("demo", "audit", "inspect", "study", "agent")  # go on when the same command is given again
DEMO = "demo-run"  # where `demo` writes without --out
_SO_FAR = "; what was finished is kept"


def once_mended(tokens: Sequence[str]) -> str:
    """What goes on with a command that the machine could not end."""
    resumption = _resuming_command(tokens)
    return f"; go on with {resumption}" if resumption else ", and give the same command again"


def how_to_go_on(tokens: Sequence[str]) -> str:
    """What an interrupted command leaves, and what goes on with it."""
    verb = tokens[0] if tokens else ""
    resumption = _resuming_command(tokens)
    if resumption is not None:
        folder = _value_of(tokens, "--resume") or _value_of(tokens, "--out") or ""
        state = _SO_FAR if _has_kept(folder) else "; nothing is finished yet"
        return f"{state}: go on with {resumption}"
    if verb in AGAIN and _has_begun(verb, tokens):
        return f"{_SO_FAR}: the same command goes on"
    return " before there was anything to keep: give the same command again"


def _resuming_command(tokens: Sequence[str]) -> str | None:
    """The command that goes on with the run that was being written; None where there is none
    yet.
    """
    verb = tokens[0] if tokens else ""
    folder = _value_of(tokens, "--resume") or _value_of(tokens, "--out")
    if verb not in DIVIDED or folder is None:
        return None
    if not os.path.isfile(os.path.join(folder, "config.toml")):
        return None
    return command(verb, "--resume", folder)


def _has_kept(run: str) -> bool:
    """Whether a run has a model already, or an epoch of the first training."""
    names = ("history.jsonl", "training.safetensors")
    return any(os.path.exists(os.path.join(run, name)) for name in names)


def _has_begun(verb: str, tokens: Sequence[str]) -> bool:
    """Whether what the verb writes is there: some name the folder themselves, or write nothing."""
    if verb == "agent":
        return True  # its queue
    folder = _value_of(tokens, "--out")
    if folder is None and verb == "demo":
        folder = DEMO
    if folder is None and verb == "audit":
        folder = _audit_folder(tokens)
    if folder is None:
        return False
    return "://" in folder or (os.path.isdir(folder) and bool(os.listdir(folder)))


def _audit_folder(tokens: Sequence[str]) -> str | None:
    """Where an audit writes without --out: below the run that it is given."""
    for token in tokens[1:]:
        folder = os.path.join(token, "audit")
        if os.path.isdir(folder):
            return folder
    return None


def _value_of(tokens: Sequence[str], option: str) -> str | None:
    """What an option of the command line is given."""
    for position, token in enumerate(tokens):
        if token == option and position + 1 < len(tokens):
            return tokens[position + 1]
        if token.startswith(f"{option}="):
            return token.partition("=")[2]
    return None
