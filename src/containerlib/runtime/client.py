# SPDX-License-Identifier: Apache-2.0
"""
Talking to a container's monitor.

A monitor listens on a SEQPACKET socket in its container's run directory; one
datagram is one message, a header of two integers and a payload.  A
:class:`MonitorClient` is one such connection.  Whatever it does waits with
poll(2), and never longer than it was told to.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import struct
import time
import warnings
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from containerlib.errors import ContainerlibError, ContainerTimeout, KernelError
from containerlib.shim import MSG_MAX, Attach, Msg, Restart, State, decode_state

_HEADER = struct.Struct("ii")
_PEER = struct.Struct("3i")
_TIMEVAL = struct.Struct("@ll")
_DESCRIPTORS = 4
_SIGKILL = 9
_UNANSWERED = (Msg.STDIN, Msg.STDIN_EOF)


class MonitorGone(ContainerlibError, ConnectionError):
    """
    Nobody monitors the container: it has ended, or its monitor was killed.

    The container's state file has the rest of the story.
    """


@attrs.frozen
class Message:
    """
    One datagram from the monitor.

    *type* is an integer that :class:`Msg` may not know: a newer monitor says
    more.  The receiver owns the descriptors in *fds*.
    """

    type: int
    arg: int = 0
    payload: bytes = b""
    fds: tuple[int, ...] = ()


class Deadline:
    """
    A moment on the monotonic clock; without seconds one that never comes.
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + max(0.0, seconds)

    def remaining(self) -> float | None:
        """
        Seconds left, not below 0; None when there is no end.
        """
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def milliseconds(self) -> int | None:
        """
        The same for poll(2), rounded up so that it does not spin at the end.
        """
        left = self.remaining()
        return None if left is None else min(int(left * 1000) + (left > 0), 2**31 - 1)

    @property
    def passed(self) -> bool:
        """
        Whether the moment has come.
        """
        return self._at is not None and time.monotonic() >= self._at


def wait_fd(fd: int, events: int, deadline: Deadline) -> bool:
    """
    Wait until *fd* has one of *events*; False when the deadline came first.
    """
    poller = select.poll()
    poller.register(fd, events)
    return bool(poller.poll(deadline.milliseconds()))


class MonitorClient:
    """
    One connection to a monitor.

    Get one with :meth:`connect`, or wrap a connected socket's descriptor,
    which then belongs to the client.  Messages that arrive while an answer
    is awaited are kept for :meth:`receive`.  Sending is safe from any thread;
    only one thread at a time may receive.
    """

    def __init__(self, fd: int, *, subject: str = "container") -> None:
        # Family and type are given: Python would ask the kernel for them with three system calls.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd)
        self._kept: deque[Message] = deque()
        self._ended = False
        # The monitor answers each message but input, in order: which answer is whose is counted.
        self._asked = 0
        self._answered = 0
        self.subject = subject

    @classmethod
    def connect(
        cls, run_dir: int | str | Path, *, timeout: float | None = 5.0, subject: str = "container"
    ) -> Self:
        """
        Connect to the monitor whose run directory is *run_dir*.

        Raises:
            MonitorGone: No monitor listens there.
            ContainerTimeout: One does, but its queue stayed full.
            KernelError: The socket belongs to somebody else.
        """
        if not isinstance(run_dir, int):
            try:
                fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise MonitorGone(f"{subject}: not running: no {run_dir}", subject=subject) from None
            try:
                return cls.connect(fd, timeout=timeout, subject=subject)
            finally:
                os.close(fd)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            if timeout is not None:
                # connect(2) has no poll: while the listener's queue is full it sleeps up to the send timeout.
                whole = int(timeout)
                limit = _TIMEVAL.pack(whole, max(1, int((timeout - whole) * 1e6)))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            # A socket's path has 108 bytes; through the descriptor any depth of directories will do.
            sock.connect(f"/proc/self/fd/{run_dir}/attach.sock")
            _check_peer(sock, subject)
            return cls(sock.detach(), subject=subject)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise MonitorGone(f"{subject}: not running: no monitor answers", subject=subject) from error
        except BlockingIOError as error:
            raise ContainerTimeout(
                f"{subject}: its monitor did not accept a connection within {timeout} s", subject=subject
            ) from error
        finally:
            sock.close()

    def fileno(self) -> int:
        """
        The socket's descriptor, for select(2) and its like.

        Messages kept while an answer was awaited do not make it readable:
        call ``receive(timeout=0)`` before waiting.
        """
        return self._socket.fileno()

    @property
    def closed(self) -> bool:
        """
        Whether the connection was closed on this side.
        """
        return self._socket.fileno() < 0

    def send(
        self, type: Msg, arg: int = 0, payload: bytes | memoryview = b"", *, timeout: float | None = None
    ) -> None:
        """
        Send one message, waiting for room in the monitor's queue.
        """
        deadline = Deadline(timeout)
        while not self.send_now(type, arg, payload):
            if not wait_fd(self._socket.fileno(), select.POLLOUT, deadline):
                raise ContainerTimeout(
                    f"{self.subject}: its monitor took no message within {timeout} s", subject=self.subject
                )

    def send_now(self, type: Msg, arg: int = 0, payload: bytes | memoryview = b"") -> bool:
        """
        Send one message unless that would have to wait; False in that case.
        """
        if len(payload) > MSG_MAX:
            raise ValueError(f"payload of {len(payload)} bytes, at most {MSG_MAX} fit in one message")
        header = _HEADER.pack(type, arg)
        try:
            self._socket.sendmsg([header, payload], (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError) as error:
            raise MonitorGone(f"{self.subject}: its monitor is gone", subject=self.subject) from error
        if type not in _UNANSWERED:
            self._asked += 1
        return True

    def receive(self, timeout: float | None = None) -> Message | None:
        """
        The next message; None when the monitor has left.

        Raises:
            ContainerTimeout: No message came in *timeout* seconds.
        """
        if self._kept:
            return self._kept.popleft()
        return self._receive(Deadline(timeout), timeout)

    def receive_now(self) -> Message | None:
        """
        A message that is already here, or None: see :attr:`ended`.
        """
        if self._kept:
            return self._kept.popleft()
        return None if self._ended else self._read()

    @property
    def ended(self) -> bool:
        """
        Whether the monitor has left and every message of it was taken.
        """
        return self._ended and not self._kept

    def _receive(self, deadline: Deadline, timeout: float | None) -> Message | None:
        while not self._ended:
            message = self._read()
            if message is not None:
                return message
            if not self._ended and not wait_fd(self._socket.fileno(), select.POLLIN, deadline):
                raise ContainerTimeout(
                    f"{self.subject}: its monitor sent nothing within {timeout} s", subject=self.subject
                )
        return None

    def _read(self) -> Message | None:
        """
        Take one datagram if there is one; note the end.
        """
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _HEADER.size + MSG_MAX,
                    socket.CMSG_SPACE(_DESCRIPTORS * 4),
                    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                )
            except BlockingIOError:
                return None
            except ConnectionResetError:
                # The monitor left with messages of ours unread.  The kernel says so once, ahead
                # of what it sent before: that is still in the queue.
                continue
            break
        fds = array.array("i")
        for level, kind, body in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(body[: len(body) - len(body) % fds.itemsize])
        if len(data) < _HEADER.size:
            for fd in fds:
                os.close(fd)
            self._ended = True
            return None
        type, arg = _HEADER.unpack_from(data)
        if type == Msg.ACK:
            self._answered += 1
        return Message(type, arg, data[_HEADER.size :], tuple(fds))

    def request(self, type: Msg, arg: int = 0, payload: bytes = b"", *, timeout: float | None = 30.0) -> None:
        """
        Send one message and wait for the monitor's word that it acts on it.

        Raises:
            KernelError: The monitor refused; carries its errno.
            MonitorGone: It left first.
        """
        deadline = Deadline(timeout)
        self.send(type, arg, payload, timeout=timeout)
        ours = self._asked
        while (message := self._receive(deadline, timeout)) is not None:
            if message.type != Msg.ACK:
                self._kept.append(message)
            elif self._answered < ours:
                continue  # to a message whose answer nobody awaits
            elif message.arg == 0:
                return
            else:
                raise KernelError(
                    f"{self.subject}: {type.name.lower()} refused by its monitor",
                    errno=message.arg,
                    stage="monitor",
                    subject=self.subject,
                )
        raise MonitorGone(f"{self.subject}: its monitor left before it answered", subject=self.subject)

    def stop(self, *, grace: float | None = None, signal: int = 0, timeout: float | None = 30.0) -> None:
        """
        Ask for the end: *signal*, and SIGKILL after *grace* seconds.

        Without them the container's own configuration holds.  Returns when
        the monitor has begun; :meth:`wait_exit` waits for the end.
        """
        self.request(Msg.STOP, _grace(grace), struct.pack("i", signal), timeout=timeout)

    def give_up(self) -> None:
        """
        Ask for the end at once, await no answer, and close the connection.
        """
        with contextlib.suppress(OSError, ContainerTimeout):  # closed, or the monitor is gone
            self.send(Msg.STOP, 0, struct.pack("i", _SIGKILL), timeout=1)
        self.close()

    def kill(self, signal: int, *, timeout: float | None = 30.0) -> None:
        """
        Send *signal* to the container's first process.
        """
        self.request(Msg.KILL, signal, timeout=timeout)

    def restart(self, *, grace: float | None = None, timeout: float | None = 30.0) -> None:
        """
        Stop the container as :meth:`stop` does and start it again.
        """
        self.request(Msg.RESTART, _grace(grace), timeout=timeout)

    def set_policy(self, policy: Restart, maximum: int = 0, *, timeout: float | None = 30.0) -> None:
        """
        Change when the monitor starts the container again.
        """
        self.request(Msg.POLICY, 0, struct.pack("ii", policy, maximum), timeout=timeout)

    def resize(self, rows: int, columns: int) -> None:
        """
        Give the container's terminal that size.
        """
        self.send(Msg.RESIZE, (rows & 0x7FFF) << 16 | columns & 0xFFFF)

    def watch(self, on: bool = True) -> None:
        """
        Ask for a note each time the log grows, or for no more of them.
        """
        self.send(Msg.WATCH, int(on))

    def attach(self, streams: Attach) -> None:
        """
        Ask for the main process's output, its input, or both.
        """
        self.send(Msg.ATTACH, streams)

    def wait_exit(self, timeout: float | None = None) -> State | None:
        """
        Wait until the container's first process has ended.

        None when the monitor left without a word: the state file may know
        more.  Messages other than the exit are dropped.
        """
        deadline = Deadline(timeout)
        while True:
            try:
                message = self.receive(deadline.remaining())
            except ContainerTimeout:
                raise ContainerTimeout(
                    f"{self.subject}: still running after {timeout} s", subject=self.subject
                ) from None
            if message is None:
                return None
            for fd in message.fds:
                os.close(fd)
            if message.type == Msg.EXITED:
                return exit_state(message)

    def shut_down(self) -> None:
        """
        End the connection for every thread that waits on it, but keep the
        descriptor's number taken.
        """
        with contextlib.suppress(OSError):  # not connected any more, or closed
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """
        End the connection; again does nothing.
        """
        for message in self._kept:
            for fd in message.fds:
                os.close(fd)
        self._kept.clear()
        if not self.closed:
            # The kernel tells the other end of messages unread here before it gives out ours, and
            # the monitor could miss what was sent last: take them.
            self.shut_down()
            with contextlib.suppress(OSError):
                while self._socket.recv(1, socket.MSG_DONTWAIT):
                    pass
        self._ended = True
        self._socket.close()

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
        if hasattr(self, "_socket") and not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._socket.close()

    def __repr__(self) -> str:
        return f"<MonitorClient of {self.subject}, {'closed' if self.closed else f'fd {self.fileno()}'}>"


def exit_state(message: Message) -> State:
    """
    What an EXITED message tells; the exit code at least.
    """
    state = decode_state(message.payload) if message.payload else None
    return State(exit_code=message.arg) if state is None else state


def _grace(seconds: float | None) -> int:
    """
    A grace period in milliseconds as the monitor takes it.
    """
    return -1 if seconds is None else min(max(0, int(seconds * 1000)), 2**31 - 1)


def _check_peer(sock: socket.socket, subject: str) -> None:
    """
    Refuse a listener that is neither this user's nor root's.
    """
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid not in (0, os.geteuid()):
        raise KernelError(
            f"{subject}: the monitor's socket belongs to user {uid}",
            errno=errno.EPERM,
            stage="monitor",
            subject=subject,
        )
