# SPDX-License-Identifier: Apache-2.0
"""
The reader of logs, against files as the monitor writes and rotates them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from containerlib.errors import InvalidOption
from containerlib.runtime.client import MonitorClient
from containerlib.runtime.follow import LogFollower, LogWatch, follow_logs
from containerlib.runtime.logs import (
    BLOCK,
    blocks_backward,
    blocks_forward,
    end_of_records,
    format_stamp,
    iter_logs,
    parse_bound,
    parse_record,
    parse_stamp,
    read_logs,
)
from containerlib.shim import Msg

START = 1_700_000_000 * 10**9


class Writer:
    """
    Writes a log as the monitor does.
    """

    def __init__(self, directory: Path, *, keep: int = 50) -> None:
        self.directory = directory
        self.keep = keep
        self.now = START
        self.fd = -1
        self.open()

    def open(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.fd = os.open(self.directory / "log", flags, 0o600)

    def piece(self, data: bytes, *, stream: str = "stdout", flag: str = "F") -> None:
        self.now += 10**9
        os.write(self.fd, b"%s %s %s %s\n" % (format_stamp(self.now), stream.encode(), flag.encode(), data))

    def rotate(self) -> None:
        for number in range(self.keep - 1, 0, -1):
            path = self.directory / f"log.{number}"
            if path.exists():
                path.rename(self.directory / f"log.{number + 1}")
        (self.directory / "log").rename(self.directory / "log.1")
        self.open()

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture(name="writer")
def _writer(tmp_path):
    writer = Writer(tmp_path)
    yield writer
    writer.close()


class Monitor:
    """
    The other end of a client's socket.
    """

    def __init__(self) -> None:
        near, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.client = MonitorClient(near.detach())

    def send(self, type: Msg, arg: int = 0, payload: bytes = b"") -> None:
        self.socket.send(struct.pack("ii", type, arg) + payload)


@pytest.fixture(name="monitor")
def _monitor():
    monitor = Monitor()
    yield monitor
    monitor.client.close()
    monitor.socket.close()


def test_bytes_come_back_as_printed(writer):
    """
    Both streams' lines come back in order and byte for byte.
    """
    writer.piece(b"one")
    writer.piece(b"\xff\x00 two\r", stream="stderr")
    writer.piece(b"")
    assert b"one\n\xff\x00 two\r\n\n" == read_logs(writer.directory)
    assert b"\xff\x00 two\r\n" == read_logs(writer.directory, stdout=False)
    assert b"one\n\n" == read_logs(writer.directory, stderr=False)


def test_directory_descriptor(writer):
    """
    The directory may be given as a descriptor, even one of O_PATH.
    """
    writer.piece(b"one")
    fd = os.open(writer.directory, os.O_PATH)
    assert b"one\n" == read_logs(fd)
    os.close(fd)


def test_pieces_join_for_each_stream(writer):
    """
    Pieces of one line are joined although another stream printed in between.
    """
    writer.piece(b"a", flag="P")
    writer.piece(b"x", flag="P", stream="stderr")
    writer.piece(b"b", flag="P")
    writer.piece(b"y", stream="stderr")
    writer.piece(b"c")
    assert b"xy\nabc\n" == read_logs(writer.directory)
    assert [b"xy", b"abc"] == [line.data for line in iter_logs(writer.directory, tail=2)]
    assert b"abc\n" == read_logs(writer.directory, tail=1)


def test_unfinished_line_is_shown_without_newline(writer):
    """
    What was printed without a newline at the end appears without one.
    """
    writer.piece(b"one")
    writer.piece(b"a", flag="P")
    writer.piece(b"b", flag="P")
    assert b"one\nab" == read_logs(writer.directory)
    assert b"ab" == read_logs(writer.directory, tail=1)
    assert b"one\nab" == read_logs(writer.directory, tail=2)
    assert b"" == read_logs(writer.directory, tail=0)


def test_pieces_join_across_rotation(writer):
    """
    A line whose pieces lie in two files is one line.
    """
    writer.piece(b"first")
    writer.piece(b"a", flag="P")
    writer.rotate()
    writer.piece(b"b")
    assert b"first\nab\n" == read_logs(writer.directory)
    assert b"ab\n" == read_logs(writer.directory, tail=1)


def test_tail_reaches_back_across_files(writer):
    """
    The tail spans rotated files, and is the whole log when that is shorter.
    """
    for number in range(100):
        if number % 7 == 6:
            writer.rotate()
        writer.piece(b"%d" % number, stream=("stdout", "stderr")[number % 2])
    everything = [b"%d" % number for number in range(100)]
    for tail in (0, 1, 2, 7, 8, 50, 99, 100, 1000):
        assert (everything[-tail:] if tail else []) == [
            line.data for line in iter_logs(writer.directory, tail=tail)
        ]
    assert everything[1::2][-3:] == [line.data for line in iter_logs(writer.directory, tail=3, stdout=False)]


def test_tail_reads_only_the_end(writer):
    """
    The tail of a log with one stream is found in its last block.
    """
    for number in range(20_000):
        writer.piece(b"%d " % number + b"x" * 100)
    before = _bytes_read()
    assert 10 == len(list(iter_logs(writer.directory, tail=10)))
    assert 4 * BLOCK > _bytes_read() - before


def _bytes_read() -> int:
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise AssertionError("no rchar in /proc/self/io")


@pytest.mark.parametrize("tail", [-1, "x", True, 1.5])
def test_bad_tail_is_named(writer, tail):
    """
    A tail that is no number of lines is refused by name.
    """
    with pytest.raises(InvalidOption, match="tail"):
        read_logs(writer.directory, tail=tail)


def test_since_and_until_are_inclusive(writer):
    """
    Both bounds include their own moment.
    """
    for number in range(5):
        writer.piece(b"%d" % number)  # at START + 1 s and so on
    second = 1_700_000_000
    assert b"2\n3\n" == read_logs(writer.directory, since=second + 3, until=second + 4)
    assert b"3\n4\n" == read_logs(writer.directory, since=datetime.fromtimestamp(second + 4, UTC))
    assert b"2\n" == read_logs(writer.directory, since=second + 2, until=second + 3, tail=1)
    assert b"1\n2\n" == read_logs(writer.directory, since=second + 2, until=second + 3, tail=7)


def test_rotated_files_before_since_are_skipped(writer):
    """
    A rotated file older than *since* does not hide what came later.
    """
    writer.piece(b"old")
    os.utime(writer.directory / "log", ns=(START, START))
    writer.rotate()
    writer.now += 10**12
    writer.piece(b"new")
    assert b"new\n" == read_logs(writer.directory, since=START / 1e9 + 500)


def test_timestamps_stand_before_lines(writer):
    """
    With timestamps each line begins with the log's own stamp.
    """
    writer.piece(b"one")
    expected = b"2023-11-14T22:13:21.000000000Z one\n"
    assert expected == read_logs(writer.directory, timestamps=True)
    (line,) = iter_logs(writer.directory)
    assert ("stdout", datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC), "one") == (
        line.stream,
        line.time,
        line.text,
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1.5, "1970-01-01T00:00:01.500000000Z"),
        ("1700000000.25", "2023-11-14T22:13:20.250000000Z"),
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000000Z"),
        ("2023-11-14t22:13:20z", "2023-11-14T22:13:20.000000000Z"),
        ("2023-11-14T22:13:20.123456789Z", "2023-11-14T22:13:20.123456789Z"),
        ("2023-11-15T00:13:20.5+02:00", "2023-11-14T22:13:20.500000000Z"),
        (datetime(2023, 11, 14, 22, 13, 20, 7, UTC), "2023-11-14T22:13:20.000007000Z"),
        (timedelta(minutes=10), "2024-02-29T11:50:00.000000000Z"),
        ("10m", "2024-02-29T11:50:00.000000000Z"),
        ("1h30m", "2024-02-29T10:30:00.000000000Z"),
    ],
)
def test_bounds(value, expected):
    """
    Each spelling of a bound means one moment.
    """
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert expected.encode() == parse_bound(value, option="since", now=now)


def test_local_bounds():
    """
    A naive datetime, a date and text without a zone are local time.
    """
    midnight = datetime(2024, 1, 2).astimezone(UTC)
    expected = f"{midnight:%Y-%m-%dT%H:%M:%S}.000000000Z".encode()
    for value in (datetime(2024, 1, 2), date(2024, 1, 2), "2024-01-02", "2024-01-02T00:00:00"):  # noqa: DTZ001
        assert expected == parse_bound(value, option="since")


@pytest.mark.parametrize("value", ["", "yesterday", "20240102", "2024-13-01", "10x", float("nan"), 10**30])
def test_bad_bounds_are_named(value):
    """
    What is no time is refused with its option and value.
    """
    with pytest.raises(InvalidOption, match=r"until: .* cannot be used"):
        parse_bound(value, option="until")


@pytest.mark.parametrize("value", [None, True, [], b"10m"])
def test_bounds_of_wrong_type(value):
    """
    A value of a type that is no time is a TypeError.
    """
    with pytest.raises(TypeError, match="since"):
        parse_bound(value, option="since")


@given(st.integers(0, 4 * 10**18))
def test_stamps_sort_as_times(nanoseconds):
    """
    A stamp has one width, sorts as its time does, and reads back to the microsecond.
    """
    stamp = format_stamp(nanoseconds)
    assert 30 == len(stamp)
    assert stamp < format_stamp(nanoseconds + 1)
    moment = parse_stamp(stamp)
    assert nanoseconds // 1000 == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert stamp == parse_bound(stamp.decode(), option="since")


@given(st.binary())
def test_records_never_break_the_parser(record):
    """
    Any bytes are a record or are not; none raises.
    """
    parsed = parse_record(record)
    assert parsed is None or record == b"%s %s %s %s" % (
        parsed[0],
        parsed[1].encode(),
        b"F" if parsed[2] else b"P",
        parsed[3],
    )


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\n",
        b"no record",
        b"2023-11-14T22:13:21.000000000Z stdout X text",
        b"2023-11-14T22:13:21.000000000Z stdin  F text",
        b"2023-11-14T22:13:21.000000000Z stdout F",
    ],
)
def test_foreign_lines_are_passed_over(writer, record):
    """
    What is no record does not hide those around it.
    """
    writer.piece(b"one")
    os.write(writer.fd, record + b"\n")
    writer.piece(b"two")
    assert b"one\ntwo\n" == read_logs(writer.directory)
    assert b"one\ntwo\n" == read_logs(writer.directory, tail=2)


def test_record_being_written_waits(writer):
    """
    A record without its newline is not shown yet, by tail neither.
    """
    writer.piece(b"one")
    os.write(writer.fd, format_stamp(START) + b" stdout F tw")
    assert b"one\n" == read_logs(writer.directory)
    assert b"one\n" == read_logs(writer.directory, tail=5)


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from("FFFP"),
        st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(
    pieces=PIECES,
    tail=st.integers(0, 12),
    streams=st.sampled_from([(True, True), (True, False), (False, True)]),
)
@example(pieces=[("stderr", "P", b"x", False), ("stdout", "F", b"", True)], tail=1, streams=(True, True))
def test_tail_is_the_end_of_the_whole(tmp_path_factory, pieces, tail, streams):
    """
    For any log, the last lines are what the end of the whole log shows.
    """
    writer = Writer(tmp_path_factory.mktemp("log"))
    for stream, flag, data, rotate in pieces:
        if rotate:
            writer.rotate()
        writer.piece(data, stream=stream, flag=flag)
    stdout, stderr = streams
    whole = list(iter_logs(writer.directory, stdout=stdout, stderr=stderr))
    found = list(iter_logs(writer.directory, stdout=stdout, stderr=stderr, tail=tail))
    writer.close()
    if tail and len(whole) > tail:
        # A line cut off by the end counts among the last, but is not looked for
        # before the lines of another stream that are enough already.
        assert tail == len(found)
        silent = whole[-1].stream not in {line.stream for line in found}
        assert whole[-2 if silent else -1] == found[-1]
    assert set(found) <= set(whole)
    finished = [line for line in whole if line in found]
    assert finished == found


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=600).map(lambda data: data.replace(b"\r", b"\n")), size=st.integers(1, 40))
def test_blocks_hold_whole_records(tmp_path_factory, data, size):
    """
    Reading by blocks of any size gives the same records from either end.
    """
    path = tmp_path_factory.mktemp("blocks") / "file"
    path.write_bytes(data)
    whole = data[: data.rfind(b"\n") + 1]
    fd = os.open(path, os.O_RDONLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("containerlib.runtime.logs.BLOCK", size)
        end = end_of_records(fd)
        forward = list(blocks_forward(fd, 0))
        backward = list(blocks_backward(fd, end))
    os.close(fd)
    assert len(whole) == end
    assert whole == b"".join(forward)
    assert whole == b"".join(reversed(backward))
    assert all(block.endswith(b"\n") for block in forward + backward)


def test_no_log_yet(tmp_path):
    """
    A container that never ran has an empty log.
    """
    assert b"" == read_logs(tmp_path)
    assert b"" == read_logs(tmp_path, tail=3)


def test_gap_left_by_a_killed_monitor(writer):
    """
    A rotation that was never finished hides no file but the missing one.
    """
    writer.piece(b"one")
    writer.rotate()
    writer.piece(b"two")
    writer.rotate()
    writer.piece(b"three")
    (writer.directory / "log.1").unlink()
    assert b"one\nthree\n" == read_logs(writer.directory)
    (writer.directory / "log").unlink()
    assert b"" == read_logs(writer.directory)


def test_reading_amid_rotations_loses_nothing(writer):
    """
    A reader sees a run of lines without a gap while another thread rotates.
    """
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(3):
                writer.piece(b"%d" % number)
                number += 1
            writer.rotate()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(150):
            numbers = [int(line) for line in read_logs(writer.directory).split()]
            assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        stop.set()
        thread.join()


# ---- following --------------------------------------------------------------


def test_follow_gives_lines_as_they_come(writer, monitor):
    """
    Following shows what is there, then each line when the monitor says so, and ends with it.
    """
    writer.piece(b"one")
    lines = follow_logs(writer.directory, LogWatch(monitor.client))
    assert b"one" == next(lines).data
    assert struct.pack("ii", Msg.WATCH, 1) == monitor.socket.recv(100)
    writer.piece(b"two")
    monitor.send(Msg.GREW)
    assert b"two" == next(lines).data
    writer.piece(b"three")
    writer.piece(b"cut", flag="P")
    monitor.send(Msg.ENDED)
    assert [b"three", b"cut"] == [line.data for line in lines]


def test_follow_ends_when_the_monitor_dies(writer, monitor):
    """
    The last lines are shown when the monitor goes without a word.
    """
    lines = follow_logs(writer.directory, LogWatch(monitor.client))
    writer.piece(b"one")
    monitor.send(Msg.GREW)
    assert b"one" == next(lines).data
    writer.piece(b"two")
    monitor.socket.close()
    assert [b"two"] == [line.data for line in lines]


def test_follow_goes_on_after_a_restart(writer, monitor):
    """
    An exit that the monitor answers with a restart does not end the following.
    """
    writer.piece(b"one")
    monitor.send(Msg.EXITED, 1)
    monitor.send(Msg.STARTED, 7)
    lines = follow_logs(writer.directory, LogWatch(monitor.client))
    assert b"one" == next(lines).data
    writer.piece(b"two")
    monitor.send(Msg.ENDED)
    assert [b"two"] == [line.data for line in lines]


def test_follow_without_monitor_reads_the_log(writer):
    """
    Following a container that does not run shows its log and ends.
    """
    writer.piece(b"one")
    assert [b"one"] == [line.data for line in follow_logs(writer.directory, None)]


def test_follow_across_rotations(writer, monitor):
    """
    Each line comes once although the log is rotated several times in between.
    """
    numbers = iter(range(1000))
    expected: list[bytes] = []

    def write(count: int) -> None:
        for _ in range(count):
            expected.append(b"%d" % next(numbers))
            writer.piece(expected[-1])

    found: list[bytes] = []
    with LogFollower(writer.directory, LogWatch(monitor.client)) as follower:
        for rotations in (0, 1, 0, 3, 1, 0, 2):
            write(2)
            for _ in range(rotations):
                writer.rotate()
                write(1)
            monitor.send(Msg.GREW)
            assert select.select([follower], [], [], 10)[0]
            found += [line.data for line in follower.lines()]
            assert expected == found
            assert follower.running
        writer.rotate()
        write(1)
        monitor.send(Msg.ENDED)
        found += [line.data for line in follower.lines()]
        assert not follower.running
    assert expected == found


def test_follow_holds_a_file_that_rotation_removed(writer, monitor):
    """
    The rest of a file that was rotated out of existence is still read.
    """
    with LogFollower(writer.directory, LogWatch(monitor.client)) as follower:
        writer.piece(b"one")
        assert [b"one"] == [line.data for line in follower.lines()]
        writer.piece(b"two")
        writer.rotate()
        (writer.directory / "log.1").unlink()
        writer.piece(b"three")
        monitor.send(Msg.GREW)
        assert [b"two", b"three"] == [line.data for line in follower.lines()]


def test_follower_may_stop_amid_a_block(writer, monitor):
    """
    Lines not taken in one round come in the next.
    """
    for number in range(5):
        writer.piece(b"%d" % number)
    with LogFollower(writer.directory, LogWatch(monitor.client)) as follower:
        assert b"0" == next(follower.lines()).data
        assert [b"1", b"2", b"3", b"4"] == [line.data for line in follower.lines()]


@pytest.mark.parametrize(
    ("tail", "expected"), [(0, [b"new"]), (1, [b"2", b"new"]), (9, [b"0", b"1", b"2", b"new"])]
)
def test_follow_from_the_tail(writer, monitor, tail, expected):
    """
    Following may begin with the last lines alone.
    """
    for number in range(3):
        writer.piece(b"%d" % number)
        if number < 2:
            writer.rotate()
    lines = follow_logs(writer.directory, LogWatch(monitor.client), tail=tail)
    found = [next(lines).data for _ in expected[:-1]]
    if not found:
        threading.Timer(0.01, lambda: (writer.piece(b"new"), monitor.send(Msg.ENDED))).start()
    else:
        writer.piece(b"new")
        monitor.send(Msg.ENDED)
    assert expected == found + [line.data for line in lines]


def test_follow_joins_a_line_begun_before_its_tail(writer, monitor):
    """
    A line that was begun before the following started comes whole.
    """
    writer.piece(b"beg", flag="P")
    with LogFollower(writer.directory, LogWatch(monitor.client), tail=0) as follower:
        assert [] == list(follower.lines())
        writer.piece(b"un")
        assert [b"begun"] == [line.data for line in follower.lines()]


def test_follow_a_log_that_is_emptied(writer, monitor):
    """
    A log of one file that is emptied when full is followed from its new beginning.
    """
    with LogFollower(writer.directory, LogWatch(monitor.client)) as follower:
        writer.piece(b"one")
        writer.piece(b"two")
        assert [b"one", b"two"] == [line.data for line in follower.lines()]
        os.ftruncate(writer.fd, 0)
        for text in (b"three", b"four", b"five"):
            writer.piece(text)
        assert [b"three", b"four", b"five"] == [line.data for line in follower.lines()]


def test_follow_a_log_whose_last_write_was_undone(writer, monitor):
    """
    A write that is taken back for want of space repeats no line.
    """
    with LogFollower(writer.directory, LogWatch(monitor.client)) as follower:
        writer.piece(b"one")
        size = os.fstat(writer.fd).st_size
        writer.piece(b"half")
        assert [b"one", b"half"] == [line.data for line in follower.lines()]
        os.ftruncate(writer.fd, size)
        assert [] == list(follower.lines())
        writer.piece(b"two")
        assert [b"two"] == [line.data for line in follower.lines()]


def test_follow_before_the_log_exists(tmp_path, monitor):
    """
    A log that is made after the following began is found.
    """
    with LogFollower(tmp_path, LogWatch(monitor.client)) as follower:
        assert [] == list(follower.lines())
        writer = Writer(tmp_path)
        writer.piece(b"one")
        writer.close()
        assert [b"one"] == [line.data for line in follower.lines()]


def test_follow_stops_on_request(writer, monitor):
    """
    A readable stop descriptor, a timeout and *until* each end the following.
    """
    reader, stop = os.pipe()
    lines = follow_logs(writer.directory, LogWatch(monitor.client), stop_fd=reader)
    os.write(stop, b"x")
    assert [] == list(lines)
    os.close(stop)
    os.close(reader)
    for options in ({"timeout": 0.01}, {"until": datetime.now(UTC)}):
        other = Monitor()
        assert [] == list(follow_logs(writer.directory, LogWatch(other.client), **options))
        assert other.client.closed
        other.socket.close()


def test_slow_follower_costs_the_monitor_nothing(writer, monitor):
    """
    Notes that find no room may be dropped: one in the queue is enough.
    """
    monitor.socket.setblocking(False)
    with LogFollower(writer.directory, LogWatch(monitor.client)) as follower:
        sent = 0
        try:
            while True:
                monitor.send(Msg.GREW)
                sent += 1
        except BlockingIOError:
            pass
        writer.piece(b"one")
        assert sent > 0
        assert select.select([follower], [], [], 0)[0]
        assert [b"one"] == [line.data for line in follower.lines()]
