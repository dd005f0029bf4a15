"""Every verb explains itself, and explaining needs no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.cli.verbs import VERBS
from prunedge.edge.targets import TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prunedge", verb, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "Example:" in done.stdout
    assert f"prunedge {verb}" in done.stdout


def test_help_does_not_import_the_training_stack() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'scipy', 'onnxruntime'): sys.modules[name] = None\n"
        "from prunedge.cli.app import main\n"
        "main(['--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.replace("│", " ").split())
    assert all(f"{verb} {line}" in said for verb, line in VERBS.items())


def test_the_help_of_an_export_lists_every_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(f" {name}" in said for name in TARGETS)


def test_a_missing_extra_is_named() -> None:
    code = "import sys\nsys.modules['torch'] = None\nfrom prunedge.cli.app import main\nmain(['show', '/nowhere'])\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'prunedge[prune]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_the_readme_names_every_verb(verb: str) -> None:
    assert f"prunedge {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_version_is_the_changelog_s_newest() -> None:
    import prunedge

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == prunedge.__version__


def test_public_names_exist_and_are_documented() -> None:
    import prunedge

    for name in prunedge.__all__:
        thing = getattr(prunedge, name)
        assert name == "__version__" or thing.__doc__


@pytest.mark.parametrize("imported", ["cyclopts", "rich", "torch", "scipy"])
def test_ctrl_c_while_modules_are_imported_is_one_line(imported: str, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores\n"
        "class Pressed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == sys.argv[1]: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from prunedge.cli.app import main\n"
        "main(['train', sys.argv[2], '--out', sys.argv[2] + '/out'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, imported, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130, done.stderr
    assert (
        done.stderr
        == "\ninterrupted before there was anything to keep: give the same command again\n"
    )


def test_a_help_that_nobody_reads_to_its_end_ends_quietly() -> None:
    command = f"{sys.executable} -m prunedge prune --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141), done.stderr
    assert done.stderr == "", done.stderr
