# SPDX-License-Identifier: Apache-2.0
"""
Joining terminals: real pseudo-terminals on both sides, real processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import ExitCodeLost
from containerlib.runtime.attachment import Attachment
from containerlib.runtime.client import MonitorClient
from containerlib.runtime.terminal import DetachKeys, interact, interact_fd, raw_terminal, terminal_size
from containerlib.shim import MSG_MAX, Msg

KEYS = b"\x10\x11"


class Terminal:
    """
    A pseudo-terminal: its *outer* side is the person, *inner* the program's.
    """

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.outer, self.inner = pty.openpty()
        self.resize(rows, columns)

    def fileno(self) -> int:
        return self.inner

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.outer, data)

    def read_until(self, text: bytes) -> bytes:
        seen = b""
        while text not in seen:
            assert select.select([self.outer], [], [], 20)[0], seen
            seen += os.read(self.outer, 4096)
        return seen

    def close(self) -> None:
        for fd in (self.outer, self.inner):
            with contextlib.suppress(OSError):
                os.close(fd)


class Monitor(threading.Thread):
    """
    A monitor that runs ``script(self)``.
    """

    def __init__(self, script) -> None:
        super().__init__()
        near, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.attachment = Attachment(MonitorClient(near.detach(), subject="web"))
        self.script = script
        self.input = b""
        self.sizes: list[tuple[int, int]] = []
        self.eof = False

    def run(self) -> None:
        self.step()  # ATTACH
        self.script(self)
        self.socket.close()

    def send(self, type: Msg, arg: int = 0, payload: bytes = b"") -> None:
        self.socket.send(struct.pack("ii", type, arg) + payload)

    def step(self) -> bool:
        data = self.socket.recv(8 + MSG_MAX)
        if not data:
            return False
        type, arg = struct.unpack_from("ii", data)
        if type == Msg.STDIN:
            self.input += data[8:]
        elif type == Msg.STDIN_EOF:
            self.eof = True
        elif type == Msg.RESIZE:
            self.sizes.append((arg >> 16, arg & 0xFFFF))
        if type not in (Msg.STDIN, Msg.STDIN_EOF):
            with contextlib.suppress(BrokenPipeError):  # the client left without waiting
                self.send(Msg.ACK)
        return True

    def until(self, condition) -> None:
        while not condition() and self.step():
            pass


@pytest.fixture(name="terminal")
def _terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


def join(script, terminal, **options):
    """
    Interact with a monitor that runs *script*: the result, and the monitor.
    """
    monitor = Monitor(script)
    monitor.start()
    before = termios.tcgetattr(terminal.inner)
    try:
        with monitor.attachment:
            return interact(monitor.attachment, stdin=terminal, stdout=terminal, **options), monitor
    finally:
        monitor.attachment.close()
        monitor.join()
        assert before == termios.tcgetattr(terminal.inner)


def typing(terminal, data):
    """
    A monitor's script: once the terminal is raw, somebody types *data*.
    """

    def script(monitor):
        monitor.until(lambda: monitor.sizes)
        terminal.type(data)
        monitor.until(lambda: False)

    return script


# ---- detach keys --------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        (b"ls\n", b"ls\n", False),
        (b"ab\x10\x11cd", b"ab", True),
        (b"\x10", b"", False),
        (b"\x10x", b"\x10x", False),
        (b"\x10\x10\x11", b"\x10", True),
        (b"\x11\x10", b"\x11", False),
    ],
)
def test_detach_keys(typed, passed, detached):
    """
    The sequence detaches; a part of it is held, and passed on when broken off.
    """
    assert (passed, detached) == DetachKeys(KEYS).feed(typed)


def test_held_keys_are_given_back():
    """
    What was held when typing ends is passed on.
    """
    keys = DetachKeys(KEYS)
    assert (b"a", False) == keys.feed(b"a\x10")
    assert b"\x10" == keys.flush()
    assert b"" == keys.flush()


def test_no_detach_keys():
    """
    Without keys everything passes.
    """
    assert (b"\x10\x11", False) == DetachKeys(b"").feed(b"\x10\x11")


@given(
    keys=st.binary(min_size=1, max_size=5).map(lambda data: bytes(byte % 3 for byte in data)),
    pieces=st.lists(st.binary(max_size=8).map(lambda data: bytes(byte % 3 for byte in data)), max_size=10),
)
def test_detach_keys_in_any_pieces(keys, pieces):
    """
    However input is cut, what precedes the first occurrence passes, and nothing else.
    """
    machine = DetachKeys(keys)
    typed = b"".join(pieces)
    passed, detached = b"", False
    for piece in pieces:
        out, detached = machine.feed(piece)
        passed += out
        if detached:
            break
    position = typed.find(keys)
    assert (position >= 0) == detached
    expected = typed[:position] if detached else typed
    assert expected == passed + machine.flush()


# ---- with a container ---------------------------------------------------------


def test_keys_go_in_and_output_comes_out(terminal):
    """
    Each key reaches the process raw, ctrl-c too; what it prints is shown; its exit code returned.
    """

    def script(monitor):
        monitor.until(lambda: monitor.sizes)  # raw by now
        terminal.type(b"a\x03\x04\r")
        monitor.until(lambda: len(monitor.input) == 4)
        monitor.send(Msg.STDOUT, 0, b"bye\n")
        monitor.send(Msg.EXITED, 7)

    code, monitor = join(script, terminal)
    assert 7 == code
    assert b"a\x03\x04\r" == monitor.input
    assert b"bye\n" == terminal.read_until(b"bye\n")[-4:]


def test_detaching_leaves_the_process(terminal):
    """
    The detach keys end the call with None; what was typed before them arrived.
    """
    code, monitor = join(typing(terminal, b"ls\r\x10\x11more"), terminal)
    assert code is None
    assert b"ls\r" == monitor.input
    assert not monitor.eof


def test_other_detach_keys(terminal):
    """
    The caller names other keys; the usual ones then pass.
    """
    code, monitor = join(typing(terminal, b"\x10\x11\x1dq"), terminal, detach_keys="ctrl-],q")
    assert code is None
    assert b"\x10\x11" == monitor.input


def test_size_is_passed_on_and_followed(terminal):
    """
    The process gets the size at once, and each new one.
    """

    def script(monitor):
        monitor.until(lambda: monitor.sizes)
        terminal.resize(50, 132)
        os.kill(os.getpid(), signal.SIGWINCH)  # this is not the tests' controlling terminal
        monitor.until(lambda: len(monitor.sizes) == 2)
        monitor.send(Msg.EXITED)

    before = signal.getsignal(signal.SIGWINCH)
    assert [(24, 80), (50, 132)] == join(script, terminal)[1].sizes
    assert before == signal.getsignal(signal.SIGWINCH)


def test_terminal_is_restored_after_an_error(terminal):
    """
    A monitor that dies leaves the terminal as it was, and no exit code.
    """
    with pytest.raises(ExitCodeLost):
        join(lambda _: None, terminal)


def test_interact_outside_the_main_thread(terminal):
    """
    Another thread may interact; sizes are then looked at now and then.
    """
    found: list[int | None] = []

    def script(monitor):
        monitor.until(lambda: monitor.sizes)
        terminal.resize(30, 90)
        monitor.until(lambda: len(monitor.sizes) == 2)
        monitor.send(Msg.EXITED, 4)

    thread = threading.Thread(target=lambda: found.append(join(script, terminal)[0]))
    thread.start()
    thread.join()
    assert [4] == found


def test_pipe_as_standard_input(terminal):
    """
    Input from a pipe goes through unchanged, detach keys included, and ends.
    """
    reader, writer = os.pipe()
    os.write(writer, b"data\x10\x11")
    os.close(writer)

    def script(monitor):
        monitor.until(lambda: monitor.eof)
        monitor.send(Msg.STDERR, 0, b"oops")
        monitor.send(Msg.EXITED, 0)

    monitor = Monitor(script)
    monitor.start()
    with monitor.attachment, os.fdopen(reader, "rb") as file:
        assert 0 == interact(monitor.attachment, stdin=file, stdout=terminal, stderr=terminal, raw=False)
    monitor.join()
    assert b"data\x10\x11" == monitor.input
    assert b"oops" == terminal.read_until(b"oops")


def test_large_paste_and_flood(terminal):
    """
    Much input and much output at once pass without loss.
    """
    reader, writer = os.pipe()
    data = os.urandom(1 << 20)
    feeder = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    sink, target = os.pipe()
    shown: list[bytes] = []
    drain = threading.Thread(target=lambda: shown.extend(iter(lambda: os.read(sink, 65536), b"")))

    def script(monitor):
        for _ in range(100):
            monitor.send(Msg.STDOUT, 0, b"x" * 10_000)
            if not monitor.eof:
                monitor.step()
        monitor.until(lambda: monitor.eof)
        monitor.send(Msg.EXITED, 0)

    monitor = Monitor(script)
    for thread in (monitor, feeder, drain):
        thread.start()
    with monitor.attachment, os.fdopen(reader, "rb") as source, os.fdopen(target, "wb") as out:
        assert 0 == interact(monitor.attachment, stdin=source, stdout=out, raw=False)
    for thread in (monitor, feeder, drain):
        thread.join()
    os.close(sink)
    assert data == monitor.input
    assert 1_000_000 == sum(map(len, shown))


# ---- with an exec terminal ------------------------------------------------------


def test_shell_behind_a_terminal(terminal):
    """
    A shell on a terminal of its own is driven key by key, and its exit code returned.
    """
    outer, inner = pty.openpty()
    shell = subprocess.Popen(["sh", "-i"], stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
    os.close(inner)
    terminal.resize(33, 99)
    seen: list[bytes] = []

    def person() -> None:
        terminal.read_until(b"# " if os.geteuid() == 0 else b"$ ")  # its prompt
        terminal.type(b"stty size; echo re''ady; exit 5\r")
        seen.append(terminal.read_until(b"ready"))

    thread = threading.Thread(target=person)
    thread.start()
    assert 5 == interact_fd(outer, shell.wait, stdin=terminal, stdout=terminal)
    thread.join()
    os.close(outer)
    assert b"33 99" in seen[0]


def test_detaching_from_a_terminal(terminal):
    """
    The detach keys leave a process behind its terminal running.
    """
    outer, inner = pty.openpty()
    argv = ["sh", "-c", "echo ready; exec cat"]
    cat = subprocess.Popen(argv, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
    os.close(inner)
    person = threading.Thread(target=lambda: (terminal.read_until(b"ready"), terminal.type(KEYS)))
    person.start()
    assert interact_fd(outer, cat.wait, stdin=terminal, stdout=terminal) is None
    person.join()
    assert cat.poll() is None
    cat.kill()
    cat.wait()
    os.close(outer)


# ---- the terminal itself --------------------------------------------------------


def test_raw_terminal_is_restored(terminal):
    """
    An exception inside leaves the terminal as it was.
    """
    before = termios.tcgetattr(terminal.inner)
    with pytest.raises(KeyError), raw_terminal(terminal.inner):  # noqa: PT012
        assert before != termios.tcgetattr(terminal.inner)
        raise KeyError
    assert before == termios.tcgetattr(terminal.inner)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_killed_program_restores_its_terminal(terminal, number):
    """
    A program that is ended by a signal leaves its terminal usable.
    """
    before = termios.tcgetattr(terminal.inner)
    program = (
        "import signal, sys\n"
        "from containerlib.runtime.terminal import raw_terminal\n"
        "with raw_terminal(0):\n"
        "    print('raw', flush=True)\n"
        "    signal.pause()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=terminal.inner, stdout=subprocess.PIPE, env=os.environ
    )
    assert b"raw\n" == child.stdout.readline()
    assert before != termios.tcgetattr(terminal.inner)
    child.send_signal(number)
    assert -number == child.wait()
    child.stdout.close()
    assert before == termios.tcgetattr(terminal.inner)


def test_size_of_what_has_none():
    """
    A pipe, and a terminal of no size, have none.
    """
    reader, writer = os.pipe()
    assert terminal_size(reader) is None
    os.close(reader)
    os.close(writer)
    empty = Terminal(0, 0)
    assert terminal_size(empty.inner) is None
    empty.close()
