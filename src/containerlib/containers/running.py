# SPDX-License-Identifier: Apache-2.0
"""
Run to the end and remove: the road behind ``containerlib.run``.

The command's streams are pipes that this process holds, so nothing is logged
and nothing is copied on the way.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

from containerlib.containers import creation, ending, starting
from containerlib.errors import (
    CommandFailed,
    ContainerlibError,
    ContainerNotFound,
    ContainerTimeout,
    ExitCodeLost,
    InvalidOption,
)
from containerlib.runtime.attachment import Attachment
from containerlib.runtime.client import Deadline, MonitorGone
from containerlib.runtime.exchange import check as check_exchange
from containerlib.runtime.exchange import exchange
from containerlib.shim import forks
from containerlib.types import Completed

if TYPE_CHECKING:
    from containerlib.engine import Engine
    from containerlib.images.model import ImageRecord
    from containerlib.runtime.exchange import Exchanged, Input
    from containerlib.runtime.launch import Started
    from containerlib.shim import State
    from containerlib.types import ContainerConfig, ContainerOptions
    from containerlib.types.parsing import Command


def run(
    engine: Engine,
    image: ImageRecord | str,
    command: Command | None,
    options: ContainerOptions,
    *,
    input: Input | None,
    check: bool,
    timeout: float | None,
    encoding: str | None,
    hide: tuple[str, ...] = (),
) -> Completed[Any]:
    """
    Run *command* in a new container, wait for its end, remove the container.
    """
    if options.get("detach"):
        message = "detach=True contradicts run(), which waits: use Container.run(..., detach=True)"
        raise InvalidOption(message, subject="detach")
    input = check_exchange(input, timeout, encoding)
    settled: ContainerOptions = {**options, "auto_remove": True}
    id_ = creation.new_id()
    try:
        config = creation.create(engine, image, command, settled, detach=False, hide=hide, id=id_)
        state, stdout, stderr = _execute(engine, config, input, timeout, encoding or "utf-8")
    except ContainerTimeout as error:
        error.stdout = _decode(error.stdout, encoding)
        error.stderr = _decode(error.stderr, encoding)
        raise
    except BaseException:
        discard(engine, id_)
        raise
    return _completed(config, state, _decode(stdout, encoding), _decode(stderr, encoding), check=check)


def discard(engine: Engine, id: str) -> None:
    """
    Remove what a failed start left; an interrupt may come at any point.
    """
    with contextlib.suppress(ContainerlibError):
        ending.remove(engine, id, force=True)


def _execute(
    engine: Engine, config: ContainerConfig, input: Input | None, timeout: float | None, encoding: str
) -> tuple[State | None, bytes, bytes]:
    if config.tty:
        started = starting.start(engine, config, attached=True)
        return _follow_terminal(engine, config, started, input=input, timeout=timeout, encoding=encoding)
    with contextlib.ExitStack() as ours:
        feed = ours.enter_context(contextlib.ExitStack())
        with contextlib.ExitStack() as theirs:
            stdin_read = stdin_write = -1
            if input is not None:
                stdin_read, stdin_write = _pipe(theirs, feed)
            stdout_read, stdout_write = _pipe(ours, theirs)
            stderr_read, stderr_write = _pipe(ours, theirs)
            started = starting.start(engine, config, streams=(stdin_read, stdout_write, stderr_write))
        ours.callback(started.status.close)
        feed.pop_all()  # exchange closes it when the input is used up
        try:
            done = exchange(
                started.status,
                stdin=stdin_write if stdin_write >= 0 else None,
                stdout=stdout_read,
                stderr=stderr_read,
                input=input,
                encoding=encoding,
                deadline=Deadline(timeout),
            )
        except ContainerTimeout as error:
            raise _end_late(engine, config, started, error, timeout) from None
        _finish(engine, config, started, done)
        return done.state, done.stdout, done.stderr


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """
    A pipe, each end closed by its own stack.
    """
    ends = forks.pipe()
    reader.callback(forks.close, ends[0])
    writer.callback(forks.close, ends[1])
    return ends


def _finish(engine: Engine, config: ContainerConfig, started: Started, done: Exchanged | None) -> None:
    """
    Wait until the monitor has removed the container and is gone.
    """
    started.status.close()
    starting.forget(config.id)
    if done is not None and done.state is None:
        # The monitor was killed: it removed nothing.
        discard(engine, config.id)


def _end_late(
    engine: Engine,
    config: ContainerConfig,
    started: Started,
    error: ContainerTimeout,
    timeout: float | None,
) -> ContainerTimeout:
    with contextlib.suppress(MonitorGone, ContainerTimeout):
        started.status.kill(signal.SIGKILL)
    _finish(engine, config, started, None)
    with contextlib.suppress(ContainerNotFound):
        ending.remove(engine, config.id, force=True)
    words = " ".join(config.args)
    message = f"container {config.name}: {words!r:.200}: not done after {timeout} s, killed"
    return ContainerTimeout(message, subject=config.name, stdout=error.stdout, stderr=error.stderr)


def _follow_terminal(
    engine: Engine,
    config: ContainerConfig,
    started: Started,
    *,
    input: Input | None,
    timeout: float | None,
    encoding: str,
) -> tuple[State | None, bytes, bytes]:
    """
    A terminal's output comes through the monitor, all of it as stdout.
    """
    deadline = Deadline(timeout)
    output: list[bytes] = []
    with Attachment(started.status, request=False) as attachment:
        if input is not None and attachment.stdin is not None:
            data = (
                input
                if isinstance(input, bytes)
                else (input.encode(encoding) if isinstance(input, str) else b"".join([input.read()]))
            )
            attachment.stdin.write(data)
        try:
            while (piece := attachment.read(deadline.remaining())) is not None:
                output.append(piece[1])
        except ContainerTimeout as error:
            error.stdout, error.stderr = b"".join(output), b""
            raise _end_late(engine, config, started, error, timeout) from None
        state = attachment.state
    starting.forget(config.id)
    if state is None:
        discard(engine, config.id)
    return state, b"".join(output), b""


def _decode(data: str | bytes | None, encoding: str | None) -> Any:
    if data is None or isinstance(data, str) or encoding is None:
        return data
    return data.decode(encoding, "replace")


def _completed(
    config: ContainerConfig, state: State | None, stdout: Any, stderr: Any, *, check: bool
) -> Completed[Any]:
    if state is None:
        message = f"container {config.name}: its monitor was killed, the exit code is lost"
        raise ExitCodeLost(message, subject=config.name)
    if check and state.exit_code != 0:
        raise command_failed(config.name, config.args, state.exit_code, stdout, stderr, oom=state.oom_killed)
    return Completed(args=config.args, exit_code=state.exit_code, stdout=stdout, stderr=stderr)


def stop_and_remove(engine: Engine, id: str) -> None:
    """
    The end of a ``with`` block: whatever happened to the container before.

    An interrupt, and whatever else goes wrong, ends the grace period.
    """
    try:
        with contextlib.suppress(MonitorGone, ContainerNotFound):
            ending.stop(engine, id, timeout=None)
    except BaseException:
        discard(engine, id)
        raise
    with contextlib.suppress(ContainerNotFound):
        ending.remove(engine, id, force=True)


def command_failed(
    name: str, args: tuple[str, ...], exit_code: int, stdout: Any, stderr: Any, *, oom: bool = False
) -> CommandFailed:
    """
    The error of a command that ended with another code than 0.
    """
    words = " ".join(args)
    tail = stderr if isinstance(stderr, str) else (stderr or b"").decode(errors="replace")
    reason = " (out of memory)" if oom else ""
    message = f"container {name}: {words!r:.300} ended with exit code {exit_code}{reason}"
    if tail.strip():
        message += f": {tail.strip()[-500:]}"
    return CommandFailed(message, args=args, exit_code=exit_code, stdout=stdout, stderr=stderr, subject=name)
