# SPDX-License-Identifier: Apache-2.0
"""
Following a log while its container runs.

The lines come from the files, never through the monitor, so that a slow
reader cannot stall the container.  The monitor only says that there is more,
in notes that it may drop: one in the queue tells as much as ten.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

from containerlib.runtime.client import Deadline, MonitorClient, MonitorGone
from containerlib.runtime.logs import (
    STAMP_SIZE,
    Bound,
    Entry,
    Joiner,
    LogFiles,
    Selection,
    blocks_forward,
    check_tail,
    end_of_records,
    open_log,
    parse_bound,
    parse_stamp,
    read_tail,
)
from containerlib.shim import Msg
from containerlib.types import LogLine

SAFETY_POLL = 2.0  # seconds; a monitor that lost its way still gets its lines shown


class Waker(Protocol):
    """
    Something that tells when to look at a log again.
    """

    def fileno(self) -> int:
        """
        A descriptor that becomes readable then.
        """

    def drain(self) -> bool:
        """
        Take what woke us; False when no more lines will come.
        """

    def close(self) -> None:
        """
        Give the descriptor back.
        """


class LogWatch:
    """
    A waker over a connection to the monitor, which it owns.
    """

    def __init__(self, client: MonitorClient) -> None:
        self._client = client
        with contextlib.suppress(MonitorGone):  # drain() finds the end, after what was sent before it
            client.watch()

    @classmethod
    def connect(cls, run_dir: int | str | Path, *, subject: str = "container") -> Self | None:
        """
        Watch the container with that run directory; None when it does not run.
        """
        try:
            return cls(MonitorClient.connect(run_dir, subject=subject))
        except MonitorGone:
            return None

    def fileno(self) -> int:
        """
        The connection's descriptor.
        """
        return self._client.fileno()

    def drain(self) -> bool:
        """
        Take all messages; False once the monitor is done with the container.
        """
        while (message := self._client.receive_now()) is not None:
            for fd in message.fds:
                os.close(fd)
            if message.type == Msg.ENDED:
                return False
        return not self._client.ended

    def close(self) -> None:
        """
        Close the connection.
        """
        self._client.close()


class LogFollower:
    """
    A place in a log that moves on as the log grows, across rotations.

    :meth:`lines` never waits; poll :meth:`fileno` in between.  Without a
    *waker* the log is taken to be complete.
    """

    def __init__(
        self,
        directory: int | str | Path,
        waker: Waker | None,
        *,
        tail: int | None = None,
        since: Bound | None = None,
        until: Bound | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> None:
        self._stack = contextlib.ExitStack()
        if waker is not None:
            self._stack.callback(waker.close)
        try:
            selection = Selection(since=since, until=until, stdout=stdout, stderr=stderr)
            if tail is not None:
                tail = check_tail(tail)
            self._directory = os.open(
                f"/proc/self/fd/{directory}" if isinstance(directory, int) else directory,
                os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
            )
            self._stack.callback(os.close, self._directory)
            self._files: deque[int] = deque()  # open files not read to their end, oldest first
            self._stack.callback(self._close_files)
            self._waker = waker
            self._running = waker is not None
            self._position = 0
            self._beginning = b""  # the first stamp of the file: another one means that it was emptied
            self._ready: deque[Entry] = deque()
            with LogFiles(self._directory) as fds:
                self._files.extend(os.dup(fd) for fd in fds)
            if tail is None:
                self._joiner = Joiner(selection)
            else:
                self._start_at_tail(selection, tail)
        except BaseException:
            self._stack.close()
            raise

    def _start_at_tail(self, selection: Selection, tail: int) -> None:
        """
        Keep the last lines of now, and begin behind them.
        """
        files = list(self._files)
        ends = [end_of_records(fd) for fd in files]
        lines, self._joiner = read_tail(files, ends, selection, tail)
        self._ready.extend(lines)
        while len(self._files) > 1:
            os.close(self._files.popleft())
        self._position = ends[-1] if ends else 0

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.popleft())

    def fileno(self) -> int:
        """
        Readable when there may be more lines; -1 once there will be none.
        """
        return self._waker.fileno() if self._running and self._waker is not None else -1

    @property
    def running(self) -> bool:
        """
        Whether lines may still come that :meth:`lines` has not seen.
        """
        return self._running

    def lines(self) -> Iterator[LogLine]:
        """
        The lines that are there by now and were not given before.
        """
        return (entry.to_line() for entry in self.entries())

    def entries(self) -> Iterator[Entry]:
        """
        The same as the reader of logs has them.
        """
        if self._running and self._waker is not None:
            # Before reading: what was written before the monitor's last word is then read below.
            self._running = self._waker.drain()
        yield from self._take_ready()
        while True:
            if self._files:
                self._check_position(self._files[0])
                yield from self._read(self._files[0])
            if not self._next_file():
                break
        if not self._running:
            yield from self._joiner.rest()

    def _read(self, fd: int) -> Iterator[Entry]:
        for block in blocks_forward(fd, self._position):
            # A caller may stop amid a block and come again: no line of it is lost or read twice.
            self._position += len(block)
            self._ready.extend(self._joiner.feed(block))
            yield from self._take_ready()

    def _take_ready(self) -> Iterator[Entry]:
        while self._ready:
            yield self._ready.popleft()

    def _check_position(self, fd: int) -> None:
        """
        Go back when the file was cut: emptied, or its last write undone for want of space.
        """
        first = os.pread(fd, STAMP_SIZE, 0)
        if self._beginning and first != self._beginning:
            self._position = 0
        elif (size := os.fstat(fd).st_size) < self._position:
            self._position = size
        self._beginning = first if len(first) == STAMP_SIZE else b""

    def _next_file(self) -> bool:
        """
        Go on to the next file when this one was read; False when there is none.
        """
        if len(self._files) > 1:
            os.close(self._files.popleft())
            self._position = 0
            self._beginning = b""
            return True
        newest = open_log(self._directory, "log")
        if newest is None:  # amid a rotation, or before the first line
            return False
        try:
            inode = os.fstat(newest).st_ino
        finally:
            os.close(newest)
        current = os.fstat(self._files[0]).st_ino if self._files else None
        if inode == current:
            return False
        # Rotated.  The monitor may have written to this file after it was read above, and never
        # will again: read it once more, then those that came after it.
        with LogFiles(self._directory) as fds:
            inodes = [os.fstat(fd).st_ino for fd in fds]
            after = inodes.index(current) + 1 if current in inodes else 0
            self._files.extend(os.dup(fd) for fd in fds[after:])
        return True

    def close(self) -> None:
        """
        Close the files and the waker; again does nothing.
        """
        self._running = False
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def follow_logs(
    directory: int | str | Path,
    waker: Waker | None,
    *,
    tail: int | None = None,
    since: Bound | None = None,
    until: Bound | None = None,
    stdout: bool = True,
    stderr: bool = True,
    timeout: float | None = None,
    stop_fd: int | None = None,
) -> Iterator[LogLine]:
    """
    Lines as they are printed, until the container's monitor leaves.

    Ends earlier when *until* or *timeout* seconds have passed or *stop_fd*
    becomes readable.  Owns *waker* from the first line on.
    """
    if until is not None:
        left = (parse_stamp(parse_bound(until, option="until")) - datetime.now(UTC)).total_seconds()
        timeout = left if timeout is None else min(left, timeout)
    deadline = Deadline(timeout)
    with LogFollower(
        directory, waker, tail=tail, since=since, until=until, stdout=stdout, stderr=stderr
    ) as follower:
        while True:
            last = deadline.passed
            yield from follower.lines()
            if last or not follower.running:
                return
            poller = select.poll()
            poller.register(follower.fileno(), select.POLLIN)
            if stop_fd is not None:
                poller.register(stop_fd, select.POLLIN)
            left_ms = deadline.milliseconds()
            safety = int(SAFETY_POLL * 1000)
            events = poller.poll(safety if left_ms is None else min(left_ms, safety))
            if any(fd == stop_fd for fd, _ in events):
                return
