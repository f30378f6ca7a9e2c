# SPDX-License-Identifier: Apache-2.0
"""
Joining the caller's terminal to a process in a container.

The terminal is raw for as long: each key goes to the process, ctrl-c too, but
the detach keys, which leave the process to itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from containerlib.errors import ExitCodeLost
from containerlib.runtime.attachment import Attachment
from containerlib.runtime.exchange import CHUNK, END_OF_TRANSMISSION, read_output
from containerlib.types import parse_detach_keys

DETACH_KEYS = "ctrl-p,ctrl-q"
FATAL = (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)


class File(Protocol):
    """
    Anything that has a descriptor.
    """

    def fileno(self) -> int:
        """
        The descriptor.
        """


class DetachKeys:
    """
    Finds the detach keys in what is typed, however it is cut into pieces.

    Keys that might begin the sequence are held back until the next one
    decides; when it breaks the sequence off they are passed on.  Unlike
    docker's, a sequence that begins within a broken one is found: ctrl-p
    ctrl-p ctrl-q passes one ctrl-p on and detaches.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0
        # How much of the sequence is still matched when the key after the first i does not fit.
        self._fallback = [0] * (len(keys) + 1)
        for end in range(2, len(keys) + 1):
            self._fallback[end] = next(
                size for size in range(end - 1, -1, -1) if keys[:end].endswith(keys[:size])
            )

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """
        What to pass on of *typed* and of what was held, and whether to detach.

        What follows the sequence is dropped.
        """
        keys = self._keys
        if not keys or (not self._held and keys[0] not in typed):
            return typed, False
        out = bytearray()
        held = self._held
        for key in typed:
            while held and key != keys[held]:
                shorter = self._fallback[held]
                out += keys[: held - shorter]
                held = shorter
            if key == keys[held]:
                held += 1
                if held == len(keys):
                    self._held = 0
                    return bytes(out), True
            else:
                out.append(key)
        self._held = held
        return bytes(out), False

    def flush(self) -> bytes:
        """
        What is held back, when nothing more will be typed.
        """
        held, self._held = self._keys[: self._held], 0
        return held


def terminal_size(fd: int) -> tuple[int, int] | None:
    """
    Rows and columns of a terminal; None when it has none.
    """
    try:
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """
    Make the terminal pass each key on as it is, and put it back whatever happens.

    A signal that ends this process puts it back too, if nobody else handles
    that signal and this is the main thread.
    """
    before = termios.tcgetattr(fd)
    handled: list[signal.Signals] = []

    def restore() -> None:
        # At once: to wait for the output to drain can hang, to flush would drop what was typed ahead.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)

    def end(number: int, _: FrameType | None) -> None:
        restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    try:
        if threading.current_thread() is threading.main_thread():
            for number in FATAL:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, end)
                    handled.append(number)
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        restore()
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def size_changes() -> Iterator[int | None]:
    """
    A descriptor that becomes readable when the terminal's size may have changed.

    None outside the main thread, where Python takes no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.getsignal(signal.SIGWINCH)

    def note(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # full: enough notes are waiting
            os.write(writer, b"\0")
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGWINCH, note)
    try:
        yield reader
    finally:
        # None: whoever set the handler did so from C, and it cannot be put back.
        signal.signal(signal.SIGWINCH, signal.SIG_DFL if before is None else before)
        os.close(reader)
        os.close(writer)


class Remote(Protocol):
    """
    The process's side of a session.
    """

    def fileno(self) -> int:
        """
        What to poll.
        """

    def receive(self) -> list[tuple[str, bytes]] | None:
        """
        What was printed and is here; None when the process and its output have ended.
        """

    def send(self, data: bytes) -> int:
        """
        Type what there is room for, without waiting.
        """

    def end_input(self) -> None:
        """
        Nothing more will be typed.
        """

    def resize(self, rows: int, columns: int) -> None:
        """
        The terminal has another size.
        """


class _AttachedRemote:
    """
    A container's main process.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self.fileno = attachment.fileno
        self.resize = attachment.resize

    def receive(self) -> list[tuple[str, bytes]] | None:
        pieces: list[tuple[str, bytes]] = []
        while len(pieces) < 16 and (piece := self._attachment.read_now()) is not None:
            pieces.append(piece)
        return None if not pieces and self._attachment.finished else pieces

    def send(self, data: bytes) -> int:
        return self._attachment.write_now(data) if self._attachment.stdin is not None else len(data)

    def end_input(self) -> None:
        if self._attachment.stdin is not None:
            self._attachment.stdin.close()


class _TerminalRemote:
    """
    A process behind the outer side of a terminal.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def receive(self) -> list[tuple[str, bytes]] | None:
        if not select.select([self._fd], [], [], 0)[0]:
            return []
        data = read_output(self._fd)
        return [("stdout", data)] if data else None

    def send(self, data: bytes) -> int:
        return os.write(self._fd, data[:1024])

    def end_input(self) -> None:
        os.write(self._fd, END_OF_TRANSMISSION)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def interact(
    attachment: Attachment,
    *,
    detach_keys: str = DETACH_KEYS,
    stdin: File | None = None,
    stdout: File | None = None,
    stderr: File | None = None,
    raw: bool = True,
) -> int | None:
    """
    Join this terminal to a container's main process until it ends.

    Returns its exit code, or None when the detach keys were typed.  Standard
    input that is no terminal is passed on like a pipe's, without detach keys.
    *raw* is false for a container without a terminal of its own.

    Raises:
        ExitCodeLost: The monitor was killed.
    """
    keys = parse_detach_keys(detach_keys)
    if _join(_AttachedRemote(attachment), keys, stdin, stdout, stderr, raw=raw):
        return None
    if attachment.exit_code is None:
        raise ExitCodeLost("the container's monitor was killed: the exit code is lost")
    return attachment.exit_code


def interact_fd(
    terminal: int,
    wait: Callable[[], int],
    *,
    detach_keys: str = DETACH_KEYS,
    stdin: File | None = None,
    stdout: File | None = None,
) -> int | None:
    """
    The same with a process behind *terminal*, a terminal's outer descriptor.

    *wait* gives its exit code when the terminal has ended.
    """
    if _join(_TerminalRemote(terminal), parse_detach_keys(detach_keys), stdin, stdout, None, raw=True):
        return None
    return wait()


def _join(
    remote: Remote, keys: bytes, stdin: File | None, stdout: File | None, stderr: File | None, *, raw: bool
) -> bool:
    """
    Pass bytes both ways; True when the detach keys ended it.
    """
    source = (stdin or sys.stdin).fileno()
    target = (stdout or sys.stdout).fileno()
    errors = (stderr or sys.stderr).fileno() if stderr or not stdout else target
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        is_terminal = os.isatty(source)
        if raw and is_terminal:
            stack.enter_context(raw_terminal(source))
        wakeup = stack.enter_context(size_changes()) if raw else None
        session = _Session(remote, source, DetachKeys(keys if raw and is_terminal else b""))
        if raw:
            session.size_of = target if os.isatty(target) else source if is_terminal else None
        return session.run({"stdout": target, "stderr": errors}, wakeup)


class _Session:
    """
    The loop between a terminal and a process.
    """

    def __init__(self, remote: Remote, source: int, keys: DetachKeys) -> None:
        self.remote = remote
        self.source = source
        self.keys = keys
        self.size_of: int | None = None
        self.size: tuple[int, int] | None = None
        self.pending = b""  # typed, and not yet taken by the process
        self.ended = False  # nothing more will be typed
        self.detached = False

    def run(self, targets: dict[str, int], wakeup: int | None) -> bool:
        """
        Go on until the process ends or is detached from.
        """
        self._follow_size()
        while (pieces := self.remote.receive()) is not None:
            for stream, data in pieces:
                write_all(targets[stream], data)
            if self.detached and not self.pending:
                return True
            # 0: more may be here that makes no descriptor readable.
            timeout = 0 if pieces else self.patience(wakeup)
            poller = select.poll()
            poller.register(self.remote, select.POLLIN | (select.POLLOUT if self.pending else 0))
            if not self.pending and not self.ended:
                poller.register(self.source, select.POLLIN)
            if wakeup is not None:
                poller.register(wakeup, select.POLLIN)
            events = dict(poller.poll(timeout))
            if wakeup in events and wakeup is not None:
                os.read(wakeup, 4096)
            self._follow_size()
            if self.source in events:
                self._read()
            if self.pending:
                self._send()
        return False

    def patience(self, wakeup: int | None) -> int | None:
        """
        Milliseconds to wait: without notes of a new size, look once a second.
        """
        return 1000 if wakeup is None and self.size_of is not None else None

    def _read(self) -> None:
        """
        Take what was typed.
        """
        try:
            data = read_output(self.source)
        except BlockingIOError:
            return
        if data:
            self.pending, self.detached = self.keys.feed(data)
            self.ended = self.detached
            return
        self.ended = True
        self.pending = self.keys.flush()
        if not self.pending:
            self._end_input()

    def _send(self) -> None:
        try:
            self.pending = self.pending[self.remote.send(self.pending) :]
        except OSError:  # the process is gone; what it printed is still to be shown
            self.pending = b""
            self.ended = True
        if self.ended and not self.pending and not self.detached:
            self._end_input()

    def _end_input(self) -> None:
        with contextlib.suppress(OSError):
            self.remote.end_input()

    def _follow_size(self) -> None:
        if self.size_of is None:
            return
        size = terminal_size(self.size_of)
        if size is not None and size != self.size:
            self.size = size
            with contextlib.suppress(OSError):
                self.remote.resize(*size)


def write_all(fd: int, data: bytes) -> None:
    """
    Write everything, waiting even when the descriptor does not.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view[:CHUNK]) :]
        except BlockingIOError:
            select.select([], [fd], [])
