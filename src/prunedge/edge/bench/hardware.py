"""What a device is and how it feels, as far as its system tells in files: processor, governor,
temperature, energy.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from prunedge.utils.machine import require_memory

ROOT = Path("/")
SAMPLE_S = 0.05
# What decides how fast a model runs; the rest of a processor's flags is noise.
FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


def device(root: Path = ROOT) -> dict[str, Any]:
    """This machine: processor, its features, cores that this process may use, memory in MB (10^6),
    governor, system, architecture.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "processor": processor(root),
        "features": _features(root),
        "cores": cores,
        "memory_mb": _memory_mb(root),
        "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
    }
    return {key: value for key, value in facts.items() if value not in (None, [])}


def processor(root: Path = ROOT) -> str:
    """The processor's or board's name, as far as the system tells it."""
    board = _read(root / "proc/device-tree/model")
    return board or _cpuinfo(root, "model name") or platform.processor() or platform.machine()


def state(root: Path = ROOT) -> dict[str, float]:
    """What changes while a device works: highest temperature in Celsius, MHz, times it was
    throttled. What can't be read is absent.
    """
    temperatures = _numbers(root, "sys/class/thermal/thermal_zone*/temp")
    clocks = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    throttled = _numbers(
        root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
    )
    raspberry = _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    readings: dict[str, float] = {}
    if temperatures:
        readings["celsius"] = max(temperatures) / 1000
    if clocks:
        readings["mhz"] = max(clocks) / 1000
    if throttled:
        readings["throttled"] = sum(throttled)
    if raspberry:
        readings["throttled"] = float(
            int(raspberry, 16) & 0b1110 != 0
        )  # arm frequency capped, throttled, soft temperature limit: now
    return readings


@dataclass
class Energy:
    """Joules that the device has used in a `metered` block so far; None where it has no counter.
    `source` says which.
    """

    joules: float | None = None
    source: str | None = None
    _samples: list[tuple[float, float]] = field(default_factory=list, repr=False)


@contextmanager
def metered(root: Path = ROOT) -> Iterator[Energy]:
    """Measure the energy of what runs inside: RAPL's counters of whole packages, or a Jetson's
    power sensors, sampled 20 times a second.

    It is that of the whole package or board, whatever else runs on it.
    """
    counters, sensors = _counters(root), _power_files(root)
    if counters:
        energy = Energy(source="RAPL, whole package")
        before = [_number(file) or 0.0 for file, _ in counters]
        yield energy
        after = [_number(file) or 0.0 for file, _ in counters]
        # The counters begin anew when they are full.
        energy.joules = (
            sum((b - a) % span for a, b, (_, span) in zip(before, after, counters, strict=True))
            / 1e6
        )
        return
    if not sensors:
        yield Energy()
        return
    energy, stop = Energy(source="power sensors of the board"), threading.Event()

    def sample() -> None:
        while True:
            watts = [value / 1e3 for file in sensors if (value := _number(file)) is not None]
            energy._samples.append((perf_counter(), sum(watts)))
            if stop.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=sample, daemon=True, name="prunedge-energy")
    require_memory(1)
    started = perf_counter()
    thread.start()
    try:
        yield energy
    finally:
        stop.set()
        thread.join()
        watts = [power for _, power in energy._samples]
        energy.joules = sum(watts) / len(watts) * (perf_counter() - started)


def _counters(root: Path) -> list[tuple[Path, float]]:
    """RAPL's counters that can be read, in microjoules, with where they begin anew; packages only,
    their parts are counted in them.
    """
    zones = []
    for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        span = _number(zone / "max_energy_range_uj")
        if (
            zone.name.count(":") == 1
            and (_read(zone / "name") or "").startswith("package")
            and _number(zone / "energy_uj") is not None
            and span
        ):
            zones.append((zone / "energy_uj", span + 1))
    return zones


def _power_files(root: Path) -> list[Path]:
    """A Jetson's total power in milliwatts: the input that its sensors call VDD_IN or POM_5V_IN,
    else all of theirs.
    """
    labels = [*root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*")]
    sensors = {
        label: label.with_name(f"in_power{label.name.rpartition('_')[2]}_input")
        for label in sorted(labels)
    }
    for label in sorted(root.glob("sys/class/hwmon/hwmon*/in*_label")):
        power = label.with_name(label.name.replace("in", "power", 1).replace("_label", "_input"))
        if power.exists():
            sensors[label] = power
    whole = [
        file
        for label, file in sensors.items()
        if (_read(label) or "").upper() in ("VDD_IN", "POM_5V_IN", "SYS5V")
    ]
    return whole or list(sensors.values())


def _features(root: Path) -> list[str]:
    flags = (_cpuinfo(root, "flags") or _cpuinfo(root, "Features") or "").split()
    return [name for name in FEATURES if name in flags]


def _memory_mb(root: Path) -> int | None:
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) * 1024 / 1e6)
    return None


def _cpuinfo(root: Path, key: str) -> str | None:
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        if line.split(":")[0].strip() == key:
            return line.split(":", 1)[1].strip()
    return None


def _numbers(root: Path, pattern: str) -> list[float]:
    return [value for file in root.glob(pattern) if (value := _number(file)) is not None]


def _number(file: Path) -> float | None:
    try:
        return float(_read(file) or "")
    except ValueError:
        return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        return None
