# SPDX-License-Identifier: Apache-2.0
"""
A process in a container, held like a :class:`subprocess.Popen`.

Its standard streams are pipes, or one terminal, that only this side and the
process hold; its end comes as a message over a socket to the helper that
started it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import struct
import termios
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from containerlib.errors import ContainerTimeout, ExitCodeLost
from containerlib.runtime.client import Deadline, MonitorClient, exit_state
from containerlib.runtime.exchange import END_OF_TRANSMISSION, Input, exchange
from containerlib.shim import Msg, State
from containerlib.types import parse_signal

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from 3.12 on


class Helper(Protocol):
    """
    The process that must be reaped when all is over.
    """

    def wait(self) -> int:
        """
        Reap it.
        """

    def poll(self) -> int | None:
        """
        Reap it if it has ended.
        """


_left: list[Helper] = []
"""
Helpers of processes that were closed before their end: reaped by the next one.
"""


class Process:
    """
    A process started in a container.

    *stdin*, *stdout* and *stderr* are file objects, text unless *encoding* was
    None; None for those that were not asked for.  On a terminal, *stdout* has
    all output.  Ending a ``with`` block closes *stdin* and waits, or kills the
    process if an exception ends it.  This class has no public constructor:
    :meth:`Container.popen` makes one.
    """

    def __init__(
        self,
        args: tuple[str, ...],
        status: MonitorClient,
        *,
        pid: int,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        terminal: int | None = None,
        helper: Helper | None = None,
        encoding: str | None = "utf-8",
        errors: str = "replace",
    ) -> None:
        for left in list(_left):
            if left.poll() is not None:
                with contextlib.suppress(ValueError):  # another thread was faster
                    _left.remove(left)
        self.args = args
        self.pid = pid
        self._status = status
        self._helper = helper
        self._encoding = encoding
        self._errors = errors
        self._lock = threading.Lock()
        self._state: State | None = None
        self._lost = False
        self._terminal = terminal
        if terminal is not None:
            self._stdin: io.RawIOBase | None = _TerminalFile(os.dup(terminal), writing=True)
            self._stdout: io.RawIOBase | None = _TerminalFile(os.dup(terminal), writing=False)
            self._stderr: io.RawIOBase | None = None
        else:
            self._stdin = None if stdin is None else io.FileIO(stdin, "wb")
            self._stdout = None if stdout is None else io.FileIO(stdout, "rb")
            self._stderr = None if stderr is None else io.FileIO(stderr, "rb")
        self.stdin = self._writer(self._stdin)
        self.stdout = self._reader(self._stdout)
        self.stderr = self._reader(self._stderr)

    def _writer(self, raw: io.RawIOBase | None) -> IO[Any] | None:
        if raw is None or self._encoding is None:
            return raw  # type: ignore[return-value]  # a binary file, and unbuffered: bytes go at once
        return io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=self._encoding,
            newline="\n",
            write_through=True,
            line_buffering=True,
        )

    def _reader(self, raw: io.RawIOBase | None) -> IO[Any] | None:
        if raw is None:
            return None
        buffered = io.BufferedReader(raw)
        if self._encoding is None:
            return buffered
        return io.TextIOWrapper(buffered, encoding=self._encoding, errors=self._errors, newline="\n")

    @property
    def exit_code(self) -> int | None:
        """
        The exit code, None while the process runs; 128 and more for a signal.
        """
        return self.poll()

    @property
    def returncode(self) -> int | None:
        """
        The same by the name that :mod:`subprocess` gives it.
        """
        return self.poll()

    def poll(self) -> int | None:
        """
        The exit code if the process has ended, else None.

        Raises:
            ExitCodeLost: It has ended, and nobody saw how.
        """
        if not self._lock.acquire(blocking=False):
            return None  # another thread waits for the end
        try:
            while self._state is None and not self._lost:
                message = self._status.receive_now()
                if message is None and not self._status.ended:
                    return None
                if message is None:
                    self._note_end(None)
                elif message.type == Msg.EXITED:
                    self._note_end(exit_state(message))
        finally:
            self._lock.release()
        return self._code()

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for the end and return the exit code.

        Raises:
            ContainerTimeout: *timeout* seconds have passed first.
            ExitCodeLost: It has ended, and nobody saw how.
        """
        with self._lock:
            if self._state is None and not self._lost:
                self._note_end(self._status.wait_exit(timeout))
        return self._code()

    def _note_end(self, state: State | None) -> None:
        self._state = state
        self._lost = state is None
        self._status.close()
        if self._helper is not None:
            self._helper.wait()

    def _code(self) -> int:
        if self._state is None:
            raise ExitCodeLost(
                f"{self._status.subject}: the helper of process {self.pid} was killed: its exit code is lost",
                subject=self._status.subject,
            )
        return self._state.exit_code

    def send_signal(self, signal: int | str) -> None:
        """
        Send *signal*, a number or a name, to the process; nothing happens when
        it has ended.
        """
        number = parse_signal(signal, option="signal")
        # No answer is awaited: another thread may be waiting for the end over the same connection.
        with contextlib.suppress(OSError):  # closed or gone: it has ended
            self._status.send(Msg.KILL, number)

    def kill(self) -> None:
        """
        End the process by SIGKILL.
        """
        self.send_signal(9)

    def terminate(self) -> None:
        """
        Ask the process by SIGTERM to end.
        """
        self.send_signal(15)

    @property
    def terminal(self) -> int | None:
        """
        The descriptor of the terminal's outer side, if there is one.
        """
        return self._terminal

    def resize(self, rows: int, columns: int) -> None:
        """
        Give the process's terminal that size.
        """
        if self._terminal is None:
            raise ValueError(f"{self.args[0]}: has no terminal to resize; start it with tty=True")
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def communicate(
        self,
        input: Input | None = None,
        timeout: float | None = None,
        *,
        on_timeout: Callable[[], object] | None = None,
    ) -> tuple[Any, Any]:
        """
        Feed *input*, read both streams to their ends, wait; return both.

        After *timeout* seconds the process is killed, or *on_timeout* called,
        and ContainerTimeout raised with what was read.
        """
        with self._lock:
            if self._state is not None or self._lost:
                return self._decode(self._drain(self._stdout)), self._decode(self._drain(self._stderr))
            stdin = None
            if self._stdin is not None and self._terminal is None and self.stdin is not None:
                self.stdin.flush()
                stdin = os.dup(self._stdin.fileno())
                self.stdin.close()
            try:
                done = exchange(
                    self._status,
                    stdin=stdin if self._terminal is None else self._terminal,
                    stdout=self._terminal if self._terminal is not None else _fileno(self._stdout),
                    stderr=_fileno(self._stderr),
                    input=input,
                    encoding=self._encoding or "utf-8",
                    deadline=Deadline(timeout),
                    terminal=self._terminal is not None,
                )
            except ContainerTimeout as error:
                late = ContainerTimeout(
                    f"{self._status.subject}: {' '.join(self.args)!r:.200}: still running after {timeout} s",
                    subject=self._status.subject,
                    stdout=self._decode(error.stdout),
                    stderr=self._decode(error.stderr),
                )
            else:
                self._note_end(done.state)
                return self._decode(done.stdout), self._decode(done.stderr)
        (on_timeout or self.kill)()
        raise late

    def _drain(self, raw: io.RawIOBase | None) -> bytes:
        return b"" if raw is None or raw.closed else raw.readall() or b""

    def _decode(self, data: bytes | str | None) -> Any:
        if isinstance(data, str) or self._encoding is None:
            return data
        return (data or b"").decode(self._encoding, self._errors)

    def close(self) -> None:
        """
        Close the streams and the connection, which ends the process unless it
        is detached.
        """
        if self._helper is not None and self._state is None and not self._lost:
            _left.append(self._helper)
            self._helper = None
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # a full or broken pipe: the bytes have no reader
                    stream.close()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
        self._status.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.stdin is not None:
                with contextlib.suppress(OSError):
                    self.stdin.close()
            if error is not None:
                self.kill()
            self.wait()
        finally:
            self.close()

    def __del__(self) -> None:
        if hasattr(self, "_terminal") and not self._status.closed:
            warnings.warn(f"unfinished {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = (
            "lost"
            if self._lost
            else "running"
            if self._state is None
            else f"exit code {self._state.exit_code}"
        )
        return f"<Process {self.pid} of {self._status.subject}: {' '.join(self.args)!r:.80}, {state}>"


def _fileno(raw: io.RawIOBase | None) -> int | None:
    return None if raw is None or raw.closed else raw.fileno()


class _TerminalFile(io.RawIOBase):
    """
    One direction of a terminal's outer side; closing the writer types the end of the file.
    """

    def __init__(self, fd: int, *, writing: bool) -> None:
        super().__init__()
        self._fd = fd
        self._writing = writing

    def fileno(self) -> int:
        """
        The descriptor.
        """
        return self._fd

    def readable(self) -> bool:
        """
        Whether this is the output.
        """
        return not self._writing

    def writable(self) -> bool:
        """
        Whether this is the input.
        """
        return self._writing

    def isatty(self) -> bool:
        """
        True.
        """
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """
        Fill *buffer* with what was printed; 0 when the process's side is closed.
        """
        view = memoryview(buffer).cast("B")
        try:
            return os.readv(self._fd, [view])
        except OSError as error:
            if error.errno == errno.EIO:
                return 0
            raise

    def write(self, data: Buffer, /) -> int:
        """
        Type *data*.
        """
        return os.write(self._fd, data)

    def close(self) -> None:
        """
        Close the descriptor.
        """
        if not self.closed:
            super().close()
            if self._writing:
                with contextlib.suppress(OSError):
                    os.write(self._fd, END_OF_TRANSMISSION)
            os.close(self._fd)
