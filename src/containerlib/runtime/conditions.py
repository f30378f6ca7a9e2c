# SPDX-License-Identifier: Apache-2.0
"""
What a container can be waited for: lines of its log, ports, HTTP, health,
commands.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypedDict

from containerlib.errors import ContainerlibError, ContainerTimeout, InvalidOption
from containerlib.runtime.client import Deadline
from containerlib.runtime.follow import LogFollower
from containerlib.types.parsing import Command

LISTEN = "0A"  # include/net/tcp_states.h
UNCONNECTED = "07"

Pattern = str | re.Pattern[str]
LogOption = Pattern | tuple[Pattern, int]
PortOption = int | str


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
