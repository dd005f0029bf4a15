"""The agent's folder is the agent's own, and what it is told to do can be done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.edge.agent import AgentSettings, UpdateSettings, parse_broker
from prunedge.edge.agent.database import Store
from prunedge.errors import AgentError
from tests.irregular import Refused, in_time, pipe, refused

__all__ = ["in_time", "refused"]
pytestmark = pytest.mark.usefixtures("in_time")


@pytest.mark.parametrize("name", ["config.toml", "manifest.json", "a.png", "photos/a.png"])
def test_a_folder_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AgentError, match="not the agent's own") as error:
        Store(tmp_path)
    assert error.value.where == tmp_path
    assert "--state" in str(error.value.remedy)
    assert sorted(tmp_path.rglob("*")) == before


def test_its_own_folder_is_taken_again(tmp_path: Path) -> None:
    Store(tmp_path / "state").close()
    (tmp_path / "state" / "password.txt").touch()  # beside a queue that is there, this may be meant
    Store(tmp_path / "state").close()
    for name in ("bundles", "frames"):
        (tmp_path / "begun" / name).mkdir(parents=True)
    Store(tmp_path / "begun").close()


@pytest.mark.parametrize("name", ["lock", "agent.sqlite"])
def test_pipes_in_its_folder(name: str, tmp_path: Path) -> None:
    pipe(tmp_path / name)
    with pytest.raises(AgentError, match="named pipe"):
        Store(tmp_path)


def test_what_is_watched_is_another_folder(settings: AgentSettings, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(settings.watch)
    for state in (Path(settings.watch), tmp_path / "link"):
        with pytest.raises(AgentError, match="--state"):
            replace(settings, state=state)


def test_settings_that_mean_nothing(settings: AgentSettings) -> None:
    with pytest.raises(AgentError, match="--watch"):
        replace(settings, watch="")
    with pytest.raises(AgentError, match="--device-id"):
        replace(settings, device="")
    with pytest.raises(AgentError, match="--model-key"):
        UpdateSettings(topic="a/b", purpose="cracks")
    with pytest.raises(AgentError, match="port 0"):
        parse_broker("mqtt://h:0")


@pytest.mark.parametrize("option", ["--state", "--device-id", "--watch", "--ca"])
def test_empty_values(
    option: str, bundles: tuple[Path, Path], tmp_path: Path, refused: Refused
) -> None:
    given = {
        "--watch": str(tmp_path),
        "--broker": "mqtt://127.0.0.1:1",
        "--topic": "a/b",
        "--state": str(tmp_path / "state"),
        option: "",
    }
    line = [f"{name}={value}" for name, value in given.items()]
    assert option in refused("agent", bundles[0], *line)


def test_a_place_is_the_same_on_every_device(
    bundles: tuple[Path, Path], tmp_path: Path, refused: Refused
) -> None:
    line = ["--key", tmp_path / "no.pem", "--release", 1, "--purpose", "p", "--devices", "*"]
    told = refused("sign", bundles[0], *line, "--place", "relative/x")
    assert "--place" in told
    assert "https://" in told
    for place in ("/srv/x", "C:\\models\\x"):
        assert "key" in refused("sign", bundles[0], *line, "--place", place)


def test_an_empty_path_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["patches", "photos", "masks", "--out="])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err
