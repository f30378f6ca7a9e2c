# SPDX-License-Identifier: Apache-2.0
"""
What the security tests share: hostile root file systems, a canary that must
stay as it is, and a process that exchanges names while containers start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import containerlib as cl

PYTHON = "/usr/bin/python3"
"""
An interpreter that containers of the host image find, too.
"""

RACE_SECONDS = float(os.environ.get("CONTAINERLIB_RACE_SECONDS", "4"))
"""
How long a racer runs.
"""

_EXCHANGE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
words = [word.encode() for word in sys.argv[1:]]
pairs = list(zip(words[::2], words[1::2])) * max(1, 128 // len(words))
print(flush=True)
while True:
    for one, other in pairs:
        libc.renameat2(-100, one, -100, other, 2)
"""


@pytest.fixture(name="busybox_image")
def _busybox_image(engine: cl.Engine, busybox: cl.Image) -> str:
    """
    The name of an image with busybox.
    """
    return "busybox"


@pytest.fixture(name="run")
def _run(engine: cl.Engine) -> Callable[..., cl.Completed[str]]:
    """
    ``containerlib.run`` on the test's engine, without a network unless it asks for one.
    """
    return partial(_settled, cl.run, engine)


@pytest.fixture(name="start")
def _start(engine: cl.Engine) -> Callable[..., cl.Container]:
    """
    ``Container.run`` likewise; the command sleeps if none is given.
    """
    return partial(_settled, cl.Container.run, engine)


def _settled(
    call: Callable[..., Any], engine: cl.Engine, image: str = "busybox", command: Any = None, **options: Any
) -> Any:
    return call(image, command or ["sleep", "1000"], **{"network": "none", "engine": engine} | options)


@pytest.fixture(name="hostile")
def _hostile(engine: cl.Engine, busybox_rootfs: Path, tmp_path: Path) -> Callable[..., str]:
    """
    Make an image of busybox that *change* has worked on, and return its name.
    """

    def make(
        change: Callable[[Path], object] | None = None,
        *,
        name: str = "hostile",
        config: Mapping[str, Any] | None = None,
    ) -> str:
        top = tmp_path / f"{name}-rootfs"
        shutil.copytree(busybox_rootfs, top, symlinks=True)
        if change is not None:
            change(top)
        cl.Image.from_rootfs(top, tag=name, config=config, engine=engine)
        return name

    return make


@pytest.fixture(name="host_python")
def _host_python() -> str:
    """
    The path of Python in containers of the host image.
    """
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"{PYTHON} is not installed (Debian: python3)")
    return PYTHON


class Canary:
    """
    A tree outside of every container; `check` tells whether anything in it changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "inner").mkdir(parents=True)
        (path / "secret").write_text("the host's secret\n", encoding="utf-8")
        (path / "inner/file").write_text("as it was\n", encoding="utf-8")
        self.before = self.listing()

    def listing(self) -> list[str]:
        """
        Each entry with its mode and owner, and a hash of what it holds.
        """
        found = []
        for directory, names, files in os.walk(self.path):
            for name in sorted([".", *names, *files]):
                path = os.path.join(directory, name)
                state = os.lstat(path)
                content = ""
                if name in files and not os.path.islink(path):
                    with open(path, "rb") as file:
                        content = hashlib.file_digest(file, "sha256").hexdigest()
                found.append(
                    f"{path} {state.st_mode:o} {state.st_uid} {state.st_gid} {state.st_nlink} {content}"
                )
        return sorted(found)

    def check(self) -> None:
        """
        Nothing was made, changed or removed.
        """
        assert self.before == self.listing()


@pytest.fixture(name="canary")
def _canary(tmp_path: Path) -> Iterator[Canary]:
    """
    A canary that is checked at the end, too.
    """
    canary = Canary(tmp_path / "canary")
    yield canary
    canary.check()


@pytest.fixture(name="exchange")
def _exchange() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """
    Exchange two names, or more pairs in turn, without a pause in a process of
    its own, for the length of a block.
    """

    @contextlib.contextmanager
    def racing(*names: Path) -> Iterator[None]:
        with subprocess.Popen(
            [sys.executable, "-c", _EXCHANGE, *map(str, names)], stdout=subprocess.PIPE
        ) as racer:
            assert racer.stdout is not None
            racer.stdout.readline()
            try:
                yield
            finally:
                racer.kill()

    return racing


@pytest.fixture(name="shared")
def _shared(tmp_path: Path) -> Path:
    """
    A directory that containers share and may write to.
    """
    path = tmp_path / "shared"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    return path


@pytest.fixture(name="mounts_in")
def _mounts_in() -> Callable[[str], dict[str, tuple[str, set[str]]]]:
    """
    Read the text of a mountinfo file: type and options by target.
    """

    def read(text: str) -> dict[str, tuple[str, set[str]]]:
        found = {}
        for line in text.splitlines():
            fields = line.split()
            found[fields[4]] = (fields[fields.index("-") + 1], set(fields[5].split(",")))
        return found

    return read
