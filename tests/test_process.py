# SPDX-License-Identifier: Apache-2.0
"""
Held processes and the exchange with them: real processes, pipes and terminals.

A thread takes the helper's part, in the helper's wire format.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pty
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.errors import ContainerTimeout, ExitCodeLost
from containerlib.runtime.client import Deadline, MonitorClient
from containerlib.runtime.exchange import exchange
from containerlib.runtime.process import Process
from containerlib.shim import MSG_MAX, Msg


class Helper:
    """
    Starts a process and tells how it ended; passes signals on.
    """

    def __init__(self, argv, *, tty: bool = False, silent: bool = False) -> None:
        near, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.status = MonitorClient(near.detach(), subject="box")
        self.silent = silent
        self.fds: dict[str, int] = {}
        if tty:
            self.fds["terminal"], inner = pty.openpty()
            self.popen = subprocess.Popen(
                argv, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
            )
            os.close(inner)
        else:
            inputs, outputs, errors = os.pipe(), os.pipe(), os.pipe()
            self.popen = subprocess.Popen(argv, stdin=inputs[0], stdout=outputs[1], stderr=errors[1])
            for fd in (inputs[0], outputs[1], errors[1]):
                os.close(fd)
            self.fds = {"stdin": inputs[1], "stdout": outputs[0], "stderr": errors[0]}
        self.threads = [threading.Thread(target=self._wait), threading.Thread(target=self._serve)]
        for thread in self.threads:
            thread.start()

    def _wait(self) -> None:
        code = self.popen.wait()
        with contextlib.suppress(OSError):  # the other end was closed
            if not self.silent:
                self.socket.send(struct.pack("ii", Msg.EXITED, code if code >= 0 else 128 - code))
            self.socket.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.socket.recv(MSG_MAX):
                type, arg = struct.unpack_from("ii", data)
                if type == Msg.KILL:
                    self.popen.send_signal(arg)
                    self.socket.send(struct.pack("ii", Msg.ACK, 0))

    def wait(self) -> int:
        for thread in self.threads:
            thread.join()
        self.socket.close()
        return 0

    def poll(self) -> int | None:
        return None if any(thread.is_alive() for thread in self.threads) else self.wait()

    def close(self) -> None:
        self.popen.kill()
        self.status.close()
        self.wait()


@pytest.fixture(name="start")
def _start():
    helpers: list[Helper] = []

    def start(*argv: str, tty: bool = False, silent: bool = False, encoding: str | None = "utf-8") -> Process:
        helper = Helper(argv, tty=tty, silent=silent)
        helpers.append(helper)
        process = Process(
            argv, helper.status, pid=helper.popen.pid, helper=helper, encoding=encoding, **helper.fds
        )
        processes.append(process)
        return process

    processes: list[Process] = []
    yield start
    for process in processes:
        process.close()
    for helper in helpers:
        helper.close()


def test_communicate_returns_both_streams(start):
    """
    Input goes in, both streams come back as text, the exit code is known.
    """
    process = start("sh", "-c", "cat; echo problem >&2; exit 3")
    assert ("grüße\n", "problem\n") == process.communicate("grüße\n")
    assert 3 == process.exit_code
    assert 3 == process.returncode
    assert 3 == process.wait()


def test_communicate_with_bytes(start):
    """
    Without an encoding everything is bytes, unchanged.
    """
    data = bytes(range(256))
    assert (data, b"") == start("cat", encoding=None).communicate(data)


def test_text_is_not_translated(start):
    """
    Line ends stay what they are, and bytes that are no text do not raise.
    """
    assert ("a\r\nb\rc\n\ufffd", "") == start("printf", r"a\r\nb\rc\n\377").communicate()


def test_large_exchange_does_not_deadlock(start):
    """
    Megabytes in and out on both streams pass at the same time.
    """
    data = os.urandom(1 << 21)
    out, err = start("sh", "-c", "tee /dev/stderr", encoding=None).communicate(data)
    assert data == out
    assert data == err


@pytest.mark.parametrize("mode", ["rb", "r"])
def test_input_from_a_file(start, tmp_path, mode):
    """
    A file object, binary or text, is read as the process takes it.
    """
    path = tmp_path / "input"
    path.write_text("é" * 300_000, encoding="utf-8")
    options = {} if mode == "rb" else {"encoding": "utf-8"}
    with path.open(mode, **options) as file:
        assert "é" * 300_000 == start("cat").communicate(file)[0]


def test_input_that_nobody_reads(start):
    """
    A process that ends without reading its input is no error.
    """
    assert ("done\n", "") == start("echo", "done").communicate("x" * (1 << 20))


def test_input_of_wrong_type(start):
    """
    Input that is no bytes, text or file is a TypeError that names it.
    """
    process = start("cat")
    with pytest.raises(TypeError, match="input: expected bytes, str or a file object, not int"):
        process.communicate(5)


def test_timeout_kills_and_carries_output(start):
    """
    A process that takes too long is killed; the error has what it printed.
    """
    process = start("sh", "-c", "echo early; echo bad >&2; exec sleep 60")
    assert "early\n" == process.stdout.readline()
    with pytest.raises(ContainerTimeout, match=r"box: .*sleep 60.*still running after 0.05 s") as caught:
        process.communicate(timeout=0.05)
    assert "bad\n" == caught.value.stderr
    assert 128 + signal.SIGKILL == process.wait(10)


def test_timeout_calls_back(start):
    """
    The caller may say what happens when the time is up.
    """
    process = start("sleep", "60")
    called: list[bool] = []
    with pytest.raises(ContainerTimeout) as caught:
        process.communicate(timeout=0.01, on_timeout=lambda: called.append(True))
    assert [True] == called
    assert "" == caught.value.stdout
    process.kill()


def test_timeout_amid_input(start):
    """
    Input that does not fit holds nothing up.
    """
    process = start("sleep", "60")
    with pytest.raises(ContainerTimeout):
        process.communicate(b"x" * (1 << 20), timeout=0.02)


def test_survivors_do_not_hold_the_result(start):
    """
    A background process that keeps the output open delays nothing for long.
    """
    process = start("sh", "-c", "echo main; sleep 60 & echo $!")
    begin = time.monotonic()
    lines = process.communicate()[0].split()
    os.kill(int(lines[1]), signal.SIGKILL)
    assert "main" == lines[0]
    assert 10 > time.monotonic() - begin


def test_output_right_after_the_end_is_kept(start):
    """
    What a child prints just after its parent ended belongs to the result.
    """
    process = start("sh", "-c", "(while kill -0 $$ 2>/dev/null; do :; done; echo late) & echo main")
    assert "main\nlate\n" == process.communicate()[0]


def test_streams_are_files(start):
    """
    Writing and reading by lines works as with subprocess.
    """
    with start("cat") as process:
        process.stdin.write("one\n")
        assert "one\n" == process.stdout.readline()
        print("two", file=process.stdin)
        process.stdin.close()
        assert ["two\n"] == list(process.stdout)
    assert 0 == process.exit_code


def test_poll_and_wait(start):
    """
    poll() is None while the process runs; wait() can time out.
    """
    process = start("cat")
    assert process.poll() is None
    assert process.exit_code is None
    with pytest.raises(ContainerTimeout, match=r"still running after 0.01 s"):
        process.wait(0.01)
    process.stdin.close()
    assert 0 == process.wait(10)


def test_signals(start):
    """
    A signal reaches the process, also while another thread waits for the end.
    """
    process = start("sleep", "60")
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(process.wait()))
    waiter.start()
    while not process._lock.locked():
        pass
    assert process.poll() is None
    process.terminate()
    waiter.join()
    assert [128 + signal.SIGTERM] == found
    process.kill()  # nobody is there any more


def test_lost_exit_code_is_said(start):
    """
    A helper that is killed leaves no exit code, and none is made up.
    """
    process = start("true", silent=True)
    with pytest.raises(ExitCodeLost, match="box: the helper of process"):
        process.wait(10)
    with pytest.raises(ExitCodeLost):
        process.poll()


def test_block_that_fails_kills(start):
    """
    An exception in a with block ends the process.
    """
    with pytest.raises(KeyError), start("sleep", "60") as process:
        raise KeyError
    assert 128 + signal.SIGKILL == process.exit_code


def test_terminal(start):
    """
    On a terminal the process sees one, of the size it is given, and its output ends.
    """
    process = start("sh", "-c", "read size; test -t 0 && stty size", tty=True)
    process.resize(30, 100)
    process.stdin.write("go\n")
    assert process.stdout.read().endswith("30 100\r\n")
    assert 0 == process.wait(10)
    assert process.stderr is None


def test_communicate_on_a_terminal(start):
    """
    Typed input ends as it would by ctrl-d, with or without a last newline.
    """
    for text in ("one\n", "one"):
        out, err = start("sh", "-c", "stty -echo; echo; exec cat", tty=True, encoding=None).communicate(text)
        assert out.replace(b"\r\n", b"\n").endswith(text.encode())
        assert b"" == err


def test_no_terminal_to_resize(start):
    """
    Resizing a process without a terminal is an error that says how to have one.
    """
    with pytest.raises(ValueError, match="tty=True"):
        start("true").resize(1, 1)


def test_unfinished_process_warns():
    """
    A process that is dropped without waiting says so.
    """
    helper = Helper(["cat"])
    process = Process(("cat",), helper.status, pid=helper.popen.pid, **helper.fds)
    with pytest.warns(ResourceWarning, match=r"unfinished <Process \d+ of box"):
        del process
        gc.collect()
    helper.close()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.binary(max_size=70_000), max_size=4))
def test_exchange_passes_any_pieces(pieces):
    """
    Whatever goes in comes out, read from a file in pieces.
    """
    helper = Helper(["cat"])
    data = b"".join(pieces)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        done = exchange(helper.status, **helper.fds, input=file, deadline=Deadline(30))
    assert data == done.stdout
    assert done.state is not None
    assert 0 == done.state.exit_code
    os.close(helper.fds["stdout"])
    os.close(helper.fds["stderr"])
    helper.close()


def test_exchange_with_nothing_costs_little():
    """
    With nothing to pass, an exchange takes at most 100 microseconds in the median.
    """
    times = []
    for _ in range(200):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        status = MonitorClient(near.detach())
        inputs, outputs, errors = os.pipe(), os.pipe(), os.pipe()
        os.close(outputs[1])
        os.close(errors[1])
        far.send(struct.pack("ii", Msg.EXITED, 0))
        begin = time.perf_counter()
        exchange(status, stdin=inputs[1], stdout=outputs[0], stderr=errors[0], input=None)
        times.append(time.perf_counter() - begin)
        for fd in (inputs[0], outputs[0], errors[0]):
            os.close(fd)
        status.close()
        far.close()
    assert 100e-6 > sorted(times)[100]


def test_standard_input_of_bytes_is_unbuffered(start):
    """
    Without an encoding a write reaches the process at once.
    """
    with start("cat", encoding=None) as process:
        assert isinstance(process.stdin, io.RawIOBase)
        process.stdin.write(b"x")
        assert b"x" == process.stdout.read(1)
