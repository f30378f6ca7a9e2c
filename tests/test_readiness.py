# SPDX-License-Identifier: Apache-2.0
"""
Waiting for readiness, with real processes, sockets, logs and servers.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from containerlib.errors import ContainerExited, ContainerTimeout, InvalidOption
from containerlib.runtime.client import MonitorClient
from containerlib.runtime.follow import LogFollower, LogWatch
from containerlib.runtime.logs import format_stamp, read_logs
from containerlib.runtime.readiness import wait_until
from containerlib.shim import Msg


class Box:
    """
    A process with a log and a monitor's socket, in the place of a container.
    """

    name = "web"

    def __init__(self, directory, argv) -> None:
        self.directory = directory
        self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE)
        self.pid = self.popen.pid
        self.monitors: list[socket.socket] = []
        self.healths = ["starting"]
        self.probes: list[object] = []
        self.codes = [0]

    @property
    def exit_code(self) -> int | None:
        return self.popen.poll()

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def health(self) -> str | None:
        return self.healths.pop(0) if len(self.healths) > 1 else self.healths[0]

    def log_tail(self, lines: int) -> str:
        return read_logs(self.directory, tail=lines).decode()

    def follow(self) -> LogFollower:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.monitors.append(far)
        return LogFollower(self.directory, LogWatch(MonitorClient(near.detach())))

    def probe(self, command, timeout) -> int:  # noqa: ARG002
        self.probes.append(command)
        return self.codes.pop(0)

    def open_socket(self, address: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((address, port), timeout)

    def print(self, text: str) -> None:
        with open(self.directory / "log", "ab") as file:
            file.write(b"%s stdout F %s\n" % (format_stamp(time.time_ns()), text.encode()))
        for monitor in self.monitors:
            with contextlib.suppress(OSError):
                monitor.send(struct.pack("ii", Msg.GREW, 0))

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        for monitor in self.monitors:
            monitor.close()


@pytest.fixture(name="box")
def _box(tmp_path):
    box = Box(tmp_path, ["cat"])
    yield box
    box.close()


def later(function) -> threading.Timer:
    timer = threading.Timer(0.03, function)
    timer.start()
    return timer


# ---- log ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    ["is ready (", re.compile(r"ready \(pid \d+\)"), ("ready", 2), (re.compile("^it is"), 2)],
)
def test_log_line(box, option):
    """
    A line with the text, or one that the pattern finds, as often as asked, ends the wait.
    """
    box.print("it is not yet ready")
    timer = later(lambda: box.print("it is ready (pid 7)"))
    wait_until(box, log=option, timeout=10)
    timer.join()
    assert "it is ready (pid 7)" in box.log_tail(1)


def test_log_wakes_at_once(box):
    """
    A line is noticed within milliseconds, not at the next look.
    """
    printed: list[float] = []
    timer = later(lambda: (printed.append(time.monotonic()), box.print("ready")))
    wait_until(box, log="ready", timeout=10)
    noticed = time.monotonic()
    timer.join()
    assert 0.2 > noticed - printed[0]


def test_log_line_before_the_end_counts(box):
    """
    A container that printed the line and ended was ready.
    """
    box.print("ready")
    box.popen.kill()
    box.popen.wait()
    wait_until(box, log="ready", timeout=10)


# ---- ports ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "kind", "address", "suffix"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", ""),
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", "/tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::", ""),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", "/udp"),
    ],
)
def test_port(box, family, kind, address, suffix):
    """
    A socket that listens on any address, or a bound one of UDP, ends the wait.
    """
    server = socket.socket(family, kind)
    try:
        server.bind((address, 0))
    except OSError as error:
        server.close()
        pytest.skip(f"no {address} here: {error}")
    number = server.getsockname()[1]
    option = f"{number}{suffix}" if suffix else number
    if kind == socket.SOCK_STREAM:
        with pytest.raises(ContainerTimeout, match=f"port {number}/tcp .nothing listens there"):
            wait_until(box, port=option, timeout=0.02)  # bound is not listening
        timer = later(server.listen)
        wait_until(box, port=option, timeout=10)
        timer.join()
    else:
        wait_until(box, port=option, timeout=10)
    server.close()


def test_several_ports(box):
    """
    Of several ports all must be open.
    """
    first, second = socket.create_server(("127.0.0.1", 0)), socket.socket()
    second.bind(("127.0.0.1", 0))
    numbers = [server.getsockname()[1] for server in (first, second)]
    with pytest.raises(ContainerTimeout, match=f"not ready within 0.02 s: port {numbers[1]}/tcp"):
        wait_until(box, port=numbers, timeout=0.02)
    second.listen()
    wait_until(box, port=numbers, timeout=10)
    first.close()
    second.close()


# ---- http -----------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    answers: list[tuple[int, bytes]]

    def do_GET(self) -> None:
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("X-Path", self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="server")
def _server():
    server = http.server.HTTPServer(
        ("127.0.0.1", 0), type("Answers", (Handler,), {"answers": [(200, b"ok")]})
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_http(box, server):
    """
    A path must answer with success; errors before that are waited out.
    """
    server.RequestHandlerClass.answers = [(503, b""), (500, b""), (204, b"")]
    wait_until(box, http="/health", port=server.server_port, timeout=10)
    assert [(204, b"")] == server.RequestHandlerClass.answers


def test_http_status_and_predicate(box, server):
    """
    Status and body may be asked for.
    """
    port = server.server_port
    server.RequestHandlerClass.answers = [(404, b"no"), (404, b"yes")]
    wait_until(
        box,
        http={"path": "/x", "port": port, "status": 404, "predicate": lambda body: body == "yes"},
        timeout=10,
    )
    with pytest.raises(ContainerTimeout, match=r"http GET :\d+/x .status 404"):
        wait_until(box, http={"path": "/x", "port": port}, timeout=0.05)


def test_http_without_server(box):
    """
    Nobody listening is the reason that the error gives.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ContainerTimeout, match="refused"):
            wait_until(box, http={"port": unused.getsockname()[1]}, timeout=0.05)


# ---- health and commands ----------------------------------------------------------


def test_health(box):
    """
    Healthy ends the wait; unhealthy may yet become it.
    """
    box.healths = ["starting", "starting", "unhealthy", "healthy"]
    wait_until(box, healthy=True, timeout=10)
    assert ["healthy"] == box.healths


def test_health_without_check(box):
    """
    Waiting for health that nothing checks is an error at once.
    """
    box.healths = [None]
    with pytest.raises(InvalidOption, match="web has no health check"):
        wait_until(box, healthy=True)


def test_command(box):
    """
    A command is run until it succeeds.
    """
    box.codes = [1, 2, 0]
    wait_until(box, command=["pg_isready"], timeout=10)
    assert [["pg_isready"]] * 3 == box.probes


# ---- together, and the ends -------------------------------------------------------


def test_all_conditions_must_hold(box, server):
    """
    Conditions combine; the error names those that do not hold and why.
    """
    box.print("ready")
    box.codes = [1] * 100
    with pytest.raises(ContainerTimeout) as caught:
        wait_until(box, log="ready", port=server.server_port, command="false", timeout=0.05)
    assert "web: not ready within 0.05 s: command 'false' (exit code 1)" == str(caught.value)
    assert "ready\n" == caught.value.stdout
    assert ["the log ends with:\nready"] == caught.value.__notes__


def test_exit_is_reported_at_once(box):
    """
    A container that ends first is reported without waiting on, with its log's end.
    """
    box.print("fatal: no disk")
    timer = later(box.popen.stdin.close)
    begin = time.monotonic()
    with pytest.raises(
        ContainerExited, match=r"web: ended \(exit code 0\) before it was ready: log 'x'"
    ) as caught:
        wait_until(box, log="x", timeout=60)
    timer.join()
    assert 5 > time.monotonic() - begin
    assert "fatal: no disk\n" == caught.value.logs
    assert 0 == caught.value.exit_code


def test_restart_is_waited_out(box):
    """
    A process that is replaced by another does not end the wait.
    """
    old = box.popen

    def restart() -> None:
        box.popen = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        box.pid = box.popen.pid
        old.kill()
        old.wait()
        old.stdin.close()
        box.print("ready again")

    timer = later(restart)
    wait_until(box, log="ready again", timeout=10)
    timer.join()


@pytest.mark.parametrize(
    "options",
    [
        {"port": 0},
        {"port": 65536},
        {"port": "x"},
        {"port": "53/sctp"},
        {"log": b"bytes"},
        {"log": ("x", 0)},
        {"log": re.compile(b"x")},
        {"http": "no-slash"},
        {"http": {"path": "/", "stauts": 200}},
    ],
)
def test_bad_options_are_named(box, options):
    """
    A condition that makes no sense is refused by name.
    """
    with pytest.raises(InvalidOption, match=next(iter(options))):
        wait_until(box, **options)


def test_no_condition(box):
    """
    Nothing to wait for is a mistake.
    """
    with pytest.raises(TypeError, match="at least one of"):
        wait_until(box)


def test_nothing_stays_open(box):
    """
    A wait leaves no descriptor open.
    """
    box.print("ready")
    wait_until(box, log="ready")
    for monitor in box.monitors:
        monitor.close()
    box.monitors.clear()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        wait_until(box, log="ready")
        box.monitors.pop().close()
    assert before == len(os.listdir("/proc/self/fd"))


def test_readiness_imports_nothing_above():
    """
    The module needs no container to be imported.
    """
    program = (
        "import sys; import containerlib.runtime.readiness; sys.exit('containerlib.container' in sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode
