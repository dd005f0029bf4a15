"""What a device tells of itself, on file trees like those of real ones."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from prunedge.edge import Candidate, open_bundle, runtimes
from prunedge.edge.bench import worker
from prunedge.edge.bench.hardware import device, metered, processor, state
from prunedge.edge.bench.measure import bench
from prunedge.edge.bench.workload import ResourceLimits
from prunedge.edge.targets import TARGETS
from prunedge.errors import BundleError, MachineError


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32\n",
            "proc/meminfo": "MemTotal:        3884364 kB\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/class/thermal/thermal_zone0/temp": "81234\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "20002\n",
        },
    )
    assert processor(root) == "Raspberry Pi 4 Model B Rev 1.4"
    found = device(root)
    assert found["features"] == ["asimd"]
    assert found["governor"] == "ondemand"
    assert found["memory_mb"] == 3978
    assert state(root) == {"celsius": 81.234, "mhz": 1500.0, "throttled": 1.0}


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert state(tmp_path) == {}
    assert "governor" not in device(tmp_path)
    with metered(tmp_path) as energy:
        pass
    assert energy.joules is None
    assert energy.source is None


def test_rapl_counts_packages_once_and_begins_anew(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    root = put(
        tmp_path,
        {
            f"{zone}/name": "package-0\n",
            f"{zone}/energy_uj": "999000000\n",
            f"{zone}/max_energy_range_uj": "999999999\n",
            "sys/class/powercap/intel-rapl:0:0/name": "core\n",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "5\n",
            "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "999999999\n",
        },
    )
    with metered(root) as energy:
        (root / zone / "energy_uj").write_text("2000000\n")
    assert energy.joules == pytest.approx(3.0)
    assert energy.source == "RAPL, whole package"


@pytest.mark.parametrize("kind", ["hwmon", "iio"])
def test_a_jetsons_power_is_its_input_over_time(tmp_path: Path, kind: str) -> None:
    if kind == "hwmon":
        base = "sys/class/hwmon/hwmon3"
        files = {
            f"{base}/in1_label": "VDD_IN\n",
            f"{base}/power1_input": "5000\n",
            f"{base}/in2_label": "VDD_GPU\n",
            f"{base}/power2_input": "900\n",
        }
    else:
        base = "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0"
        files = {
            f"{base}/rail_name_0": "VDD_IN\n",
            f"{base}/in_power0_input": "5000\n",
            f"{base}/rail_name_1": "GPU\n",
            f"{base}/in_power1_input": "9\n",
        }
    root = put(tmp_path, files)
    began = time.perf_counter()
    with metered(root) as energy:
        time.sleep(0.2)
    took = time.perf_counter() - began
    assert energy.joules is not None
    assert 5.0 * 0.2 <= energy.joules <= 5.0 * took
    assert not [one for one in threading.enumerate() if one.name == "prunedge-energy"]


def test_memory_is_the_workers_and_not_its_parents(bundle: Path) -> None:
    held = bytearray(900_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert bench([Candidate(open_bundle(bundle))], patches=2).bundles[0]["peak_rss_mb"] < 500
    assert len(held)


def test_a_bench_can_be_kept_to_fewer_processors_and_less_memory(bundle: Path) -> None:
    opened = Candidate(open_bundle(bundle))
    assert bench([opened], patches=2, limits=ResourceLimits(cpus=1)).limits == {"cpus": 1}
    with pytest.raises(BundleError, match="100000 processors of"):
        bench([opened], patches=2, limits=ResourceLimits(cpus=100000))
    assert (
        bench([opened], patches=2, limits=ResourceLimits(memory_mb=2000)).bundles[0][
            "seconds_total"
        ]
        > 0
    )
    with pytest.raises(BundleError, match="memory"):
        bench([opened], patches=2, batches=[4000], limits=ResourceLimits(memory_mb=90))


WITHOUT_MEMORY = {
    "bundle": "bundles/small",
    "target": None,
    "threads": 1,
    "largest": 1,
    "pool": None,
    "flush": True,
    "cpus": None,
}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        SystemError("error return without exception set"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MachineError("there is not enough memory", where="model.onnx", remedy="free some"),
    ],
)
@pytest.mark.parametrize("memory_mb", [None, 90])
def test_a_lack_of_memory_is_the_same_line_whoever_meets_it(
    error: Exception,
    memory_mb: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> None:
        raise error

    orders = {**WITHOUT_MEMORY, "memory_mb": memory_mb}
    monkeypatch.setattr(sys, "argv", ["worker", json.dumps(orders)])
    monkeypatch.setattr(worker, "open_bundle", fails)
    monkeypatch.setattr(worker, "limit_memory", lambda size: None)
    monkeypatch.setattr(worker, "limit_memory_to_machine", lambda: None)
    worker.main()
    said = json.loads(capsys.readouterr().out)
    remedy = "give a smaller --batch or --batches"
    if memory_mb is not None:
        remedy += ", or allow more with --memory"
    assert said["error"] == ["there is not enough memory for it", "bundles/small", remedy]
    assert said["is_machines"] == (memory_mb is None)


@pytest.mark.parametrize(
    ("raised", "limits", "error", "line"),
    [
        (
            "raise MemoryError",
            None,
            MachineError,
            r"there is not enough memory for it .*: give a smaller --batch",
        ),
        (
            "raise ImportError('libblas.so: failed to map segment from shared object')",
            90,
            BundleError,
            r"there is not enough memory for it .*, or allow more with --memory",
        ),
        (
            "raise ValueError('odd')",
            None,
            BundleError,
            r"the process that measures it died \(exit code 1\): ValueError: odd .*memory\?",
        ),
        (
            "import os; os.abort()",
            None,
            BundleError,
            r"the process that measures it died \(exit code -6\) .*: is there enough memory\?",
        ),
    ],
)
def test_a_worker_that_dies_while_it_imports_is_a_line_without_a_traceback(
    bundle: Path,
    tmp_path: Path,
    raised: str,
    limits: int | None,
    error: type[Exception],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(raised)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    with pytest.raises(error, match=line):
        bench([Candidate(open_bundle(bundle))], patches=2, limits=ResourceLimits(None, limits))
    assert capfd.readouterr().err == ""


def test_the_machine_s_trouble_while_layers_are_timed_is_a_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The profile of a runtime is a file, for which there may be no room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/profile.json")

    orders = {
        "bundle": str(bundle),
        "target": None,
        "threads": 1,
        "largest": 1,
        "pool": None,
        "flush": True,
        "cpus": None,
        "memory_mb": None,
    }
    monkeypatch.setattr(sys, "argv", ["worker", json.dumps(orders)])
    monkeypatch.setattr(
        sys, "stdin", io.StringIO(json.dumps({"what": "profile", "batch": 1, "batches": 1}))
    )
    monkeypatch.setattr(runtimes.runtime_of(TARGETS["onnx"]), "layers", full)
    monkeypatch.setattr(worker, "limit_memory_to_machine", lambda: None)
    worker.main()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["error"] == [
        "No space left on device",
        "/tmp/profile.json",
        "free space there, or choose another place",
    ]
    assert said["is_machines"] is True
