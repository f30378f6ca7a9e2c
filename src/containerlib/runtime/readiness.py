# SPDX-License-Identifier: Apache-2.0
"""
Waiting until a container is ready for use.

A condition is looked at when something may have changed: the log's growth and
the end of the process wake the wait at once; listening sockets, HTTP, health
and commands have no event and are looked at in growing intervals, the first
after a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence
from typing import Any

from containerlib.errors import ContainerExited, ContainerlibError, ContainerTimeout
from containerlib.runtime.client import Deadline
from containerlib.runtime.conditions import (
    CommandCondition,
    Condition,
    HealthCondition,
    HttpCondition,
    HttpOption,
    LogCondition,
    LogOption,
    PortCondition,
    PortOption,
    Target,
)
from containerlib.types.parsing import Command

TAIL = 30  # lines of the log in an error


def make_conditions(
    target: Target,
    stack: contextlib.ExitStack,
    *,
    log: LogOption | None,
    port: PortOption | Sequence[PortOption] | None,
    http: str | HttpOption | None,
    healthy: bool | None,
    command: Command | None,
) -> list[Condition]:
    """
    The conditions asked for; *stack* closes them.
    """
    conditions: list[Condition] = []

    def add(condition: Condition) -> None:
        stack.callback(condition.close)
        conditions.append(condition)

    ports = () if port is None else (port,) if isinstance(port, (int, str)) else tuple(port)
    for number in ports:
        add(PortCondition(target, number))
    if http is not None:
        add(HttpCondition(target, http, ports[0] if ports else None))
    if healthy:
        add(HealthCondition(target))
    if command is not None:
        add(CommandCondition(target, command))
    if log is not None:
        add(LogCondition(target, log))
    if not conditions:
        raise TypeError("wait_until: expected at least one of log, port, http, healthy=True and command")
    return conditions


def wait_until(
    target: Target,
    *,
    log: LogOption | None = None,
    port: PortOption | Sequence[PortOption] | None = None,
    http: str | HttpOption | None = None,
    healthy: bool | None = None,
    command: Command | None = None,
    timeout: float | None = 60.0,
) -> None:
    """
    Wait until each condition given has held once.

    *log* is text in a line, a compiled pattern, or either with a number of
    times; *port* one that something listens on (``5432``, ``"53/udp"``) or
    several; *http* a path to ask for, on *port* or 80, or an
    :class:`HttpOption`; *command* one that must exit with 0.

    Raises:
        ContainerExited: The container ended first; with its log's end.
        ContainerTimeout: Not within *timeout* seconds; with the log's end.
    """
    deadline = Deadline(timeout)
    with contextlib.ExitStack() as stack:
        waiting = make_conditions(
            target, stack, log=log, port=port, http=http, healthy=healthy, command=command
        )
        process = _Process(target)
        stack.callback(process.close)
        while True:
            running = process.is_running()  # before looking: what was true at the end counts
            last = deadline.passed
            waiting = [condition for condition in waiting if not condition.look(deadline)]
            if not waiting:
                return
            if not running:
                raise _exited(target, waiting)
            if last:
                raise _too_late(target, waiting, timeout)
            _sleep(waiting, process.fd, deadline)


def _sleep(waiting: list[Condition], process: int, deadline: Deadline) -> None:
    """
    Wait for news, for the next look that is due, or for the deadline.
    """
    poller = select.poll()
    for fd in (process, *(condition.fileno() for condition in waiting)):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    pause = max(0.0, min(max(c.due - time.monotonic(), 0.0) if c.due else c.longest_delay for c in waiting))
    if process < 0:
        pause = min(pause, 0.05)
    left = deadline.remaining()
    poller.poll(min(pause, left if left is not None else pause) * 1000 + 0.5)


class _Process:
    """
    Watches the container's first process by a descriptor of it.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.fd = -1
        self.pid: int | None = None

    def is_running(self) -> bool:
        """
        Whether the container runs; opens the descriptor of a new process.
        """
        if self.fd >= 0 and select.select([self.fd], [], [], 0)[0]:
            self.close()
        if not self.target.is_running():
            return False
        pid = self.target.pid
        if self.fd < 0 and pid:
            with contextlib.suppress(OSError):  # just ended
                self.fd = os.pidfd_open(pid)
        return True

    def close(self) -> None:
        """
        Give the descriptor back.
        """
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _unmet(waiting: list[Condition]) -> str:
    return ", ".join(f"{c.label}" + (f" ({c.reason})" if c.reason else "") for c in waiting)


def _tail(target: Target) -> str:
    """
    The log's end; it must not hide the error that it goes with.
    """
    with contextlib.suppress(ContainerlibError, OSError):
        return target.log_tail(TAIL)
    return ""


def _with_log(error: Any, tail: str) -> Any:
    if tail:
        error.add_note("the log ends with:\n" + tail.rstrip("\n"))
    return error


def _exited(target: Target, waiting: list[Condition]) -> ContainerExited:
    code = target.exit_code
    tail = _tail(target)
    how = "nobody saw how" if code is None else f"exit code {code}"
    message = f"{target.name}: ended ({how}) before it was ready: {_unmet(waiting)}"
    error = ContainerExited(message, subject=target.name, exit_code=code, logs=tail)
    return _with_log(error, tail)  # type: ignore[no-any-return]


def _too_late(target: Target, waiting: list[Condition], timeout: float | None) -> ContainerTimeout:
    tail = _tail(target)
    message = f"{target.name}: not ready within {timeout:g} s: {_unmet(waiting)}"
    error = ContainerTimeout(message, subject=target.name, stdout=tail)
    return _with_log(error, tail)  # type: ignore[no-any-return]
