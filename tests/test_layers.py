# SPDX-License-Identifier: Apache-2.0
"""
The drawing in docs/explanation/architecture.md, checked against the code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import permutations
from pathlib import Path

import pytest

import containerlib

NOUNS = ["container", "image", "volume", "network", "registry"]

ROWS = [
    {"errors", "types"},
    {"shim"},
    {"store"},
    {"images"},
    {"runtime", "networks", "distribution"},
    {"containers"},
    {"engine"},
    {"build"},
    {*NOUNS},
    {"", "fixtures", "notebook", "engine_api"},
]
"""
Lowest row first; the empty name is `containerlib/__init__.py`.
"""

SIDEWAYS = {
    # A value that is refused raises an error of the tree.
    ("types", "errors"),
    # One noun's method returns another: `image.run`, `container.commit`.
    *permutations(NOUNS, 2),
}
"""
Imports within a row that are meant.
"""

PACKAGE = Path(containerlib.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TREE = Path(__file__).parent.parent
SOURCES = sorted([*MODULES, *(TREE / "src").rglob("*.[ch]")])
TESTS = sorted(p for top in ("tests", "benchmarks") for p in (TREE / top).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else TREE))


def _room(module: str) -> str:
    return ([*module.split("."), ""])[1]


def _own_room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").replace("__init__", "")


def _row(room: str) -> int:
    return next((number for number, rooms in enumerate(ROWS) if room in rooms), -1)


def _imports(path: Path) -> Iterator[str]:
    """
    Full names of the modules that *path* imports, wherever the statement stands.

    An import for the type checker alone does not count: it is no dependency at run time.
    """
    here = ["containerlib", *path.relative_to(PACKAGE).with_suffix("").parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ignored = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from containerlib import shim` names a room, `from containerlib.shim import spawn` does not.
            if module == "containerlib":
                yield from (f"containerlib.{alias.name}" for alias in node.names)
            else:
                yield module


def _importers(*names: str) -> set[str]:
    """
    The modules that import a top-level module of *names*.
    """
    return {_name(path) for path in MODULES for module in _imports(path) if module.split(".")[0] in names}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_downwards(path: Path) -> None:
    """
    A module imports its own room and rows below it, never upwards or sideways.
    """
    own = _own_room(path)
    wrong = [
        module
        for module in _imports(path)
        if module.split(".")[0] == "containerlib"
        and _room(module) != own
        and (own, _room(module)) not in SIDEWAYS
        and not -1 < _row(_room(module)) < _row(own)
    ]

    assert [] == wrong


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(["containerlib", *(part for part in parts if part != "__init__")])


def _at_import(path: Path) -> set[str]:
    """
    The package's modules that importing *path* loads, in its own statements.
    """
    modules = {_module(other) for other in MODULES}
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            # The package's own `__init__` is in sys.modules already when its module asks for a sibling.
            found |= submodules if len(submodules) == len(node.names) else {node.module, *submodules}
    return found & modules - {_module(path)}


def test_no_cycle() -> None:
    """
    No two modules need each other while they are imported.
    """
    graph = {_module(path): _at_import(path) for path in MODULES}

    list(TopologicalSorter(graph).static_order())


def test_every_room_is_drawn() -> None:
    """
    Each module and package stands in one row of the drawing.
    """
    rooms = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py").replace("__init__", "") for path in MODULES
    }

    assert [] == sorted(room for room in rooms if _row(room) < 0)


def test_shim_alone_imports_cffi() -> None:
    """
    Nothing but the shim touches cffi or the compiled binding.
    """
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in MODULES
        for module in _imports(path)
        if module.split(".")[0] in ("cffi", "_cffi_backend") or module == "containerlib.shim._shim"
    }

    assert users <= {"shim"}


ALLOWED_SUBPROCESS: dict[str, str] = {}
"""
Modules that may start a program with `subprocess`, each with the reason.
"""


def test_nothing_shells_out() -> None:
    """
    No module starts other programs but those listed with a reason.
    """
    users = {
        _name(path)
        for path in MODULES
        for module in _imports(path)
        if module.split(".")[0] in ("subprocess", "pty")
    }

    assert set(ALLOWED_SUBPROCESS) == users


def test_transport_alone_requests() -> None:
    """
    Only `distribution.transport` imports requests.
    """
    users = {
        _name(path) for path in MODULES for module in _imports(path) if module.split(".")[0] == "requests"
    }

    assert users <= {"distribution/transport.py"}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_modules_are_short(path: Path) -> None:
    """
    No module, in Python or in C, is over 500 lines.
    """
    assert 500 >= len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=_name)
def test_licence_line(path: Path) -> None:
    """
    Each file names its licence in its first line.
    """
    first = path.read_text(encoding="utf-8").partition("\n")[0]

    assert "SPDX-License-Identifier: Apache-2.0" in first


@pytest.mark.parametrize("path", [p for p in TESTS if p.name.startswith("test_")], ids=_name)
def test_tests_state_a_behaviour(path: Path) -> None:
    """
    Each test has a docstring.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert [] == silent
