# SPDX-License-Identifier: Apache-2.0
"""
What the tests of a container's life share: calls that need only what a test is
about, and programs that run in a Python process of their own.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import containerlib as cl


@pytest.fixture(name="run")
def _run(engine: object, busybox: object) -> Callable[..., cl.Completed[str]]:
    """
    ``containerlib.run`` on busybox without a network.
    """
    # A thread starts with an empty context, so the engine is named.
    return partial(cl.run, "busybox", network="none", engine=engine)


@pytest.fixture(name="start")
def _start(engine: object, busybox: object) -> Callable[..., cl.Container]:
    """
    ``Container.run`` on busybox without a network; the command sleeps if none is given.
    """

    def start(command: object = ("sleep", "1000"), **options: object) -> cl.Container:
        return cl.Container.run("busybox", command, **{"network": "none", "init": True} | options)

    return start


@pytest.fixture(name="create")
def _create(engine: object, busybox: object) -> Callable[..., cl.Container]:
    """
    ``Container.create`` likewise.
    """

    def create(command: object = ("sleep", "1000"), **options: object) -> cl.Container:
        return cl.Container.create("busybox", command, **{"network": "none", "init": True} | options)

    return create


class Program:
    """
    A Python program in a process of its own, on the test's engine.
    """

    def __init__(self, engine: object, source: str, **options: object) -> None:
        prelude = (
            "import os, signal, sys, threading\n"
            "import containerlib as cl\n"
            f"engine = cl.Engine({str(engine.root)!r}, {str(engine.run_root)!r}).__enter__()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(source)],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        )

    def line(self) -> str:
        """
        The next line that it prints.
        """
        line = self.process.stdout.readline().decode()
        assert line, self.process.stderr.read().decode()
        return line.rstrip("\n")

    def end(self, code: int | None = 0) -> str:
        """
        Wait for its end; what it printed.
        """
        out, err = self.process.communicate(timeout=60)
        assert code is None or self.process.returncode == code, err.decode()
        return out.decode()


@pytest.fixture(name="program")
def _program(engine: object) -> Iterator[Callable[..., Program]]:
    """
    Start programs; those that still run at the end are killed.
    """
    started: list[Program] = []

    def start(source: str, **options: object) -> Program:
        started.append(Program(engine, source, **options))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.wait()
        for stream in (program.process.stdin, program.process.stdout, program.process.stderr):
            if stream:
                stream.close()


@pytest.fixture(name="ended")
def _ended() -> Callable[[int], bool]:
    """
    Wait for the end of a process by its pidfd; false when it stays.
    """

    def ended(fd_or_pid: int, *, pid: bool = True) -> bool:
        try:
            fd = os.pidfd_open(fd_or_pid) if pid else fd_or_pid
        except ProcessLookupError:
            return True
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            return bool(poller.poll(20_000))
        finally:
            if pid:
                os.close(fd)

    return ended


@pytest.fixture(name="eventually")
def _eventually() -> Callable[[Callable[[], object]], object]:
    """
    Ask again until the answer is true; for what the kernel tells nobody about.
    """

    def eventually(question: Callable[[], object], timeout: float = 20) -> object:
        deadline = time.monotonic() + timeout
        while not (answer := question()):
            assert time.monotonic() < deadline, "never came true"
            time.sleep(0.01)
        return answer

    return eventually


@pytest.fixture(name="remains")
def _remains(engine: object) -> Callable[[], list[str]]:
    """
    What is left of containers in the engine's directories.
    """

    def remains() -> list[str]:
        found: list[str] = []
        for top in (Path(engine.root) / "containers", Path(engine.run_root)):
            for path in top.iterdir() if top.is_dir() else ():
                if path.name == "by-name":
                    found += [f"name {name.name}" for name in path.iterdir()]
                elif path.name not in ("lock", "userns"):
                    found.append(str(path))
        return found

    return remains
