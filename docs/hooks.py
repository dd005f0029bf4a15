"""What the site adds to the pages in docs/: the project's own, the command line, the public names.

MkDocs calls the functions that begin with `on_`. Whatever they warn of fails `make docs`.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import prunedge

log = logging.getLogger("mkdocs.hooks.prunedge")

ROOT = Path(__file__).parents[1]

# Pages that stand at the top of the repository, where people look for them.
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE",
}

API_NAME = re.compile(r"^::: prunedge\.(\w+)$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?P<target>[^)#\s:]+)(?=[)#])")
FETCHED = re.compile(r"""<(script|link|img|iframe)\b[^>]*\b(src|href)=["']?(https?:)?//""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages from elsewhere: the top of the repository, and the help of the command."""
    for source, place in ROOT_PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))

    files.append(File.generated(config, "cli.md", content=command_line_page()))

    for path in linked_files():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))

    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to places in the site, and public names to where they are defined."""
    place = page.file.src_uri

    if place == "api.md":
        markdown = api_page(markdown)

    return LINK.sub(lambda match: site_link(match["target"], place), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn of a page that would fetch something when it is opened."""
    for match in FETCHED.finditer(output):
        log.warning("%s fetches something from elsewhere: %s", page.file.src_uri, match[0])

    return output


def api_page(markdown: str) -> str:
    """The page with each `::: prunedge.NAME` replaced by the place that mkdocstrings can read."""
    named = set(API_NAME.findall(markdown))
    public = set(prunedge.__all__) - {"__version__"}

    for name in sorted(public - named):
        log.warning("api.md leaves out the public name prunedge.%s", name)
    for name in sorted(named - public):
        log.warning("api.md has prunedge.%s, which is not a public name", name)

    def block(match: re.Match[str]) -> str:
        name = match[1]
        options = f"    options:\n      heading: {name}\n      toc_label: {name}"
        return f"::: {home_of(name)}.{name}\n{options}"

    return API_NAME.sub(block, markdown)


def home_of(name: str) -> str:
    """The module that defines a public name."""
    home = prunedge._HOMES.get(name, "prunedge")
    module = ROOT / "src" / home.replace(".", "/") / f"{name}.py"

    # `prunedge.graph.trace` is a module and a function in it, of which readers want the function.
    return f"{home}.{name}" if module.is_file() else home


def command_line_page() -> str:
    """Every verb with its options, from the help that `prunedge VERB --help` prints."""
    from prunedge.cli.parser import make_app

    # An app that is made for a verb takes the verbs' own docstrings, not its lines about them.
    text = make_app("check").generate_docs()
    verbs = text[text.index("\n## prunedge ") :]
    # `path[,source][,split]` is no reference.
    verbs = verbs.replace("[,", r"\[,")
    intro = "What `prunedge VERB --help` prints, on one page.\n"
    return f"# Command line\n\n{intro}{verbs}"


def linked_files() -> list[str]:
    """Files outside docs/ that pages link to (measured results, what sets up a device)."""
    paths = set()

    for page in sorted((ROOT / "docs").glob("*.md")):
        for match in LINK.finditer(page.read_text(encoding="utf-8")):
            path = posixpath.normpath(posixpath.join("docs", match["target"]))
            if not path.startswith("docs/") and path not in ROOT_PAGES and (ROOT / path).is_file():
                paths.add(path)

    return sorted(paths)


def site_link(target: str, place: str) -> str:
    """Where a link leads in the site, from a page at the top of the repository or in docs/."""
    folder = "" if place in ROOT_PAGES.values() else "docs"
    path = posixpath.normpath(posixpath.join(folder, target))

    if path in ROOT_PAGES:
        return ROOT_PAGES[path]

    return path.removeprefix("docs/")
