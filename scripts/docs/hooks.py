"""What mkdocs calls: pages that are made from README and code, navigation, a last look."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# mkdocs loads this file by its path: what is beside it is found from the root of the project.
for folder in (ROOT, ROOT / "proto"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from scripts.docs.cli_reference import cli_page, settings_page  # noqa: E402
from scripts.docs.proto_reference import proto_page  # noqa: E402
from scripts.docs.python_reference import python_page  # noqa: E402

# Warnings of this logger count in a strict build.
logger = logging.getLogger("mkdocs.hooks.continual-agent")

LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
# A script, a style or a picture that would be fetched from elsewhere.
FOREIGN = re.compile(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+")
REFERENCE = {
    "reference/command-line.md": cli_page,
    "reference/settings.md": settings_page,
    "reference/grpc.md": lambda: proto_page(ROOT / "proto"),
    "reference/python.md": python_page,
}
FIRST = {"What it is": "index.md", "The first hour": "tutorial.md"}
SECTIONS = {
    "How to": ("how-to/",),
    "Explanation": ("explanation/", "design.md"),
    "Reference": ("reference/",),
    "Operations": ("operations/",),
    "Decisions": ("decisions/",),
}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made, and makes the navigation of what there is."""
    files.append(File.generated(config, "index.md", content=_front_page()))
    for path, made in REFERENCE.items():
        files.append(File.generated(config, path, content=made()))
    config.nav = _navigation(sorted(file.src_uri for file in files.documentation_pages()))
    return files


def _navigation(paths: Sequence[str]) -> list[Any]:
    """Every page in its section; those of none come last, the log of experiments among them."""
    nav: list[Any] = [{title: page} for title, page in FIRST.items()]
    told = {*FIRST.values()}
    for title, (folder, *more) in SECTIONS.items():
        inside = [path for path in paths if path.startswith(folder)] + more
        if inside:
            nav.append({title: inside})
        told.update(inside)
    return nav + [path for path in paths if path not in told]


def _front_page() -> str:
    """The README, with its links as they are seen from the documentation."""

    def linked(match: re.Match[str]) -> str:
        target = match["target"]
        if target.startswith(("http://", "https://", "#")):
            return match[0]
        if target.startswith("docs/"):
            return f"{match['bang']}[{match['text']}]({target.removeprefix('docs/')})"
        # What is not part of the documentation is named, not linked.
        return match["text"]

    return LINK.sub(linked, (ROOT / "README.md").read_text(encoding="utf-8"))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Nothing of a page may be fetched from elsewhere."""
    for found in FOREIGN.findall(output):
        if 'rel="canonical"' not in found:  # the page's own address
            logger.warning("%s fetches from elsewhere: %s", page.file.src_uri, found)
    return output
