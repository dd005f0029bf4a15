"""What docs/agent.md and deploy/ tell users to type works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.edge.update.announcement import check_manifest, load_key, parse_announcement, stated
from prunedge.edge.update.statement import Recipient, judge
from tests.edge.made_bundles import write_convolutional
from tests.needs import program

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "agent.md").read_text(encoding="utf-8")


def test_the_guide_s_commands_make_an_announcement_that_is_taken(tmp_path: Path) -> None:
    program("openssl")
    commands = re.search(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    assert commands is not None
    bundle = write_convolutional(
        tmp_path / "bundles" / "cracks-v2", model="small", classes=["crack", "sound"]
    )
    # The last argument of mosquitto_pub is the message's file.
    stubs = f'mosquitto_pub() {{ cp "${{@: -1}}" announced; }}\nprunedge() {{ {shlex.quote(sys.executable)} -m prunedge "$@"; }}\n'
    subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{stubs}{commands[1]}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    announced = parse_announcement((tmp_path / "announced").read_bytes())
    check_manifest(announced, (bundle / "manifest.json").read_bytes())
    statement = stated(announced, load_key(tmp_path / "signing.pub.pem"))
    assert statement is not None
    assert statement.release.version == 2
    judge(statement, Recipient("bridge-7", "site/models/cracks", "cracks"), None, datetime.now(UTC))


def test_the_guide_s_finding_is_json_with_the_fields_of_one() -> None:
    shown = re.search(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert shown is not None
    assert {
        "id",
        "device",
        "time",
        "image",
        "image_sha256",
        "bundle_sha256",
        "is_damaged",
        "regions",
    } <= set(json.loads(shown[1]))


def test_the_service_s_settings_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / "agent.env").read_text().splitlines()
        if line and line[0] != "#"
    )
    monkeypatch.setenv("PRUNEDGE_MQTT_PASSWORD", lines["PRUNEDGE_MQTT_PASSWORD"])
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    with pytest.raises(SystemExit) as ended:
        main(["agent", *shlex.split(lines["PRUNEDGE_AGENT"].replace("/srv/images", str(tmp_path)))])
    # All is well but that nothing is installed there.
    assert ended.value.code == 2
    assert "(/opt/prunedge/bundle)" in capsys.readouterr().err


def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    systemd_analyze = program("systemd-analyze")
    text = (ROOT / "deploy" / "prunedge-agent.service").read_text()
    (tmp_path / "prunedge-agent.service").write_text(
        text.replace("/opt/prunedge/venv/bin/prunedge", "/bin/true")
    )
    done = subprocess.run(
        [systemd_analyze, "verify", str(tmp_path / "prunedge-agent.service")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "prunedge-agent.service" not in done.stderr, done.stderr


def test_every_option_that_the_guide_names_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("agent", "sign"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
    known = capsys.readouterr().out
    for option in set(
        re.findall(
            r"(?<![\w-])--(?!once)[a-z][a-z-]+", re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
        )
    ):
        assert option in known, option
