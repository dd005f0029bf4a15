"""Another machine, by a real sshd on this one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunedge.edge import open_bundle
from prunedge.edge.bench.ssh import Host, files_of
from prunedge.errors import PrunedgeError
from tests.needs import program


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An sshd with keys of its own, and an ssh client that knows it."""
    sshd = program("sshd")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(
            [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
            check=True,
        )
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    (folder / "sshd").write_text(
        f"Port {number}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\n"
        f"PasswordAuthentication no\nPidFile {folder}/pid\nUsePAM no\nPermitRootLogin yes\n"
    )
    host_key = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{number} {host_key[0]} {host_key[1]}\n")
    (folder / "client").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\nStrictHostKeyChecking yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(folder / "sshd")], stderr=subprocess.DEVNULL
    )
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", number), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    before = os.environ.get("PRUNEDGE_SSH")
    os.environ["PRUNEDGE_SSH"] = f"ssh -F {folder}/client"
    yield number
    server.terminate()
    server.wait()
    os.environ.pop("PRUNEDGE_SSH")
    if before is not None:
        os.environ["PRUNEDGE_SSH"] = before


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `prunedge` as a device might have it: in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("a device")
    command = folder / "prunedge"
    source = Path(__file__).parents[3] / "src"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}" -m prunedge "$@"\n'
    )
    command.chmod(0o755)
    return command


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    command = [sys.executable, "-m", "prunedge", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_bench_on_another_machine_is_that_of_this_one(
    bundle: Path,
    there: Path,
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = f"ssh://127.0.0.1:{port}{there}"
    left = set(Path("/tmp").glob("tmp.*"))
    monkeypatch.chdir(tmp_path)
    found = bench(
        bundle,
        "--device",
        device,
        "--patches",
        12,
        "--batches",
        "4",
        "--cpus",
        1,
        "--profile",
        "--json",
    )
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    (one,) = result["bundles"]
    assert one["bundle"] == str(bundle)
    assert one["seconds_total"] > 0
    assert set(one["throughput"]) == {"4"}
    assert result["device"]["address"] == "127.0.0.1"
    assert result["limits"] == {"cpus": 1}
    assert result["patches"] == 12
    assert result["profile"][0]["bundle"] == str(bundle)
    assert result["profile"][0]["layers"]
    assert json.loads((tmp_path / "prunedge-profile" / "bench-trace.json").read_text())[
        "traceEvents"
    ]
    assert set(Path("/tmp").glob("tmp.*")) == left
    table = bench(bundle, "--against", bundle, "--device", device, "--patches", 12)
    assert table.returncode == 0, table.stderr
    assert "12 patches" in table.stdout, table.stderr
    assert "copying" in table.stderr, table.stderr


def test_torchs_weights_stay_here(bundle: Path) -> None:
    assert set(files_of(open_bundle(bundle), "b")) == {
        "b/manifest.json",
        "b/model.onnx",
        "b/selftest.npz",
    }


def test_what_is_wrong_there_is_said_here_in_one_line(bundle: Path, there: Path, port: int) -> None:
    for device, words in (
        (f"ssh://127.0.0.1:{port}/nowhere/prunedge", "'/nowhere/prunedge' is not installed there"),
        ("ssh://127.0.0.1:1/x", "can't copy to the device: ssh: connect to host 127.0.0.1 port 1"),
        ("http://127.0.0.1", "not a device's address"),
        (f"ssh://127.0.0.1:{port}{there}", "on 127.0.0.1: 100000 processors of"),
    ):
        more = ["--cpus", 100000] if words.startswith("on") else []
        found = bench(bundle, "--device", device, "--patches", 2, *more)
        assert found.returncode == 2
        assert words in found.stderr
        assert "Traceback" not in found.stderr
        assert len([line for line in found.stderr.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=evil/x",
        "ssh://",
        "ssh://a b",
        "ssh://host/",
        "ssh://host?x=1",
        "host",
        "ssh://host:port",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(PrunedgeError, match="not a device's address"):
        Host.parse(url)


def test_addresses() -> None:
    assert Host.parse("ssh://pi@camera-3.local:2222/home/pi/venv/bin/prunedge") == Host(
        "pi@camera-3.local", 2222, "/home/pi/venv/bin/prunedge"
    )
    assert Host.parse("ssh://jetson") == Host("jetson", None, "prunedge")


def test_layers_are_timed_on_another_machine(there: Path, port: int, tmp_path: Path) -> None:
    from prunedge.latency import Timer
    from prunedge.latency.layer_files import write_probe
    from prunedge.latency.layers import Shape

    for width in (4, 8):
        write_probe(Shape(width, width, (6, 6), (3, 3)), tmp_path / f"{width}.onnx")
    found = Timer(f"ssh://127.0.0.1:{port}{there}").time(
        {f"layer-{width}.onnx": tmp_path / f"{width}.onnx" for width in (4, 8)}
    )
    assert set(found.ms) == {"layer-4.onnx", "layer-8.onnx"}
    assert min(found.ms.values()) > 0
    assert "onnxruntime" in found.runtime
    with pytest.raises(PrunedgeError, match="not installed there"):
        Timer(f"ssh://127.0.0.1:{port}/nowhere").time({"layer-4.onnx": tmp_path / "4.onnx"})
