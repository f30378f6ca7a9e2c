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
import http.client
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypedDict

from containerlib.errors import ContainerExited, ContainerlibError, ContainerTimeout, InvalidOption
from containerlib.runtime.client import Deadline
from containerlib.runtime.follow import LogFollower

TAIL = 30  # lines of the log in an error
LISTEN = "0A"  # include/net/tcp_states.h
UNCONNECTED = "07"

Pattern = str | re.Pattern[str]
LogOption = Pattern | tuple[Pattern, int]
PortOption = int | str
Command = str | Sequence[str]


class HttpOption(TypedDict, total=False):
    """
    A request and what its answer must be; all but *path* may be left out.

    *status* is a code or several, by default 200 to 399; *predicate* gets the
    body as text.  With *tls* the server's certificate is not checked.
    """

    path: str
    port: int
    method: str
    headers: Mapping[str, str]
    status: int | Collection[int]
    predicate: Callable[[str], bool]
    tls: bool
    address: str


class Target(Protocol):
    """
    What a wait must know of its container.
    """

    @property
    def name(self) -> str:
        """
        For messages.
        """

    @property
    def pid(self) -> int | None:
        """
        The first process, as this side numbers it; None before it exists.
        """

    @property
    def exit_code(self) -> int | None:
        """
        The exit code, once it has ended.
        """

    def is_running(self) -> bool:
        """
        Whether it runs, or is about to be restarted.
        """

    def health(self) -> str | None:
        """
        ``starting``, ``healthy``, ``unhealthy``; None without a health check.
        """

    def log_tail(self, lines: int) -> str:
        """
        The log's last lines.
        """

    def follow(self) -> LogFollower:
        """
        A follower from this run's first line on.
        """

    def probe(self, command: Command, timeout: float | None) -> int:
        """
        Run a command inside, dropping its output; its exit code.
        """

    def open_socket(self, address: str, port: int, timeout: float) -> socket.socket:
        """
        A TCP connection made in the container's network namespace.
        """


class Condition:
    """
    One thing that must hold; *reason* says why it does not yet.
    """

    first_delay = 0.002
    longest_delay = 0.05
    reason = ""

    def __init__(self, target: Target, label: str) -> None:
        self.target = target
        self.label = label
        self.delay = self.first_delay
        self.due = 0.0

    def ready(self, deadline: Deadline) -> bool:
        """
        Look whether it holds.
        """
        raise NotImplementedError

    def look(self, deadline: Deadline) -> bool:
        """
        Look if it is time to, and note when to look again.
        """
        if time.monotonic() < self.due:
            return False
        if self.ready(deadline):
            return True
        self.due = time.monotonic() + self.delay
        self.delay = min(self.delay * 1.5, self.longest_delay)
        return False

    def fileno(self) -> int:
        """
        A descriptor that becomes readable on news; -1 for none.
        """
        return -1

    def close(self) -> None:
        """
        Give back what the condition holds.
        """


class LogCondition(Condition):
    """
    A line was printed, as often as asked for.
    """

    longest_delay = 2.0  # the monitor tells

    def __init__(self, target: Target, option: LogOption) -> None:
        pattern, self.times = option if isinstance(option, tuple) else (option, 1)
        if isinstance(pattern, str):
            pattern = re.compile(re.escape(pattern))
        if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
            raise _invalid(
                "log", option, "text, a compiled pattern of text, or one of them with a number of times"
            )
        if not isinstance(self.times, int) or self.times < 1:
            raise _invalid("log", option, "a number of times from 1")
        super().__init__(target, f"log {pattern.pattern!r}")
        self.pattern = pattern
        self.found = 0
        self.follower = target.follow()

    def look(self, deadline: Deadline) -> bool:
        """
        Look always: to read what was added costs nothing.
        """
        return self.ready(deadline)

    def ready(self, deadline: Deadline) -> bool:  # noqa: ARG002
        """
        Look through the lines that came since.
        """
        for line in self.follower.lines():
            if self.pattern.search(line.text):
                self.found += 1
                if self.found >= self.times:
                    return True
        self.reason = f"seen {self.found} of {self.times} times"
        return False

    def fileno(self) -> int:
        """
        The follower's.
        """
        return self.follower.fileno()

    def close(self) -> None:
        """
        Close the follower.
        """
        self.follower.close()


class PortCondition(Condition):
    """
    Something listens on a port, on whatever address.
    """

    def __init__(self, target: Target, option: PortOption) -> None:
        number, _, protocol = str(option).partition("/")
        protocol = protocol or "tcp"
        if isinstance(option, bool) or not number.isdigit() or not 0 < int(number) < 65536:
            raise _invalid("port", option, "a port from 1 to 65535, or '53/udp'")
        if protocol not in ("tcp", "udp"):
            raise _invalid("port", option, "the protocol tcp or udp")
        super().__init__(target, f"port {number}/{protocol}")
        self.suffix = f":{int(number):04X}"
        self.protocol = protocol
        self.state = LISTEN if protocol == "tcp" else UNCONNECTED
        self.reason = "nothing listens there"

    def ready(self, deadline: Deadline) -> bool:  # noqa: ARG002
        """
        Read the network namespace's tables of sockets.
        """
        pid = self.target.pid
        return pid is not None and any(self._listed(pid, family) for family in ("", "6"))

    def _listed(self, pid: int, family: str) -> bool:
        try:
            with open(f"/proc/{pid}/net/{self.protocol}{family}", encoding="ascii") as table:
                for line in table:
                    fields = line.split(None, 4)
                    if fields[3] == self.state and fields[1].endswith(self.suffix):
                        return True
        except OSError:  # ended, or a kernel without IPv6
            pass
        return False


class HttpCondition(Condition):
    """
    A request is answered as it should be.
    """

    longest_delay = 0.25

    def __init__(self, target: Target, option: str | HttpOption, port: PortOption | None) -> None:
        wanted: HttpOption = {"path": option} if isinstance(option, str) else option
        if not isinstance(wanted, Mapping) or not str(wanted.get("path", "/")).startswith("/"):
            raise _invalid("http", option, "a path from /, or a mapping with one")
        if unknown := set(wanted) - set(HttpOption.__annotations__):
            raise _invalid("http", option, f"no {', '.join(sorted(unknown))}")
        self.tls = wanted.get("tls", False)
        self.path = wanted.get("path", "/")
        default = port if isinstance(port, int) else 443 if self.tls else 80
        self.port = wanted.get("port", default)
        self.method = wanted.get("method", "GET")
        self.headers = dict(wanted.get("headers", {}))
        status = wanted.get("status", range(200, 400))
        self.status: Collection[int] = (status,) if isinstance(status, int) else status
        self.predicate = wanted.get("predicate")
        self.address = wanted.get("address", "127.0.0.1")
        super().__init__(target, f"http {self.method} :{self.port}{self.path}")

    def ready(self, deadline: Deadline) -> bool:
        """
        Ask once.
        """
        left = deadline.remaining()
        patience = max(0.001, min(5.0, 5.0 if left is None else left))
        try:
            with contextlib.ExitStack() as stack:
                sock = stack.enter_context(self.target.open_socket(self.address, self.port, patience))
                sock.settimeout(patience)
                if self.tls:
                    sock = stack.enter_context(
                        _unchecked_tls().wrap_socket(sock, server_hostname="localhost")
                    )
                connection = http.client.HTTPConnection("localhost", self.port)
                stack.callback(connection.close)
                connection.sock = sock
                connection.request(self.method, self.path, headers=self.headers)
                response = connection.getresponse()
                stack.callback(response.close)
                body = response.read() if self.predicate is not None else b""
        except (OSError, http.client.HTTPException) as error:
            self.reason = str(error) or type(error).__name__
            return False
        except ContainerlibError:
            if self.target.is_running():
                raise
            return False  # it has ended: the wait says so better
        if response.status not in self.status:
            self.reason = f"status {response.status} {response.reason}"
            return False
        if self.predicate is not None and not self.predicate(body.decode(errors="replace")):
            self.reason = "the predicate is not satisfied"
            return False
        return True


def _unchecked_tls() -> ssl.SSLContext:
    """
    A context for a server whose name and certificate are of no interest.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class HealthCondition(Condition):
    """
    The container's health check says that it is well.
    """

    first_delay = 0.01
    longest_delay = 0.2

    def __init__(self, target: Target) -> None:
        super().__init__(target, "healthy")
        if target.health() is None:
            raise InvalidOption(f"healthy: {target.name} has no health check", subject="healthy")

    def ready(self, deadline: Deadline) -> bool:  # noqa: ARG002
        """
        Read what the monitor recorded.
        """
        health = self.target.health()
        self.reason = f"is {health}"
        return health == "healthy"


class CommandCondition(Condition):
    """
    A command run inside succeeds.
    """

    first_delay = 0.02
    longest_delay = 1.0

    def __init__(self, target: Target, command: Command) -> None:
        super().__init__(target, f"command {command!r}")
        self.command = command

    def ready(self, deadline: Deadline) -> bool:
        """
        Run it once.
        """
        try:
            code = self.target.probe(self.command, deadline.remaining())
        except ContainerTimeout:
            self.reason = "did not end"
            return False
        except ContainerlibError:
            if self.target.is_running():
                raise  # no such command: waiting does not help
            return False
        self.reason = f"exit code {code}"
        return code == 0


def _invalid(option: str, value: object, accepted: str) -> InvalidOption:
    return InvalidOption(f"{option}: {value!r:.200} cannot be used: expected {accepted}", subject=option)


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
