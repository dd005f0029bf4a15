"""How the code reads, in figures: a thermometer for whoever edits it, and no gate.

    python benchmarks/style.py [FOLDER]...

For each folder (`src/prunedge` without one), over all `.py` files below it. Lines are all lines: blank ones, comments and
docstrings too.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 100  # columns
SCREEN = 50  # lines of a function that fits a screen
LONG_FILE = 300  # lines
MANY = 8  # arguments that a person can still call

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Figures:
    """Counts over the files of a folder."""

    files: int = 0
    lines: int = 0
    nodes: int = 0
    wide_lines: int = 0
    skipped_formats: int = 0
    comprehensions: int = 0
    nested_comprehensions: int = 0
    parallel_assignments: int = 0
    long_files: list[str] = field(default_factory=list)
    long_functions: list[str] = field(default_factory=list)
    many_arguments: list[str] = field(default_factory=list)
    function_lines: list[int] = field(default_factory=list)

    def add(self, file: Path, root: Path) -> None:
        """Count a file."""
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        name = str(file.relative_to(root))
        self.files += 1
        self.lines += len(lines)
        self.wide_lines += sum(len(line) > WIDTH for line in lines)
        self.skipped_formats += text.count("fmt: skip")
        if len(lines) > LONG_FILE:
            self.long_files.append(f"{name} {len(lines)}")
        for node in ast.walk(ast.parse(text)):
            self.nodes += 1
            if isinstance(node, COMPREHENSIONS):
                self.comprehensions += 1
                self.nested_comprehensions += any(
                    isinstance(inner, COMPREHENSIONS) for inner in descendants(node)
                )
            elif isinstance(node, ast.Assign):
                self.parallel_assignments += is_parallel(node)
            elif isinstance(node, FUNCTIONS):
                self.add_function(node, name)

    def add_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, file: str) -> None:
        """Count a function."""
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        arguments = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
        self.function_lines.append(length)
        if length > SCREEN:
            self.long_functions.append(f"{file}:{node.name} {length}")
        if arguments > MANY:
            self.many_arguments.append(f"{file}:{node.name} {arguments}")

    def thousand(self, count: int) -> float:
        """How many of something there are in 1,000 lines."""
        return 1000 * count / max(1, self.lines)


def descendants(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below a node, without itself."""
    for child in ast.iter_child_nodes(node):
        yield from ast.walk(child)


def is_parallel(node: ast.Assign) -> bool:
    """Whether several values are assigned to as many names in one statement (`a, b = 1, 2`)."""
    return isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple)


def measure(root: Path) -> Figures:
    """The figures of all files below a folder."""
    figures = Figures()
    for file in sorted(root.rglob("*.py")):
        figures.add(file, root)
    return figures


def show(root: Path, figures: Figures) -> None:
    """Print the figures, then what is long."""
    wide = 100 * figures.wide_lines / max(1, figures.lines)
    rows = {
        "files": f"{figures.files}",
        "lines": f"{figures.lines:,}",
        "syntax nodes a line": f"{figures.nodes / max(1, figures.lines):.1f}",
        "comprehensions in 1,000 lines": f"{figures.thousand(figures.comprehensions):.1f}",
        "comprehensions that hold another": f"{figures.nested_comprehensions}",
        "parallel assignments in 1,000 lines": f"{figures.thousand(figures.parallel_assignments):.1f}",
        f"lines over {WIDTH} columns": f"{figures.wide_lines} ({wide:.1f} %)",
        "fmt: skip": f"{figures.skipped_formats}",
        "lines of a function, median": f"{statistics.median(figures.function_lines or [0]):.0f}",
        f"functions over {SCREEN} lines": f"{len(figures.long_functions)}",
        f"functions with over {MANY} arguments": f"{len(figures.many_arguments)}",
        f"files over {LONG_FILE} lines": f"{len(figures.long_files)}",
    }
    print(root)
    for name, value in rows.items():
        print(f"  {name:<38}{value}")
    for name, several in (
        ("files", figures.long_files),
        ("functions", figures.long_functions),
        ("arguments", figures.many_arguments),
    ):
        for one in several:
            print(f"    {name}: {one}")


def main() -> None:
    """Measure the folders that the command line names."""
    for folder in sys.argv[1:] or ["src/prunedge"]:
        show(Path(folder), measure(Path(folder)))


if __name__ == "__main__":
    main()
