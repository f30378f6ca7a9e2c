# SPDX-License-Identifier: Apache-2.0
"""
The public names, and what it costs to import them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources

import pytest

import containerlib as cl

HEAVY = {"asyncio", "email", "http", "inspect", "logging", "socket", "ssl", "subprocess", "tarfile"}
"""
Modules of the standard library that take milliseconds to import.
"""


def _python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_all_is_what_is_visible() -> None:
    """
    `__all__` is sorted and equals the names that dir() shows.
    """
    visible = sorted(name for name in dir(cl) if not name.startswith("_"))

    assert sorted(cl.__all__) == visible
    assert sorted(cl.__all__) == list(cl.__all__)


@pytest.mark.parametrize("name", cl.__all__)
def test_each_name_is_there(name: str) -> None:
    """
    Every name in `__all__` can be had, and says that it is containerlib's.
    """
    value = getattr(cl, name)

    if isinstance(value, type) or callable(value):
        assert "containerlib" == value.__module__.partition(".")[0]


def test_star_import() -> None:
    """
    `from containerlib import *` gives what `__all__` lists.
    """
    names = json.loads(_python("from containerlib import *; import json; print(json.dumps(dir()))"))

    assert set(cl.__all__) <= set(names)


def test_unknown_name_is_an_attribute_error() -> None:
    """
    A name that is not there raises AttributeError, which names it.
    """
    with pytest.raises(AttributeError, match="no_such_name"):
        cl.no_such_name  # noqa: B018


def test_import_is_light() -> None:
    """
    `import containerlib` loads nothing of third parties, and nothing heavy of the standard library.
    """
    loaded = json.loads(
        _python(
            "import sys; before = set(sys.modules); import containerlib, json;"
            " print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    roots = {name.partition(".")[0] for name in loaded}

    assert set() == {name for name in roots - {"containerlib"} if name not in sys.stdlib_module_names}
    assert set() == roots & {
        "asyncio",
        "subprocess",
        "tarfile",
        "socket",
        "ssl",
        "http",
        "email",
        "inspect",
        "logging",
    }


def test_typed() -> None:
    """
    Type checkers are told that the package has types.
    """
    assert (resources.files(cl) / "py.typed").is_file()
