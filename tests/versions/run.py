"""Python 3.11 to 3.13, and the oldest versions that pyproject.toml allows: do the tests pass?

    make test-versions [ONLY=3.12,oldest]

Each gets an environment of its own in .versions/, which is removed when it has been tried. A Python
that is not on this machine is named, and is no failure. docs/dependencies.md notes the outcome.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".versions"

PYTHONS = ("3.11", "3.12", "3.13")
OLDEST = "oldest"

# Installed beside the plain package. Ray, NNCF and ExecuTorch are left out: each says itself which
# versions of Python and torch it allows.
EXTRAS = ("prune", "study", "openvino", "video", "agent")
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "playwright")

# A part of each stage, which takes a few minutes.
TESTS = (
    "tests/cli/test_help.py",
    "tests/data",
    "tests/edge/image",
    "tests/edge/inspect",
    "tests/export/test_bundle.py",
    "tests/graph/test_trace.py",
    "tests/importance/test_criteria.py",
    "tests/models",
    "tests/pruning",
    "tests/report/test_library.py",
    "tests/runs/test_run.py",
    "tests/surgery",
    "tests/train",
    "tests/utils",
)


def main() -> int:
    """Try each version, print a table, and give 1 where a test or an install failed."""
    parser = argparse.ArgumentParser(description="Try versions of Python and of the dependencies.")
    parser.add_argument("--only", default=",".join([*PYTHONS, OLDEST]), help="which, with commas")
    parser.add_argument("--keep", action="store_true", help="leave the environments in .versions/")
    arguments = parser.parse_args()

    outcomes = {}
    for version in arguments.only.split(","):
        outcomes[version] = try_version(version)
        print(f"{version}: {outcomes[version]}", flush=True)

        if not arguments.keep:
            shutil.rmtree(FOLDER / version, ignore_errors=True)

    print("\n| version | outcome |\n| --- | --- |")
    for version, outcome in outcomes.items():
        print(f"| {version} | {outcome} |")

    return int(any("failed" in outcome for outcome in outcomes.values()))


def try_version(version: str) -> str:
    """Install and test one version; how it went, in a line."""
    environment = FOLDER / version
    python = PYTHONS[0] if version == OLDEST else version

    if uv("venv", "--clear", "--no-python-downloads", "--python", python, environment) != 0:
        return "this Python is not on this machine"
    if install(version, environment) != 0:
        return "the install failed"

    return run_tests(environment)


def install(version: str, environment: Path) -> int:
    """Install the package with its extras and the test tools; uv's exit code."""
    oldest = ["--resolution", "lowest-direct"]
    newest = ["--constraints", ROOT / "constraints.txt"]
    versions = oldest if version == OLDEST else newest

    package = f"{ROOT}[{','.join(EXTRAS)}]"
    where = ["--python", environment / "bin/python"]
    return uv("pip", "install", *where, *versions, "--editable", package, *pinned_tools())


def pinned_tools() -> list[str]:
    """The test tools as constraints.txt has them, for the oldest too: no user meets them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0] in TOOLS]


def uv(*arguments: str | Path) -> int:
    """Run uv; its exit code."""
    return subprocess.run([find_uv_bin(), *arguments], check=False).returncode


def run_tests(environment: Path) -> str:
    """Run the part of the tests; pytest's last line, with `failed` in it where a test did."""
    options = ["-q", "-n", "2", "-m", "not slow", "-p", "no:cacheprovider"]
    command = [environment / "bin/python", "-m", "pytest", *options, *TESTS]
    variables = dict(os.environ)
    variables.pop("PYTHONPATH", None)
    variables.pop("PRUNEDGE_CI", None)

    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)

    counts = [line for line in done.stdout.splitlines() if re.search(r"\d+ (passed|error)", line)]
    outcome = counts[-1].strip("= ") if counts else "no test ran"
    return outcome if done.returncode == 0 or "failed" in outcome else f"failed: {outcome}"


if __name__ == "__main__":
    sys.exit(main())
