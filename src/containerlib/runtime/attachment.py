# SPDX-License-Identifier: Apache-2.0
"""
The streams of a container's main process, as file objects or as one sequence.

Whoever needs one stream's bytes while the other's arrive keeps those for
later.  Threads may share an attachment: one of them receives for all, the
others wait until it has something for them.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from containerlib.errors import ContainerTimeout, ExitCodeLost, KernelError
from containerlib.runtime.client import Message, MonitorClient, MonitorGone, exit_state
from containerlib.shim import MSG_MAX, Attach, Msg, State

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from 3.12 on

Stream = Literal["stdout", "stderr"]

DETACH_TIMEOUT = 1.0  # a process that does not read its input must not hold those who leave

_STREAMS: dict[int, Stream] = {Msg.STDOUT: "stdout", Msg.STDERR: "stderr"}


class _Receiver:
    """
    What has come over one connection and was not taken yet.

    Apart from the attachment, so that its files do not refer back to it: one
    that is dropped open is noticed at once.
    """

    def __init__(self, client: MonitorClient) -> None:
        self.client = client
        self.condition = threading.Condition()
        self.receiving = False
        self.finished = False
        self.arrived: deque[tuple[Stream, bytes]] = deque()
        self.state: State | None = None

    def take_now(self) -> tuple[Stream, bytes] | None:
        """
        The oldest piece that is here already.
        """
        with self.condition:
            while not self.arrived and not self.finished and not self.receiving:
                message = self.client.receive_now()
                if message is None and not self.client.ended:
                    return None
                self._note(message)
            return self.arrived.popleft() if self.arrived else None

    def take(self, wanted: Stream | None, timeout: float | None) -> tuple[Stream, bytes] | None:
        """
        The oldest piece of the *wanted* stream, or of any; None at the end.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with self.condition:
                piece = self._pop(wanted)
                if piece is not None or self.finished:
                    return piece
                left = None if limit is None else max(0.0, limit - time.monotonic())
                if self.receiving:
                    if not self.condition.wait(left):
                        raise self._too_late(timeout)
                    continue
                self.receiving = True
            received = False
            message = None
            try:
                message = self.client.receive(left)
                received = True
            except ContainerTimeout:
                raise self._too_late(timeout) from None
            finally:
                with self.condition:
                    self.receiving = False
                    if received:
                        self._note(message)
                    self.condition.notify_all()

    def detach(self, *, wait: bool) -> None:
        """
        Say that this end leaves, and *wait* until what was sent before was read.

        A monitor that meets a closed connection while it sends output drops
        it, with what it did not read yet.
        """
        with self.condition:
            wait = wait and not self.receiving
            self.receiving = self.receiving or wait
        if not wait:
            self.client.send_now(Msg.DETACH)
            return
        try:
            self.client.request(Msg.DETACH, timeout=DETACH_TIMEOUT)
        finally:
            with self.condition:
                self.receiving = False

    def _pop(self, wanted: Stream | None) -> tuple[Stream, bytes] | None:
        if wanted is None:
            return self.arrived.popleft() if self.arrived else None
        for index, piece in enumerate(self.arrived):
            if piece[0] == wanted:
                del self.arrived[index]
                return piece
        return None

    def _note(self, message: Message | None) -> None:
        """
        Act on one message; the caller holds the condition.
        """
        if message is None:
            self.finished = True
        elif message.type in _STREAMS:
            self.arrived.append((_STREAMS[message.type], message.payload))
        elif message.type == Msg.EXITED:
            # A restart policy may start it anew; as with docker, an attachment ends here.
            self.state = exit_state(message)
            self.finished = True

    def _too_late(self, timeout: float | None) -> ContainerTimeout:
        subject = self.client.subject
        return ContainerTimeout(f"{subject}: printed nothing within {timeout} s", subject=subject)


class Attachment:
    """
    A live connection to the main process's standard streams.

    Starts with what the process prints from now on; what it printed before is
    in the logs.  Iteration gives ``(stream, bytes)`` until the process ends;
    ``stdout`` and ``stderr`` are binary file objects for one stream alone
    (a terminal's output is all ``stdout``), ``stdin`` takes bytes at once.
    Closing an attachment does not touch the process.  This class has no public
    constructor: :meth:`Container.attach` makes one.
    """

    def __init__(
        self,
        client: MonitorClient,
        *,
        stdin: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        request: bool = True,
    ) -> None:
        self._client = client
        self._receiver = _Receiver(client)
        streams = (
            (Attach.STDIN if stdin else Attach(0))
            | (Attach.STDOUT if stdout else Attach(0))
            | (Attach.STDERR if stderr else Attach(0))
        )
        if request:  # the client that a container started with is attached already
            client.attach(streams)
        self.stdin = StandardInput(client) if stdin else None
        self.stdout = io.BufferedReader(_Output(self._receiver, "stdout")) if stdout else None
        self.stderr = io.BufferedReader(_Output(self._receiver, "stderr")) if stderr else None

    def fileno(self) -> int:
        """
        A descriptor that is readable when something has arrived.

        Call :meth:`read_now` until it gives None before each wait.
        """
        return self._client.fileno()

    @property
    def exit_code(self) -> int | None:
        """
        The exit code, once the process's end was seen here.
        """
        state = self._receiver.state
        return None if state is None else state.exit_code

    @property
    def state(self) -> State | None:
        """
        All that the monitor told about the end, once it was seen here.
        """
        return self._receiver.state

    @property
    def finished(self) -> bool:
        """
        Whether everything was received and the process has ended.
        """
        return self._receiver.finished

    @property
    def closed(self) -> bool:
        """
        Whether :meth:`close` was called.
        """
        return self._client.closed

    def read(self, timeout: float | None = None) -> tuple[Stream, bytes] | None:
        """
        The next piece of output; None once the process has ended.

        Raises:
            ContainerTimeout: Nothing came in *timeout* seconds.
        """
        return self._receiver.take(None, timeout)

    def read_now(self) -> tuple[Stream, bytes] | None:
        """
        A piece of output that is already here, or None; see :attr:`finished`.
        """
        return self._receiver.take_now()

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for the end, dropping output, and return the exit code.

        Raises:
            ContainerTimeout: It has not come after *timeout* seconds.
            ExitCodeLost: It has come, and nobody saw how.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while (
            self._receiver.take(None, None if limit is None else max(0.0, limit - time.monotonic()))
            is not None
        ):
            pass
        state = self._receiver.state
        if state is None:
            message = f"container {self._client.subject}: its monitor was killed, the exit code is not known"
            raise ExitCodeLost(message, subject=self._client.subject)
        return state.exit_code

    def __iter__(self) -> Iterator[tuple[Stream, bytes]]:
        while (piece := self.read()) is not None:
            yield piece

    def write_now(self, data: bytes) -> int:
        """
        Pass on what the monitor takes of *data* without waiting: 0 for nothing.
        """
        piece = data[:MSG_MAX]
        if self.stdin is not None:
            self.stdin.used = True
        return len(piece) if self._client.send_now(Msg.STDIN, 0, piece) else 0

    def resize(self, rows: int, columns: int) -> None:
        """
        Give the process's terminal that size.
        """
        self._client.resize(rows, columns)

    def close(self) -> None:
        """
        Leave the process alone; again does nothing.
        """
        if not self._receiver.finished and not self._client.closed:
            # On purpose: a connection that breaks may be the end of the process's input.
            with contextlib.suppress(MonitorGone, KernelError, ContainerTimeout):
                self._receiver.detach(wait=self.stdin is not None and self.stdin.used)
        with self._receiver.condition:
            self._receiver.finished = True
            self._receiver.condition.notify_all()
        # A thread that is inside stdout.read() holds that file's lock: wake it before closing the file.
        self._client.shut_down()
        if self.stdin is not None:
            self.stdin.detach()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_client") and not self._client.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "finished" if self._receiver.finished else "open"
        return f"<Attachment to {self._client.subject}, {state}>"


class StandardInput(io.RawIOBase):
    """
    The writing end of a container's standard input, without a buffer.

    Closing it is the end of file for the process.
    """

    def __init__(self, client: MonitorClient) -> None:
        super().__init__()
        self._client: MonitorClient | None = client
        self.used = False

    def writable(self) -> bool:
        """
        True: bytes go in here.
        """
        return True

    def write(self, data: Buffer, /) -> int:
        """
        Pass all of *data* on, in as many messages as it takes.
        """
        if self.closed or self._client is None:
            raise ValueError("write to a closed standard input")
        view = memoryview(data).cast("B")
        self.used = True
        for start in range(0, len(view), MSG_MAX):
            self._client.send(Msg.STDIN, 0, view[start : start + MSG_MAX])
        return len(view)

    def detach(self) -> None:
        """
        Close without an end of file for the process.
        """
        self._client = None
        super().close()

    def close(self) -> None:
        """
        Tell the process that nothing more comes.
        """
        if not self.closed:
            client, self._client = self._client, None
            self.used = True
            super().close()
            if client is not None and not client.closed:
                with contextlib.suppress(MonitorGone):  # then it has no reader either
                    client.send(Msg.STDIN_EOF)


class _Output(io.RawIOBase):
    """
    One output stream as a raw file.
    """

    def __init__(self, receiver: _Receiver, stream: Stream) -> None:
        super().__init__()
        self._receiver = receiver
        self._stream = stream
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """
        True: bytes come out here.
        """
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """
        Fill *buffer* with what has come, waiting for the first byte of it.
        """
        view = memoryview(buffer).cast("B")
        if not self._rest and len(view):
            piece = self._receiver.take(self._stream, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece[1])
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
