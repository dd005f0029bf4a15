"""Options as the user calls them where he is, commands that can be copied, and reasons said once for each kind."""

from __future__ import annotations

import subprocess

import pytest

from prunedge.cli.app import main
from prunedge.utils.advice import command, option, quoted, speaking
from prunedge.utils.sanitize import by_kind


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "with a space",
        "two  spaces",
        "it's",
        'say "so"',
        "a\nbreak",
        "tab\there",
        "$HOME",
        "back\\slash",
        "Größe",
        "\x1b[31m",
        "x'\n\\é",
    ],
)
def test_a_copied_command_means_the_same_name_in_one_line(name: str) -> None:
    line = command("show", name)
    assert line.isprintable()
    assert line.startswith("prunedge show ")
    found = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True
    )
    assert found.stdout.decode() == name


def test_bytes_that_are_no_text_are_copied_too() -> None:
    name = b"caf\xe9 ".decode(errors="surrogateescape")
    found = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True
    )
    assert found.stdout == b"caf\xe9 "


def test_an_option_is_called_as_the_user_calls_it() -> None:
    assert option("lr", 0.002) == "lr=0.002"
    assert option("train_epochs") == "train_epochs="
    assert option("finetune_lr", 0.1) == "finetune_lr=0.1"
    with speaking("command"):
        assert option("finetune_lr", 0.1) == "--finetune-lr 0.1"
        assert option("lr") == "--lr"
    with speaking("study"):
        assert option("lr", 0.002) == "`lr = 0.002`"
        assert option("metric", "f1") == '`metric = "f1"`'
    assert option("metric", "f1") == "metric='f1'"


def test_a_reason_is_said_once_for_its_kind() -> None:
    reasons = {f"layer.{i}": f"differs by {i}.5e-0{i} of its largest output" for i in range(1, 8)}
    lines = by_kind({"head": "is the output", **reasons})
    assert lines == [
        "differs by 1.5e-01 of its largest output (7 of them: layer.1, layer.2, layer.3, layer.4 and 3 more)",
        "is the output (head)",
    ]


def test_a_command_that_has_ended_leaves_the_words_of_python() -> None:
    with pytest.raises(SystemExit):
        main(["show", "/nowhere"])
    assert option("lr") == "lr="
