# SPDX-License-Identifier: Apache-2.0
"""
Reading a container's log: the files that its monitor writes and rotates.

A record is one line, as Kubernetes' container runtimes write it::

    2026-11-24T06:54:00.123456789Z stdout F text

``F`` ends a line of the program's, ``P`` is a piece of one that goes on.  A
line's time is that of its last piece.  ``log`` is written to, ``log.1`` was
before it, and so on.  Records that are not whole are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from containerlib.errors import InvalidOption
from containerlib.types import LogLine, parse_duration

BLOCK = 1 << 16
STAMP_SIZE = 30  # 2026-11-24T06:54:00.123456789Z
Bound = datetime | date | timedelta | float | str

_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}


class Entry(NamedTuple):
    """
    One line of the program's: *stamp* as in the log, *ended* by a newline or
    cut off by the end of the log.
    """

    stamp: bytes
    stream: str
    data: bytes
    ended: bool

    def to_line(self) -> LogLine:
        """
        The public value.
        """
        return LogLine(stream=self.stream, time=parse_stamp(self.stamp), data=self.data)


class Selection:
    """
    Which lines are wanted: streams, and stamps from *since* to *until*.

    The stamps have one width and one zone: they compare as bytes.
    """

    def __init__(
        self,
        *,
        since: Bound | None = None,
        until: Bound | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> None:
        now = datetime.now(UTC)
        self.since = b"" if since is None else parse_bound(since, option="since", now=now)
        self.until = b"\x7f" if until is None else parse_bound(until, option="until", now=now)
        self.streams = frozenset(name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted)

    def __contains__(self, stamp: bytes) -> bool:
        return self.since <= stamp <= self.until


def parse_record(record: bytes) -> tuple[bytes, str, bool, bytes] | None:
    """
    Split one record, given without its newline: stamp, stream, whether it
    ends a line, data.  None when it is none.
    """
    # Positions are fixed: 30 of stamp, space, 6 of stream, space, flag, space.
    stream = _STREAMS.get(record[31:37])
    flag = record[38:40]
    if stream is None or record[STAMP_SIZE : STAMP_SIZE + 1] != b" " or record[37:38] != b" ":
        return None
    if flag not in (b"F ", b"P ") or record[STAMP_SIZE - 1 : STAMP_SIZE] != b"Z" or record[10:11] != b"T":
        return None
    return record[:STAMP_SIZE], stream, flag == b"F ", record[40:]


def parse_stamp(stamp: bytes) -> datetime:
    """
    A record's stamp as an aware datetime; what is finer than microseconds is lost.
    """
    try:
        return datetime.fromisoformat(stamp[:26].decode("ascii")).replace(tzinfo=UTC)
    except ValueError:  # a record that somebody else wrote
        return datetime.fromtimestamp(0, UTC)


def format_stamp(nanoseconds: int) -> bytes:
    """
    Nanoseconds since 1970 as a record's stamp.
    """
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z".rjust(STAMP_SIZE, "0").encode()


def parse_bound(value: Bound, *, option: str, now: datetime | None = None) -> bytes:
    """
    The stamp that *since* or *until* means.

    Takes a datetime (naive: local time), a date, seconds since 1970, a
    timedelta or a duration like ``"10m"`` (both: so long ago), or a date and
    time in RFC 3339.
    """
    now = now or datetime.now(UTC)
    try:
        if isinstance(value, bool):
            raise TypeError(f"{option}: expected a time, not {value!r}")
        if isinstance(value, timedelta):
            return _from_datetime(now - value)
        if isinstance(value, datetime):
            return _from_datetime(value)
        if isinstance(value, date):
            return _from_datetime(datetime(value.year, value.month, value.day))  # noqa: DTZ001  # local
        if isinstance(value, int):
            return format_stamp(value * 10**9)
        if isinstance(value, float):
            return format_stamp(round(value * 10**9))
        if isinstance(value, str):
            return _from_text(value.strip(), now)
    except (ValueError, OverflowError) as error:
        raise InvalidOption(
            f"{option}: {value!r} cannot be used: expected a datetime, a timedelta, seconds since 1970, "
            f"RFC 3339 text, or a duration like '10m' for so long ago",
            subject=option,
        ) from error
    raise TypeError(f"{option}: expected a time, not {type(value).__name__} ({value!r:.100})")


def _from_datetime(value: datetime) -> bytes:
    moment = value.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z".rjust(STAMP_SIZE, "0").encode()


def _from_text(text: str, now: datetime) -> bytes:
    digits = text.replace(".", "", 1)
    if digits.isascii() and digits.isdigit():
        if len(text) == 8 and text.isdigit() and text[:2] in ("19", "20"):
            raise ValueError("a date without dashes, or seconds")  # fromisoformat would take the one
        whole, _, fraction = text.partition(".")
        return format_stamp(int(whole or "0") * 10**9 + int(fraction[:9].ljust(9, "0")))
    if text[:4].isdigit() and text[4:5] == "-":
        text = text.upper()
        stamp = _from_datetime(datetime.fromisoformat(text))
        fraction = text.partition(".")[2][:9].rstrip("Z")
        if fraction.isdigit():  # more digits than a datetime holds
            stamp = stamp[:20] + fraction.ljust(9, "0").encode() + b"Z"
        return stamp
    return _from_datetime(now - timedelta(seconds=parse_duration(text)))


class LogFiles:
    """
    The open files of one log, oldest first; a rotation cannot hide one.

    Use it in a ``with`` block.
    """

    def __init__(self, directory: int | str | Path) -> None:
        self._stack = ExitStack()
        if not isinstance(directory, int):
            directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._stack.callback(os.close, directory)
        try:
            for _ in range(100):
                self.fds, whole = _open_chain(directory)
                if whole:
                    break
                self._close_files()
            else:  # the monitor was killed amid a rotation: the gap stays
                self.fds, _ = _open_chain(directory, gaps=True)
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self._close_files)

    def _close_files(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def __enter__(self) -> list[int]:
        return self.fds

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def open_log(directory: int, name: str) -> int | None:
    """
    Open one file of the log; None when there is none of that name.
    """
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return None


def _open_chain(directory: int, *, gaps: bool = False) -> tuple[list[int], bool]:
    """
    Open log, log.1, ... and return them oldest first, and whether there was no gap.

    A rotation moves every file one name on while this runs.  Going with the
    files from new to old, one may be met again but none is missed; what was
    opened between both times is newer than the first and is left for later.
    """
    found: list[tuple[int, int]] = []
    missing = number = 0
    whole = True
    while missing < 2:
        fd = open_log(directory, f"log.{number}" if number else "log")
        number += 1
        if fd is None:
            missing += 1
            continue
        # log itself may be missing: renamed, and the new one not yet made.
        if missing and number > 2 and not gaps:
            whole = False
        missing = 0
        inode = os.fstat(fd).st_ino
        again = next((i for i, (_, known) in enumerate(found) if known == inode), None)
        if again is None:
            found.append((fd, inode))
            continue
        os.close(fd)
        for other, _ in found[again + 1 :]:
            os.close(other)
        del found[again + 1 :]
    return [fd for fd, _ in reversed(found)], whole


def blocks_forward(fd: int, start: int, end: int | None = None) -> Iterator[bytes]:
    """
    The file's whole records from *start* on, many at a time.
    """
    rest = b""
    while end is None or start < end:
        size = BLOCK if end is None else min(BLOCK, end - start)
        block = os.pread(fd, size, start)
        if not block:
            return
        start += len(block)
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut] if rest else block[:cut]
            rest = block[cut:]
        else:
            rest += block


def end_of_records(fd: int) -> int:
    """
    Where the file's last whole record ends: what follows is being written.
    """
    position = os.fstat(fd).st_size
    while position:
        start = max(0, position - BLOCK)
        cut = os.pread(fd, position - start, start).rfind(b"\n") + 1
        if cut:
            return start + cut
        position = start
    return 0


def blocks_backward(fd: int, end: int) -> Iterator[bytes]:
    """
    The file's records before *end*, many at a time, the last of them first.
    """
    pieces: list[bytes] = []  # newest first: the ends of records that begin further up
    while end:
        start = max(0, end - BLOCK)
        block = os.pread(fd, end - start, start)
        end = start
        # A newline at the block's very end closes a record that begins in it or above.
        first = block.find(b"\n") + 1 if start else 0
        if start and (not first or first == len(block)):
            pieces.append(block)
            continue
        pieces.append(block[first:])
        yield b"".join(reversed(pieces))
        pieces = [block[:first]] if first else []


class Joiner:
    """
    Puts pieces of lines together, for each stream apart.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self.stamps: dict[str, bytes] = {}

    def feed(self, block: bytes) -> Iterator[Entry]:
        """
        The lines that end within a block of whole records.
        """
        pieces, selection = self.pieces, self._selection
        wanted = selection.streams
        for record in block.split(b"\n"):
            parsed = parse_record(record)
            if parsed is None:
                continue
            stamp, stream, ended, data = parsed
            if stream not in wanted:
                continue
            held = pieces[stream]
            if ended:
                if held:
                    held.append(data)
                    data = b"".join(held)
                    held.clear()
                if stamp in selection:
                    yield Entry(stamp, stream, data, True)
            else:
                held.append(data)
                self.stamps[stream] = stamp

    def rest(self) -> Iterator[Entry]:
        """
        The lines that the log's end cut off, in order of time.
        """
        for stream, stamp in sorted(self.stamps.items(), key=lambda item: item[1]):
            held = self.pieces[stream]
            if held and stamp in self._selection:
                yield Entry(stamp, stream, b"".join(held), False)
            held.clear()


def read_entries(
    directory: int | str | Path, selection: Selection, *, tail: int | None = None
) -> Iterator[Entry]:
    """
    The log's lines, the last *tail* of them alone when it is given.
    """
    with LogFiles(directory) as fds:
        if tail is not None:
            tail = check_tail(tail)
            lines, joiner = read_tail(fds, [end_of_records(fd) for fd in fds], selection, tail)
            yield from [*lines, *joiner.rest()][-tail:] if tail else ()
            return
        joiner = Joiner(selection)
        # The last file may grow while it is read: what is there now is the log.
        ends = [os.fstat(fd).st_size for fd in fds]
        for fd, end in zip(fds, ends, strict=True):
            for block in () if _before(fd, selection) else blocks_forward(fd, 0, end):
                yield from joiner.feed(block)
        yield from joiner.rest()


def _before(fd: int, selection: Selection) -> bool:
    """
    Whether a file was last written to so long before *since* that it holds nothing of use.
    """
    margin = 60 * 10**9  # clocks are set, and file times are coarse
    return bool(selection.since) and format_stamp(os.fstat(fd).st_mtime_ns + margin) < selection.since


def check_tail(tail: int | str | None) -> int:
    """
    The number of lines that *tail* means; negative numbers are an error.
    """
    if isinstance(tail, str) and tail.isascii() and tail.isdigit():
        tail = int(tail)
    if not isinstance(tail, int) or isinstance(tail, bool) or tail < 0:
        raise InvalidOption(f"tail: {tail!r} cannot be used: expected a number of lines", subject="tail")
    return tail


def read_logs(
    directory: int | str | Path,
    *,
    tail: int | None = None,
    since: Bound | None = None,
    until: Bound | None = None,
    timestamps: bool = False,
    stdout: bool = True,
    stderr: bool = True,
) -> bytes:
    """
    What the program printed, byte for byte, as far as the log still has it.

    *directory* is the container's; *tail* counts lines from the end.
    """
    selection = Selection(since=since, until=until, stdout=stdout, stderr=stderr)
    output: list[bytes] = []
    for stamp, _, data, ended in read_entries(directory, selection, tail=tail):
        if timestamps:
            output += (stamp, b" ")
        output.append(data)
        if ended:
            output.append(b"\n")
    return b"".join(output)


def iter_logs(
    directory: int | str | Path,
    *,
    tail: int | None = None,
    since: Bound | None = None,
    until: Bound | None = None,
    stdout: bool = True,
    stderr: bool = True,
) -> Iterator[LogLine]:
    """
    The same as lines, read while they are taken.
    """
    selection = Selection(since=since, until=until, stdout=stdout, stderr=stderr)
    return (entry.to_line() for entry in read_entries(directory, selection, tail=tail))


def read_tail(fds: list[int], ends: list[int], selection: Selection, tail: int) -> tuple[list[Entry], Joiner]:
    """
    The last *tail* whole lines before *ends*, and a joiner with those not yet whole.

    Those count as one line each when they are shown.  Reads from the end,
    and no more than it must.
    """
    joiner = Joiner(selection)
    live = set(selection.streams)
    current: dict[str, list[bytes] | None] = {}  # pieces of the line begun, newest first; None: not wanted
    found: list[tuple[bytes, str, list[bytes]]] = []  # newest first
    count = 0
    backward = zip(reversed(fds), reversed(ends), strict=True)
    for block in (block for fd, end in backward for block in blocks_backward(fd, end)):
        if count >= tail and not any(b" %s " % stream.encode() in block for stream in live):
            continue
        for record in reversed(block.split(b"\n")):
            parsed = parse_record(record)
            if parsed is None or parsed[1] not in live:
                continue
            stamp, stream, ended, data = parsed
            if not ended and stream in current:
                held = current[stream]
                if held is not None:
                    held.append(data)
            elif ended and count >= tail:
                live.discard(stream)
            elif ended and stamp not in selection:
                current[stream] = None
            else:
                held = current[stream] = [data]
                count += stamp in selection
                if ended:
                    found.append((stamp, stream, held))
                else:
                    joiner.pieces[stream] = held
                    joiner.stamps[stream] = stamp
        if count >= tail:
            # A stream that has no line begun by now cannot have a piece of those found.
            live = {stream for stream in live if current.get(stream)}
            if not live:
                break
    for held in joiner.pieces.values():
        held.reverse()
    found.reverse()
    return [Entry(stamp, stream, b"".join(reversed(held)), True) for stamp, stream, held in found], joiner
