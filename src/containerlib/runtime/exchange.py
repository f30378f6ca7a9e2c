# SPDX-License-Identifier: Apache-2.0
"""
Feeding a process and collecting its output at the same time.

Neither side can block the other: whatever has room is written to, whatever
has bytes is read, until the process has ended and its output with it.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import select
from typing import IO, TYPE_CHECKING, Any

import attrs

from containerlib.errors import ContainerTimeout, InvalidOption
from containerlib.runtime.client import Deadline, MonitorClient, exit_state
from containerlib.shim import Msg, State, forks

if TYPE_CHECKING:
    from collections.abc import Callable

Input = bytes | str | IO[Any]

CHUNK = 1 << 16
TERMINAL_CHUNK = 1024  # a line discipline takes 4095 bytes of an unread line
END_OF_TRANSMISSION = b"\x04"
# A process that ended may have left others that still hold its output open; what they print within
# this time is taken too.  Most often everybody is gone and nothing is waited for.
LINGER = 0.2


@attrs.frozen
class Exchanged:
    """
    What a process printed and how it ended; *state* is None when nobody saw.
    """

    stdout: bytes
    stderr: bytes
    state: State | None


def exchange(
    status: MonitorClient,
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    input: Input | None = None,
    encoding: str = "utf-8",
    deadline: Deadline | None = None,
    terminal: bool = False,
) -> Exchanged:
    """
    Feed a process, collect what it prints and wait for its end.

    Closes *stdin* when the input is used up; the other descriptors stay open.
    With *terminal*, *stdin* and *stdout* are one descriptor, which stays open.

    Raises:
        ContainerTimeout: *deadline* came first; carries the output so far.
    """
    run = _Exchange(status, deadline or Deadline(None), terminal)
    try:
        run.open(stdin, stdout, stderr, lambda: Source(input, encoding))
        run.loop()
    finally:
        run.close()
    return Exchanged(run.output(stdout), run.output(stderr), run.state)


def check(input: Input | None, timeout: float | None, encoding: str | None) -> Input | None:
    """
    Refuse what would only fail when the process runs already; the input, text
    encoded.

    Raises:
        InvalidOption: There is no such encoding, or it lacks a character of the input.
    """
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            message = f"encoding: {encoding!r} cannot be used: expected a codec that Python knows, or None"
            raise InvalidOption(message, subject="encoding") from None
    if timeout is not None and not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout: expected seconds or None, not {type(timeout).__name__} ({timeout!r:.100})")
    if isinstance(input, str):
        try:
            return input.encode(encoding or "utf-8")
        except UnicodeEncodeError as error:
            message = f"input: cannot be written as {error.encoding}: {error.reason} at {error.start}"
            raise InvalidOption(message, subject="input") from None
    Source(input, "utf-8")
    return input


class _Exchange:
    """
    One call of :func:`exchange`.
    """

    source: Source

    def __init__(self, status: MonitorClient, deadline: Deadline, terminal: bool) -> None:
        self.status = status
        self.deadline = deadline
        self.terminal = terminal
        self.poller = select.poll()
        self.collected: dict[int, list[bytes]] = {}
        self.outputs: list[int | None] = []
        self.reading: set[int] = set()
        self.feed: int | None = None
        self.running = True
        self.state: State | None = None

    def open(
        self, stdin: int | None, stdout: int | None, stderr: int | None, source: Callable[[], Source]
    ) -> None:
        """
        Take the descriptors over.
        """
        self.feed = stdin
        self.source = source()
        self.outputs = [stdout, stderr]
        for fd in (stdout, stderr):
            if fd is not None:
                self.collected[fd] = []
                self.reading.add(fd)
                self.poller.register(fd, select.POLLIN)
        if stdin is not None:
            if self.terminal:
                self.poller.register(stdin, select.POLLOUT | select.POLLIN)
            elif self.source.peek():
                # The pipe's other side is an open file of its own: the process sees no change.
                os.set_blocking(stdin, False)
                self.poller.register(stdin, select.POLLOUT)
            else:
                self.feed = None
                forks.close(stdin)
        self.poller.register(self.status, select.POLLIN)

    def loop(self) -> None:
        """
        Go on until the process and its output have ended.
        """
        end = self.deadline
        status = self.status.fileno()
        self._on_status()  # a message kept from before makes no descriptor readable
        while self.running or self.reading:
            if not self.running and status >= 0:
                self.poller.unregister(status)
                status = -1
                left = self.deadline.remaining()
                end = Deadline(LINGER if left is None else min(left, LINGER))
            events = self.poller.poll(end.milliseconds())
            if not events:
                if self.running:
                    raise self._too_late()
                return
            for fd, event in events:
                if fd == status:
                    self._on_status()
                    continue
                if fd in self.reading and event & ~select.POLLOUT:
                    self._on_output(fd)
                if fd == self.feed and event & ~select.POLLIN:
                    self._on_room(fd)

    def _on_status(self) -> None:
        while self.running:
            message = self.status.receive_now()
            if message is None:
                self.running = not self.status.ended
                return
            if message.type == Msg.EXITED:
                self.state = exit_state(message)
                self.running = False

    def _on_output(self, fd: int) -> None:
        data = read_output(fd)
        if data:
            self.collected[fd].append(data)
            return
        self.reading.discard(fd)
        self.poller.unregister(fd)
        if fd == self.feed:
            self.feed = None

    def _on_room(self, fd: int) -> None:
        if not self.source.write(fd, TERMINAL_CHUNK if self.terminal else CHUNK):
            return
        self.feed = None
        if self.terminal:
            self.poller.modify(fd, select.POLLIN)
            self.source.end_line(fd)
        else:
            self.poller.unregister(fd)
            forks.close(fd)

    def output(self, fd: int | None) -> bytes:
        """
        What came from *fd* so far.
        """
        return b"" if fd is None else b"".join(self.collected[fd])

    def _too_late(self) -> ContainerTimeout:
        stdout, stderr = map(self.output, self.outputs)
        subject = self.status.subject
        message = f"{subject}: still running when its time was up"
        return ContainerTimeout(message, subject=subject, stdout=stdout, stderr=stderr)

    def close(self) -> None:
        """
        Close the input if it was not used up.
        """
        if self.feed is not None and not self.terminal:
            forks.close(self.feed)
            self.feed = None


def read_output(fd: int) -> bytes:
    """
    What a pipe or a terminal has; nothing at its end.
    """
    try:
        return os.read(fd, CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:  # how a terminal whose other side is closed says so
            return b""
        raise


class Source:
    """
    Input for a process: bytes, text, or a file that is read as it goes.
    """

    def __init__(self, data: Input | None, encoding: str) -> None:
        self._encoding = encoding
        self._file: IO[Any] | None = None
        self._last = b"\n"
        if data is None:
            data = b""
        if isinstance(data, str):
            self._rest = memoryview(data.encode(encoding))
        elif isinstance(data, (bytes, bytearray, memoryview)):
            self._rest = memoryview(data).cast("B")
        elif hasattr(data, "read"):
            self._rest = memoryview(b"")
            self._file = data
        else:
            raise TypeError(
                f"input: expected bytes, str or a file object, not {type(data).__name__} ({data!r:.100})"
            )

    def peek(self) -> bool:
        """
        Whether there is more, reading on in the file if need be.
        """
        if not self._rest and self._file is not None:
            piece = self._file.read(CHUNK)
            if piece:
                self._rest = memoryview(piece.encode(self._encoding) if isinstance(piece, str) else piece)
            else:
                self._file = None
        return bool(self._rest)

    def write(self, fd: int, size: int) -> bool:
        """
        Write a piece; True when that was all, or nobody reads any more.
        """
        try:
            if self.peek():
                written = os.write(fd, self._rest[:size])
                self._last = bytes(self._rest[written - 1 : written]) or self._last
                self._rest = self._rest[written:]
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                return True
            raise
        return not self.peek()

    def end_line(self, fd: int) -> None:
        """
        Type the end of the file: once to end a line begun, once for the file.
        """
        with contextlib.suppress(OSError):  # nobody reads any more
            os.write(fd, END_OF_TRANSMISSION * (1 if self._last == b"\n" else 2))
