# SPDX-License-Identifier: Apache-2.0
"""
Each Python example in these pages runs as a test, with an engine of the page's own.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser


def _setup(namespace: dict[str, Any]) -> None:
    from containerlib.engine import Engine

    stack = namespace["_stack"] = ExitStack()
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="containerlib-docs-")))
    stack.enter_context(Engine(directory / "root", directory / "run"))
    namespace["busybox"] = next((path for path in ("/bin/busybox",) if os.access(path, os.X_OK)), None)


def _teardown(namespace: dict[str, Any]) -> None:
    namespace["_stack"].close()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    setup=_setup,
    teardown=_teardown,
).pytest()
