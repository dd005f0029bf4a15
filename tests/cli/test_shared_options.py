"""What several verbs ask for is typed once, has the library's defaults, and means the same in each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prunedge.cli.agent_options import NO_UPDATES, BrokerOptions
from prunedge.cli.bench_options import THE_TALKS
from prunedge.cli.inspect_options import DEFAULT, InspectOptions
from prunedge.cli.parser import make_app
from prunedge.edge.agent import UpdateSettings, parse_broker
from prunedge.edge.bench.workload import Workload
from prunedge.edge.inspect import Settings
from prunedge.edge.inspect.footprint import Pose
from prunedge.edge.inspect.scale.quantity import Quantity
from prunedge.edge.inspect.scale.scaling import Scaling
from prunedge.edge.inspect.widths import WidthClasses
from prunedge.errors import DataError

INSPECT = ["inspect", "bundle", "photo.jpg"]
AGENT = ["agent", "bundle", "--watch", "images", "--broker", "mqtt://h", "--topic", "a/b"]
INSPECTING = (
    "--damage",
    "--threshold",
    "--patch",
    "--whole",
    "--marker",
    "--distance",
    "--no-scale",
    "--width-classes",
    "--height",
    "--ground",
    "--heading",
    "--overlap",
    "--batch",
    "--mm-per-pixel",
    "--max-megapixels",
    "--range",
)


def parsed(*tokens: str) -> Any:
    """What a verb would be called with."""
    _, bound, _ = make_app(tokens[0]).parse_args(tokens, exit_on_error=False, print_error=False)
    return bound.arguments


def help_of(verb: str) -> str:
    """What `--help` prints, where nothing but the command itself is installed."""
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'onnxruntime', 'pydantic_core'): sys.modules[name] = None\n"
        "from prunedge.cli.app import main\n"
        f"main([{verb!r}, '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.replace("│", " ").split())


def test_the_defaults_are_the_library_s() -> None:
    assert DEFAULT.settings() == Settings()
    assert NO_UPDATES.settings() == UpdateSettings()
    assert THE_TALKS.workload() == Workload()
    assert BrokerOptions("mqtt://h").settings() == parse_broker("mqtt://h")


@pytest.mark.parametrize("verb", ["inspect", "agent", "bench"])
def test_help_needs_neither_numpy_nor_torch(verb: str) -> None:
    assert "--threads" in help_of(verb)


def test_inspect_and_agent_explain_the_same_options_in_the_same_words() -> None:
    of_inspect = help_of("inspect")
    of_agent = help_of("agent")
    for name in INSPECTING:
        _, _, explained = of_inspect.partition("Parameters ")[2].partition(f" {name} ")
        assert explained[:60] in of_agent, name
        assert f"{name} " in of_agent, name


@pytest.mark.parametrize("verb", [INSPECT, AGENT], ids=["inspect", "agent"])
@pytest.mark.parametrize(
    "given",
    [["--damage", "crack,spalling"], ["--damage", "crack", "--damage", "spalling"]],
    ids=["with commas", "several times"],
)
def test_classes_of_damage_are_given_with_commas_or_several_times(
    verb: list[str], given: list[str]
) -> None:
    options = parsed(*verb, *given)["inspection"]
    assert options.settings().damage == ("crack", "spalling")


@pytest.mark.parametrize("verb", [INSPECT, AGENT], ids=["inspect", "agent"])
def test_every_option_reaches_the_settings(verb: list[str]) -> None:
    options = parsed(
        *verb,
        *("--damage", "crack", "--threshold", "0.7", "--patch", "96x48", "--overlap", "0.25"),
        *("--batch", "4", "--mm-per-pixel", "0.5", "--max-megapixels", "20", "--range", "0:4095"),
    )["inspection"]
    assert options.settings() == Settings(
        damage=("crack",),
        threshold=0.7,
        patch=(96, 48),
        overlap=0.25,
        batch=4,
        mm_per_pixel=0.5,
        max_megapixels=20.0,
        range=(0.0, 4095.0),
    )


@pytest.mark.parametrize("verb", [INSPECT, AGENT], ids=["inspect", "agent"])
def test_the_scale_reaches_the_settings(verb: list[str]) -> None:
    options = parsed(
        *verb,
        *("--whole", "--distance", "2.5+-0.1m", "--no-scale", "skip", "--ground", "-4m"),
        *("--heading", "90", "--width-classes", "< 1, > 1"),
    )["inspection"]
    assert options.settings() == Settings(
        patch="whole",
        scaling=Scaling(distance=Quantity(2500.0, 100.0), missing="skip"),
        width_classes=WidthClasses((1.0,), ("< 1", "> 1")),
        pose=Pose(ground=Quantity(-4.0), heading=90.0),
    )
    given = parsed(*verb, "--mm-per-pixel", "0.5±0.1")["inspection"].settings()
    assert (given.mm_per_pixel, given.scaling.uncertainty) == (0.5, 0.1)
    with pytest.raises(DataError, match="exclude each other"):
        parsed(*verb, "--whole", "--patch", "9")["inspection"].settings()


def test_the_agent_s_options_of_new_bundles_reach_its_settings(tmp_path: Path) -> None:
    options = parsed(
        *AGENT,
        *("--model-topic", "site/models", "--model-from", str(tmp_path)),
        *("--model-from", "https://h/models", "--model-key", "public.pem"),
        *("--model-purpose", "cracks", "--model-max-mb", "20", "--model-minutes", "5"),
        *("--model-slower", "3"),
    )["models"]
    update = options.settings()
    assert update.topic == "site/models"
    assert update.origins.folders == (tmp_path,)
    assert [url.netloc for url in update.origins.urls] == ["h"]
    assert update.key == Path("public.pem")
    assert (update.purpose, update.largest_bytes) == ("cracks", 20_000_000)
    assert (update.fetch_seconds, update.slower) == (300.0, 3.0)


def test_the_options_are_those_of_a_dataclass() -> None:
    assert isinstance(parsed(*INSPECT, "--batch", "2")["inspection"], InspectOptions)
