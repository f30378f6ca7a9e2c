# SPDX-License-Identifier: Apache-2.0
"""
The documentation tells of everything that there is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import containerlib as cl
from containerlib.types.options import OPTION_NAMES, UPDATE_NAMES

DOCS = Path(__file__).parent.parent / "docs"
ROW = re.compile(r"^\| (`.*?)(?= \|) \|(.*)\|(.*)\|$", re.MULTILINE)


def _rows() -> list[tuple[list[str], bool]]:
    text = (DOCS / "reference/options.md").read_text(encoding="utf-8")
    return [(re.findall(r"`(\w+)`", row[0]), "↻" in row[0]) for row in ROW.findall(text)]


def test_each_option_is_explained() -> None:
    """
    The reference has one row for each option, and no other.
    """
    found = [name for names, _ in _rows() for name in names]

    assert sorted(OPTION_NAMES) == sorted(found)


def test_options_of_update_are_marked() -> None:
    """
    What `update` takes is marked in the reference.
    """
    assert sorted(UPDATE_NAMES) == sorted(name for names, marked in _rows() if marked for name in names)


@pytest.mark.parametrize("name", [name for name in cl.__all__ if isinstance(getattr(cl, name), type)])
def test_each_public_class_is_in_the_reference(name: str) -> None:
    """
    Every public class and exception stands on a page of the reference.
    """
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    value = getattr(cl, name)

    if issubclass(value, cl.ContainerlibError):
        assert "automodule:: containerlib.errors" in pages
    else:
        assert re.search(rf"(autoclass:: containerlib\.|:members:.*\b){name}\b", pages)


def test_every_page_is_reached() -> None:
    """
    Each page stands in the list of its directory, and each list names pages that are there.
    """
    for index in DOCS.glob("*/index.md"):
        listed = re.search(
            r"```\{toctree\}\n(?::.*\n)*\n(.*?)```", index.read_text(encoding="utf-8"), re.DOTALL
        )
        assert listed
        pages = {path.stem for path in index.parent.glob("*.md")} - {"index"}
        assert pages == set(listed[1].split())


def test_links_lead_somewhere() -> None:
    """
    A link to another page names a file.
    """
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
