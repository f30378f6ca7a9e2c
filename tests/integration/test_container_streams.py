# SPDX-License-Identifier: Apache-2.0
"""
What a container says and hears: logs, processes run in it, attached streams,
a joined terminal.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import containerlib as cl
from containerlib import CommandFailed, CommandNotFound, Conflict, ContainerTimeout

# ---- logs -------------------------------------------------------------------


def ended(create, script, **options):
    container = create(["sh", "-c", script], **options)
    container.start()
    container.wait(timeout=30)
    return container


def test_logs(create):
    """Logs have both streams in order, each alone, and the last lines alone."""
    container = ended(create, "echo 1; sleep 0.05; echo 2 >&2; sleep 0.05; echo 3; printf 4")
    assert "1\n2\n3\n4" == container.logs()
    assert "1\n3\n4" == container.logs(stderr=False)
    assert "2\n" == container.logs(stdout=False)
    assert "3\n4" == container.logs(tail=2)
    assert "" == container.logs(tail=0)


def test_logs_with_times(create):
    """Timestamps are RFC 3339 in UTC, and since and until cut by them."""
    container = ended(create, "echo 1; sleep 0.2; echo 2; sleep 0.2; echo 3")
    lines = container.logs(timestamps=True).splitlines()
    stamps = [line.partition(" ")[0] for line in lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp) for stamp in stamps)
    times = [datetime.fromisoformat(f"{stamp[:26]}+00:00") for stamp in stamps]
    assert container.started - timedelta(milliseconds=1) <= times[0] <= times[2] <= datetime.now(UTC)
    second = times[1] - timedelta(milliseconds=50)
    assert "2\n3\n" == container.logs(since=second)
    assert "1\n" == container.logs(until=second)
    assert "2\n3\n" == container.logs(since=second.timestamp())
    assert "" == container.logs(since=datetime.now(UTC))
    assert "1\n2\n3\n" == container.logs(since="10m")


def test_logs_of_a_start_that_was_never(create):
    """A container that never ran has an empty log."""
    assert "" == create().logs()


def test_follow_logs(start):
    """Following gives each line when it is printed, with its stream and time, until the end."""
    container = start(["sh", "-c", "while read x; do echo $x; echo e$x >&2; done"], stdin_open=True)
    lines = container.follow_logs(timeout=20)
    with container.attach(stdout=False, stderr=False) as attachment:
        for word in ("a", "b"):
            attachment.stdin.write(word.encode() + b"\n")
            found = {(line.stream, line.text) for line in (next(lines), next(lines))}
            assert {("stdout", word), ("stderr", f"e{word}")} == found
    container.stop(timeout=5)
    assert [] == list(lines)


def test_follow_logs_from_the_tail(create):
    """Following an ended container gives its last lines and ends."""
    container = ended(create, "echo 1; echo 2; echo 3")
    assert ["2", "3"] == [line.text for line in container.follow_logs(tail=2)]


def test_rotation(create):
    """A log grows no larger than it may, and what is left is whole lines, the newest ones, in order."""
    container = ended(
        create,
        "i=0; while [ $i -lt 6000 ]; do echo line $i; i=$((i+1)); done",
        logging={"options": {"max-size": "20k", "max-file": "3"}},
    )
    directory = container.engine.store.containers.path(container.id)
    files = sorted(path.name for path in directory.glob("log*"))
    assert ["log", "log.1", "log.2"] == files
    assert sum((directory / name).stat().st_size for name in files) < 3 * 60_000
    lines = container.logs().splitlines()
    assert [f"line {n}" for n in range(6000 - len(lines), 6000)] == lines
    assert len(lines) > 100


def test_following_across_rotations(start):
    """A follower loses nothing when the log is rotated while it reads."""
    container = start(
        ["sh", "-c", "read x; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"],
        stdin_open=True,
        logging={"options": {"max-size": "64k", "max-file": "5"}},
    )
    lines = container.follow_logs(timeout=30)
    with container.attach(stdout=False, stderr=False) as attachment:
        attachment.stdin.write(b"\n")
        assert [f"line {n}" for n in range(3000)] == [line.text for line in lines]


def test_long_lines_and_binary_output(create):
    """A line longer than any buffer comes back as one line, and bytes that are no text do no harm."""
    container = ended(create, r"head -c 200000 /dev/zero | tr '\0' x; echo; printf '\377\376\n'; echo end")
    long, odd, last = container.logs().split("\n")[:3]
    assert ("x" * 200_000, "\ufffd\ufffd", "end") == (long, odd, last)


# ---- exec -------------------------------------------------------------------


def test_exec(start):
    """A command runs in the container, its streams apart, and a code other than 0 raises."""
    container = start()
    done = container.exec(["sh", "-c", "echo out; echo err >&2"])
    assert ("out\n", "err\n", 0) == (done.stdout, done.stderr, done.exit_code)
    assert b"\xff" == container.exec(["printf", r"\377"], encoding=None).stdout
    assert "in" == container.exec(["cat"], input="in").stdout
    assert 3 == container.exec(["sh", "-c", "exit 3"], check=False).exit_code
    with pytest.raises(CommandFailed, match="exit code 3") as caught:
        container.exec(["sh", "-c", "echo o; echo e >&2; exit 3"])
    assert ("o\n", "e\n") == (caught.value.stdout, caught.value.stderr)
    with pytest.raises(CommandNotFound, match="nothing-here"):
        container.exec(["nothing-here"])


def test_exec_shares_the_container(start):
    """A process run inside sees the container's files, processes and names, and not the host's."""
    container = start(hostname="inner", working_dir="/tmp")
    container.exec(["sh", "-c", "echo x > /shared"])
    out = container.exec(["sh", "-c", "cat /shared; hostname; pwd; ls /proc | grep -c '^[0-9]'"]).stdout
    assert ["x", "inner", "/tmp"] == out.split()[:3]
    assert int(out.split()[3]) <= 6


def test_exec_environment(start):
    """Variables given are added to the container's, and None takes one away."""
    container = start(environment={"A": "1", "B": "2"})
    out = container.exec(["sh", "-c", "echo $A $B $C"], environment={"B": None, "C": "3"}).stdout
    assert "1 3\n" == out


@pytest.mark.subids
def test_exec_as_another_user(start):
    """A user, a directory and the user's groups count for the process alone."""
    container = start(user="1234")
    assert "1234\n" == container.exec(["id", "-u"]).stdout
    assert "1000 1000 29 50" == " ".join(
        container.exec(["sh", "-c", "id -u; id -G"], user="user").stdout.split()
    )
    assert "0\n/etc\n" == container.exec(["sh", "-c", "id -u; pwd"], user=0, working_dir="/etc").stdout


def test_exec_privileged(start):
    """Only a privileged process has all capabilities that there are to have."""
    container = start()
    command = ["grep", "^CapEff", "/proc/self/status"]
    plain, full = (
        int(container.exec(command, privileged=given).stdout.split()[1], 16) for given in (False, True)
    )
    assert 0xA80425FB == plain
    assert plain & full == plain != full


def test_exec_with_a_terminal(start):
    """With tty all streams are one terminal."""
    container = start()
    done = container.exec(["sh", "-c", "tty; echo $TERM; echo e >&2"], tty=True)
    assert ("/dev/pts/0\r\nxterm\r\ne\r\n", "") == (done.stdout, done.stderr)


def test_exec_timeout_ends_the_children_too(start, eventually):
    """A timed out exec leaves nothing that its command had started."""
    container = start()
    with pytest.raises(ContainerTimeout):
        container.exec(["sh", "-c", "sleep 1004; echo"], timeout=0.5)
    eventually(lambda: [] == [p for p in container.top() if "1004" in p.args])


def test_exec_timeout(start, eventually):
    """A process that takes too long is killed, and its output so far is in the error."""
    container = start()
    with pytest.raises(ContainerTimeout) as caught:
        container.exec(["sh", "-c", "echo early; exec sleep 1003"], timeout=0.3)
    assert "early\n" == caught.value.stdout
    eventually(lambda: not [p for p in container.top() if "1003" in p.args])
    assert "running" == container.status


def test_exec_large(start):
    """Twenty megabytes go in and come out."""
    data = os.urandom(1 << 20) * 20
    assert data == start().exec(["cat"], input=data, encoding=None).stdout


def test_exec_from_threads(start):
    """Eight threads run commands in one container at once."""
    container = start()
    results: dict[int, str] = {}

    def one(number: int) -> None:
        results[number] = container.exec(["echo", str(number)]).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: f"{number}\n" for number in range(8)} == results


def test_popen(start):
    """A Process is talked to over its files, polled, signalled and waited for."""
    container = start()
    with container.popen(["sh", "-c", "trap 'exit 7' TERM; while read x; do echo got $x; done"]) as process:
        process.stdin.write("a\n")
        assert "got a\n" == process.stdout.readline()
        assert process.poll() is None
        with pytest.raises(ContainerTimeout):
            process.wait(timeout=0.05)
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait(timeout=20) in (7, 0)
    with container.popen(["cat"], encoding=None) as process:
        assert (b"x", b"") == process.communicate(b"x", timeout=20)
        assert 0 == process.exit_code


def test_popen_on_a_terminal_is_resized(start):
    """A process on a terminal sees the size that it was given, and a new one."""
    container = start()
    with container.popen(["sh", "-c", "stty size; read x; stty size"], tty=True, size=(24, 80)) as process:
        assert "24 80" == process.stdout.readline().strip()
        process.resize(50, 132)
        process.stdin.write("\n")
        process.stdout.readline()
        assert "50 132" == process.stdout.readline().strip()


def test_popen_ends_with_its_container(start):
    """When the container ends, what runs in it is killed, and its Process knows."""
    container = start()
    process = container.popen(["sleep", "1000"])
    container.kill()
    assert 137 == process.wait(timeout=20)
    process.close()


def test_exec_does_not_outlive_an_owner(program, start, eventually):
    """A process run by a program that is killed is killed too; a detached one goes on."""
    container = start(name="inner")
    child = program(
        """
        container = cl.Container.get("inner")
        container.popen(["sleep", "1004"])
        container.popen(["sleep", "1005"], detach=True)
        print("started", flush=True)
        signal.pause()
        """
    )
    child.line()
    child.process.kill()
    eventually(lambda: "1004" not in [p.args[-1] for p in container.top()])
    assert "1005" in [p.args[-1] for p in container.top()]


# ---- attach and interact ----------------------------------------------------


def test_attach(start):
    """An attachment has the main process's streams; leaving it leaves the process alone."""
    container = start(["sh", "-c", "while read x; do echo got $x; done; exit 4"], stdin_open=True)
    for word in (b"a", b"b"):
        with container.attach() as attachment:
            attachment.stdin.write(word + b"\n")
            assert ("stdout", b"got " + word + b"\n") == tuple(map(_plain, attachment.read(timeout=20)))
    assert "running" == container.status
    with container.attach() as attachment:
        attachment.stdin.close()
        assert 4 == attachment.wait(timeout=20)
    assert "got a\ngot b\n" == container.logs()


def _plain(value):
    return value if isinstance(value, bytes) else getattr(value, "name", str(value)).lower()


def test_two_attachments_hear_the_same(start):
    """Every attachment gets all output."""
    container = start(["sh", "-c", "read x; echo $x; exit 0"], stdin_open=True)
    with container.attach() as one, container.attach() as two:
        one.stdin.write(b"hello\n")
        assert [b"hello\n"] == [data for _, data in one]
        assert [b"hello\n"] == [data for _, data in two]


def test_attach_to_an_ended_container(create):
    """There is nothing to attach to in a container that does not run."""
    container = ended(create, "true")
    with pytest.raises(Conflict, match="exited"):
        container.attach()


class Terminal:
    """
    A terminal with somebody at it: what a user types, and sees.
    """

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = pty.openpty()
        import termios

        termios.tcsetwinsize(self.slave, (rows, columns))
        self.seen = b""
        self.result: list[object] = []

    def join(self, container: cl.Container, **options: object) -> None:
        file = os.fdopen(self.slave, "r+b", buffering=0, closefd=False)

        def interact() -> None:
            try:
                self.result.append(container.interact(stdin=file, stdout=file, stderr=file, **options))
            except BaseException as error:  # for the test to see
                self.result.append(error)

        self.thread = threading.Thread(target=interact)
        self.thread.start()

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def see(self, text: bytes, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.master, 65536)

    def left(self) -> object:
        self.thread.join(20)
        assert not self.thread.is_alive(), self.seen
        return self.result.pop()

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture(name="terminal")
def _terminal():
    made: list[Terminal] = []

    def make(*size: int) -> Terminal:
        made.append(Terminal(*size))
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


def test_interact_until_exit(start, terminal):
    """A terminal joined to a shell shows what it prints, and interact returns its exit code."""
    container = start(["sh"], tty=True, stdin_open=True)
    user = terminal()
    user.join(container)
    user.type(b"echo $((40+2))\n")
    user.see(b"\n42\r\n")
    user.type(b"exit 3\n")
    assert 3 == user.left()
    assert 3 == container.wait()


def test_detach_and_join_again(start, terminal):
    """ctrl-p ctrl-q leaves the container running, and a second terminal finds the same shell."""
    container = start(["sh"], tty=True, stdin_open=True)
    first = terminal()
    first.join(container)
    first.type(b"x=21; echo set\n")
    first.see(b"\nset\r\n")
    first.type(b"\x10\x11")
    assert first.left() is None
    assert "running" == container.status
    second = terminal()
    second.join(container)
    second.type(b"echo =$((x*2))\n")
    second.see(b"=42\r\n")
    second.type(b"exit 5\n")
    assert 5 == second.left()


def test_other_detach_keys(start, terminal):
    """The keys that detach can be chosen."""
    container = start(["cat"], tty=True, stdin_open=True)
    user = terminal()
    user.join(container, detach_keys="ctrl-x,x")
    user.type(b"\x18x")
    assert user.left() is None
    assert "running" == container.status


def test_the_terminal_has_its_size(start, terminal):
    """The container's terminal is as large as the caller's."""
    container = start(["sh"], tty=True, stdin_open=True)
    user = terminal(33, 101)
    user.join(container)
    user.type(b"stty size\n")
    user.see(b"33 101\r\n")
    user.type(b"exit\n")
    assert 0 == user.left()


def test_keys_reach_the_foreground(start, terminal):
    """ctrl-c interrupts what runs in the foreground inside, with and without init."""
    for init in (True, False):
        container = start(["sh"], tty=True, stdin_open=True, init=init)
        user = terminal()
        user.join(container)
        user.type(b"sleep 1000\n")
        container.wait_until(command="pidof sleep", timeout=20)
        user.type(b"\x03")
        user.see(b"^C")
        user.type(b"echo code $?\n")
        user.see(b"code 130")
        user.type(b"exit 0\n")
        assert 0 == user.left()
