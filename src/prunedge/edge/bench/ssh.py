"""prunedge on another machine through the plain ssh client: files there, a verb run there, its JSON
back.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prunedge.edge.bundle import Bundle
from prunedge.edge.manifest import MANIFEST
from prunedge.errors import PrunedgeError
from prunedge.utils.files import real_path

CLIENT = "PRUNEDGE_SSH"  # a command to use instead of `ssh`, such as `ssh -F FILE`
CONNECT_S = 15


@dataclass(frozen=True)
class Host:
    """A machine that prunedge is installed on: `destination` as ssh takes it, and the command
    `prunedge` there.

    Keys and known hosts are ssh's own affair: whatever `ssh DESTINATION` can reach without asking
    for a password.
    """

    destination: str
    port: int | None = None
    command: str = "prunedge"

    @classmethod
    def parse(cls, url: str) -> Host:
        """`ssh://user@host:port/path/to/prunedge`; user, port and path may be left out.
        PrunedgeError when it is no such URL.
        """
        try:
            parts = urlsplit(url)
            # A destination that began with a dash would be an option of ssh.
            fits = (
                parts.scheme == "ssh"
                and re.fullmatch(r"(\w[\w.-]*@)?\w[\w.:-]*", parts.netloc)
                and not parts.query
                and not parts.fragment
            )
            user, port, host = parts.username, parts.port, parts.hostname
        except ValueError:
            fits = None
        if not fits or not host or (parts.path and not parts.path.strip("/")):
            raise PrunedgeError(
                f"not a device's address: {url}",
                where="--device",
                remedy="ssh://user@host or ssh://user@host/path/to/prunedge",
            )
        return cls(f"{user}@{host}" if user else host, port, parts.path or "prunedge")

    def run(self, arguments: Sequence[str], files: Mapping[str, Path]) -> Any:
        """Copy `files` (name there -> file here) into a new folder there, run `prunedge ARGUMENTS`
        in it, and give the JSON that it prints.

        The folder is removed in any case. PrunedgeError when the machine can't be reached, prunedge
        is not there, or it fails.
        """
        folder = self._send(files)
        try:
            asked = " ".join(shlex.quote(word) for word in (self.command, *arguments))
            done = self._ssh(f"cd {shlex.quote(folder)} && {asked}", stdin=subprocess.DEVNULL)
            if done.returncode == 127:
                remedy = (
                    "pip install prunedge there, or name its place: "
                    f"ssh://{self.destination}/path/to/prunedge"
                )
                raise PrunedgeError(
                    f"'{self.command}' is not installed there",
                    where=self.destination,
                    remedy=remedy,
                )
            if done.returncode:
                lines = done.stderr.decode(errors="replace").strip().splitlines() or [
                    f"exit code {done.returncode}"
                ]
                raise PrunedgeError(
                    f"on {self.destination}: {lines[-1].removeprefix('error: ')}",
                    remedy="mend that there",
                )
            try:
                return json.loads(done.stdout)
            except (ValueError, RecursionError):
                raise PrunedgeError(
                    "its answer is not JSON",
                    where=self.destination,
                    remedy="is the same prunedge installed there?",
                ) from None
        finally:
            self._ssh(f"rm -rf {shlex.quote(folder)}", stdin=subprocess.DEVNULL)

    def _send(self, files: Mapping[str, Path]) -> str:
        """A tar through ssh's standard input: nothing but a shell and tar are needed there."""
        asked = 'd=$(mktemp -d) && tar -x -C "$d" >&2 && echo "$d"'
        process = subprocess.Popen(
            self._command(asked),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                for name, file in files.items():
                    archive.add(real_path(file), arcname=name, filter=_plain)
        except BrokenPipeError:
            pass  # ssh's own words follow
        out, errors = process.communicate()
        folder = out.decode(errors="replace").strip()
        if process.returncode or not folder.startswith("/"):
            why = (errors.decode(errors="replace").strip().splitlines() or ["no answer"])[-1]
            remedy = f"does `ssh {self.destination} true` work without a password?"
            raise PrunedgeError(
                f"can't copy to the device: {why}", where=self.destination, remedy=remedy
            )
        return folder

    def _ssh(self, asked: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self._command(asked), capture_output=True, check=False, **more)

    def _command(self, asked: str) -> list[str]:
        client = shlex.split(os.environ.get(CLIENT, "ssh"))
        port = ["-p", str(self.port)] if self.port else []
        return [
            *client,
            "-o",
            "BatchMode=yes",
            "-o",
            f"ConnectTimeout={CONNECT_S}",
            *port,
            "--",
            self.destination,
            asked,
        ]


def files_of(bundle: Bundle, name: str) -> dict[str, Path]:
    """What a device needs of a bundle, to lie in a folder of that name there."""
    needed = [MANIFEST, *(file for file, entry in bundle.manifest.files.items() if entry.needed)]
    return {f"{name}/{file}": bundle.path / file for file in needed}


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of this machine's users goes along."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
