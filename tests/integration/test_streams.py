# SPDX-License-Identifier: Apache-2.0
"""
Someone listens to containers, speaks to them, and waits for them.
"""

from __future__ import annotations

import os
import pty
import re
import select
import threading

import pytest

from containerlib.container import Container
from containerlib.errors import ContainerExited, ContainerTimeout

# Nothing inside handles SIGTERM: as the first process it would be ignored.
HOST = {"network": "none", "stop_signal": "SIGKILL"}


def start(*script: str, **options) -> Container:
    return Container.run("host", ["sh", "-c", "; ".join(script)], **HOST, **options)


class Terminal:
    """
    A person's terminal: what is typed goes in at *outer*.
    """

    def __init__(self) -> None:
        self.outer, self.inner = pty.openpty()

    def fileno(self) -> int:
        return self.inner

    def read_until(self, text: bytes) -> bytes:
        seen = b""
        while text not in seen:
            assert select.select([self.outer], [], [], 30)[0], seen
            seen += os.read(self.outer, 4096)
        return seen

    def close(self) -> None:
        os.close(self.outer)
        os.close(self.inner)


@pytest.fixture(name="terminal")
def _terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_logs_are_what_was_printed(engine):
    """
    Both streams are kept apart, byte for byte, with tail and time stamps.
    """
    with start("echo one", "printf '\\377part'", "echo end", "echo problem >&2") as container:
        container.wait()
        assert "one\n\ufffdpartend\nproblem\n" == container.logs()
        assert "problem\n" == container.logs(stdout=False)
        assert "one\n\ufffdpartend\n" == container.logs(stderr=False)
        assert "problem\n" == container.logs(tail=1)
        stamped = container.logs(tail=1, timestamps=True)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z problem\n", stamped)


def test_following_ends_with_the_container(engine):
    """
    Each line comes when it is printed; the iteration ends when the container does.
    """
    with start("echo ready", "cat", stdin_open=True) as container:
        lines = container.follow_logs()
        assert "ready" == next(lines).text
        with container.attach() as attachment:
            for number in range(3):
                attachment.stdin.write(b"%d\n" % number)
                assert str(number) == next(lines).text
            attachment.stdin.close()
        assert [] == list(lines)
        assert 0 == container.wait()


def test_following_across_rotations(engine):
    """
    A follower gets each line once although the log is rotated all the time.
    """
    options = {"driver": "local", "options": {"max-size": "4k", "max-file": "50"}}
    with start(
        "read x",
        "i=0",
        "while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); done",
        stdin_open=True,
        logging=options,
    ) as container:
        lines = container.follow_logs()
        with container.attach() as attachment:
            attachment.stdin.write(b"go\n")
        assert [f"line {number}" for number in range(1500)] == [line.text for line in lines]


def test_readiness(engine):
    """
    A line, a port and an answer are each waited for, together too.
    """
    server = (
        "from http.server import *; print('up', flush=True); "
        "HTTPServer(('127.0.0.1', 8080), SimpleHTTPRequestHandler).serve_forever()"
    )
    with Container.run("host", ["python3", "-c", server], working_dir="/tmp", **HOST) as container:
        container.wait_until(log="up", port=8080, http="/", timeout=60)
        container.wait_until(http={"port": 8080, "path": "/none", "status": 404}, command=["true"])
        with pytest.raises(ContainerTimeout, match="port 81/tcp"):
            container.wait_until(port=81, timeout=0.05)


def test_readiness_of_what_ends(engine):
    """
    A container that ends first is reported with its exit code and its last words.
    """
    with start("echo no disk", "exit 3") as container:
        with pytest.raises(ContainerExited, match="exit code 3") as caught:
            container.wait_until(port=80)
        assert "no disk\n" == caught.value.logs


def test_attached_streams(engine):
    """
    An attachment hears both streams apart and the end with its code.
    """
    with start("read x", "echo out $x", "echo err >&2", "exit 5", stdin_open=True) as container:
        with container.attach() as attachment:
            attachment.stdin.write(b"hello\n")
            heard = list(attachment)
        assert [("stdout", b"out hello\n"), ("stderr", b"err\n")] == sorted(heard, reverse=True)
        assert 5 == attachment.exit_code


def test_leaving_does_not_end_the_input(engine):
    """
    The process reads on after an attachment was closed; another one may come.
    """
    with start("cat", stdin_open=True) as container:
        for word in (b"one\n", b"two\n"):
            with container.attach() as attachment:
                attachment.stdin.write(word)
                assert word == attachment.stdout.readline()
        assert "running" == container.status


def test_interacting_with_a_shell(engine, terminal):
    """
    A shell on a terminal is driven key by key and its exit code returned.
    """

    def person() -> None:
        terminal.read_until(b"ready")
        os.write(terminal.outer, b"echo go''ne; exit 6\r")
        terminal.read_until(b"gone")

    with start("echo ready", "exec sh -i", tty=True, stdin_open=True) as container:
        container.wait_until(log="ready")
        thread = threading.Thread(target=person)
        thread.start()
        os.write(terminal.inner, b"ready")  # what was printed before is in the log
        assert 6 == container.interact(stdin=terminal, stdout=terminal)
        thread.join()


def test_detaching_from_a_shell(engine, terminal):
    """
    Ctrl-p ctrl-q leaves the container running.
    """

    def person() -> None:
        # The answer is seen once the terminal has joined: ask until it is.
        seen = b""
        while b"joined" not in seen:
            other.stdin.write(b"\r")
            if select.select([terminal.outer], [], [], 0.05)[0]:
                seen += os.read(terminal.outer, 4096)
        os.write(terminal.outer, b"\x10\x11")

    with start("while read line; do echo joined; done", tty=True, stdin_open=True) as container:
        with container.attach(stdout=False, stderr=False) as other:
            thread = threading.Thread(target=person)
            thread.start()
            assert container.interact(stdin=terminal, stdout=terminal) is None
            thread.join()
        assert "running" == container.status


def test_calling_a_function_inside(engine):
    """
    A function runs in the container's Python, and its exception comes back.
    """
    base = 40

    def work(number: int) -> dict[str, object]:
        if number < 0:
            raise ValueError(number)
        return {"sum": base + number, "pid": os.getpid(), "host": os.uname().nodename}

    with start("exec cat", stdin_open=True, hostname="inside") as container:
        value = container.call(work, 2)
        assert (42, "inside") == (value["sum"], value["host"])
        with pytest.raises(ValueError, match="-1"):
            container.call(work, -1)
