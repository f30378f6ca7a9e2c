# SPDX-License-Identifier: Apache-2.0
"""
What a container does and says: the half of Container that is about its
processes and their streams.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, overload

from containerlib.containers import ending, observing, processes, running, waiting
from containerlib.containers.described import Described
from containerlib.errors import Conflict, ContainerTimeout
from containerlib.runtime import exec as run_inside
from containerlib.runtime import follow, logs
from containerlib.runtime.attachment import Attachment
from containerlib.runtime.client import MonitorGone
from containerlib.runtime.exchange import check as check_exchange
from containerlib.types import Completed, parse_command, parse_environment, parse_user
from containerlib.types.parsing import parse_working_dir

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib.runtime.exchange import Input
    from containerlib.runtime.logs import Bound
    from containerlib.runtime.process import Process
    from containerlib.runtime.terminal import File
    from containerlib.types import LogLine, ProcessInfo, Stats
    from containerlib.types.environment import Environment
    from containerlib.types.parsing import Command


class Inside(Described):
    """
    Processes and streams of one container.
    """

    @property
    def _directory(self) -> Path:
        return self._engine.store.containers.path(self._id)

    # ---- processes ----------------------------------------------------------

    @overload
    def exec(
        self,
        command: Command,
        *,
        input: Input | None = None,
        user: str | int | None = None,
        environment: Environment | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        tty: bool = False,
        privileged: bool = False,
        check: bool = True,
        timeout: float | None = None,
        encoding: str = "utf-8",
    ) -> Completed[str]: ...

    @overload
    def exec(
        self,
        command: Command,
        *,
        input: Input | None = None,
        user: str | int | None = None,
        environment: Environment | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        tty: bool = False,
        privileged: bool = False,
        check: bool = True,
        timeout: float | None = None,
        encoding: None,
    ) -> Completed[bytes]: ...

    def exec(
        self,
        command: Command,
        *,
        input: Input | None = None,
        user: str | int | None = None,
        environment: Environment | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        tty: bool = False,
        privileged: bool = False,
        check: bool = True,
        timeout: float | None = None,
        encoding: str | None = "utf-8",
    ) -> Completed[Any]:
        """
        Run *command* in the container and wait for its end.

        Raises:
            CommandFailed: It ended with another code than 0 and *check* is true.
            ContainerTimeout: It was killed after *timeout* seconds; carries the
                output so far.
            CommandNotFound: There is no such command inside.
            Conflict: The container does not run.
        """
        input = check_exchange(input, timeout, encoding)
        process = self._start(
            command,
            user=user,
            environment=environment,
            working_dir=working_dir,
            tty=tty,
            privileged=privileged,
            stdin=input is not None,
            encoding=encoding,
        )
        with process:
            stdout, stderr = process.communicate(input, timeout)
            code = process.wait()
        empty: str | bytes = b"" if encoding is None else ""
        stderr = empty if stderr is None else stderr
        if check and code != 0:
            raise running.command_failed(self.config.name, process.args, code, stdout, stderr)
        return Completed(args=process.args, exit_code=code, stdout=stdout, stderr=stderr)

    def popen(
        self,
        command: Command,
        *,
        user: str | int | None = None,
        environment: Environment | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        tty: bool = False,
        size: tuple[int, int] = (0, 0),
        privileged: bool = False,
        stdin: bool = True,
        detach: bool = False,
        encoding: str | None = "utf-8",
    ) -> Process:
        """
        Start *command* in the container; its streams are the Process's files.

        With *tty* it has a terminal of its own, *size* rows and columns.  It
        is killed when this process ends, unless *detach* is true.
        """
        check_exchange(None, None, encoding)
        return self._start(
            command,
            user=user,
            environment=environment,
            working_dir=working_dir,
            tty=tty,
            size=size,
            privileged=privileged,
            stdin=stdin,
            owned=not detach,
            encoding=encoding,
        )

    def _start(
        self,
        command: Command,
        *,
        user: str | int | None,
        environment: Environment | None,
        working_dir: str | os.PathLike[str] | None,
        tty: bool,
        privileged: bool,
        stdin: bool,
        encoding: str | None,
        size: tuple[int, int] = (0, 0),
        owned: bool = True,
    ) -> Process:
        config = self.config
        variables = dict(config.environment)
        if tty:
            variables.setdefault("TERM", "xterm")
        for key, value in parse_environment(environment or {}).items():
            if value is None:
                variables.pop(key, None)
            else:
                variables[key] = value
        with processes.target(self._engine, config) as target:
            return run_inside.start_process(
                target,
                parse_command(command),
                environment=variables,
                user=config.user if user is None else parse_user(user),
                working_dir=config.working_dir if working_dir is None else parse_working_dir(working_dir),
                tty=tty,
                size=size,
                privileged=privileged,
                stdin=stdin,
                owned=owned,
                encoding=encoding,
            )

    def call(self, function: Callable[..., Any], /, *args: Any, trusted: bool = False, **kwargs: Any) -> Any:
        """
        Run a Python function in the container and return its value, or raise
        what it raised; what it prints goes to this process's standard error.

        The container needs a ``python3``.  What comes back is data of known
        types only: the container is not trusted to name classes to this
        process.  With *trusted* results are unpickled, which lets the
        container run code here.

        Raises:
            RemoteError: It raised what cannot be raised here, or gave no answer.
        """
        from containerlib.runtime import remote

        call = remote.prepare(function, args, kwargs, trusted=trusted)
        done = self.exec(call.argv, input=call.stdin, encoding=None, check=False)
        if done.stderr:
            sys.stderr.write(done.stderr.decode(errors="replace"))
        return call.interpret(done.stdout, exit_code=done.exit_code, stderr=done.stderr)

    def top(self) -> list[ProcessInfo]:
        """
        The container's processes, as the host sees them.
        """
        return processes.top(self._engine, self.config)

    def stats(self) -> Stats:
        """
        What the container has used up to now.
        """
        return processes.stats(self._engine, self.config)

    def follow_stats(self, interval: float = 1.0) -> Iterator[Stats]:
        """
        A sample each *interval* seconds until the container ends.
        """
        earlier = self.stats()
        yield earlier
        while True:
            try:
                with ending.connect(self._engine, self._id) as client:
                    client.wait_exit(interval)
                return
            except ContainerTimeout:
                pass
            except MonitorGone:
                return
            try:
                sample = self.stats()
            except Conflict:
                return
            yield sample.since(earlier)
            earlier = sample

    # ---- streams ------------------------------------------------------------

    def logs(
        self,
        *,
        tail: int | None = None,
        since: Bound | None = None,
        until: Bound | None = None,
        timestamps: bool = False,
        stdout: bool = True,
        stderr: bool = True,
    ) -> str:
        """
        What the container has printed.

        *tail* counts lines from the end; *since* and *until* are a datetime,
        seconds since 1970, a timedelta or text like ``"10m"`` ago, or RFC 3339.
        """
        self._engine.store.containers.resolve(self._id)
        data = logs.read_logs(
            self._directory,
            tail=tail,
            since=since,
            until=until,
            timestamps=timestamps,
            stdout=stdout,
            stderr=stderr,
        )
        return data.decode(errors="replace")

    def follow_logs(
        self,
        *,
        tail: int | None = None,
        since: Bound | None = None,
        until: Bound | None = None,
        stdout: bool = True,
        stderr: bool = True,
        timeout: float | None = None,
    ) -> Iterator[LogLine]:
        """
        Lines as they are printed, until the container ends.
        """
        self._engine.store.containers.resolve(self._id)
        return follow.follow_logs(
            self._directory,
            waiting.log_watch(self._engine, self._id),
            tail=tail,
            since=since,
            until=until,
            stdout=stdout,
            stderr=stderr,
            timeout=timeout,
        )

    def attach(self, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> Attachment:
        """
        The live streams of the main process.

        While an attachment does not read, the container's output waits, as it
        would for the reader of a pipe.

        Raises:
            Conflict: The container does not run.
        """
        try:
            client = ending.connect(self._engine, self._id)
        except MonitorGone:
            raise self._not_attachable() from None
        if observing.observe(self._engine, self._id).status == "exited":
            # A monitor that cleans up still lets clients in.
            client.close()
            raise self._not_attachable()
        return Attachment(client, stdin=stdin, stdout=stdout, stderr=stderr)

    def _not_attachable(self) -> Conflict:
        state = observing.observe(self._engine, self._id)
        return ending.not_running(self.config.name, state.status, "attached to")

    def interact(
        self,
        detach_keys: str = "ctrl-p,ctrl-q",
        *,
        stdin: File | None = None,
        stdout: File | None = None,
        stderr: File | None = None,
    ) -> int | None:
        """
        Join this terminal to the container's main process until it ends;
        returns its exit code, or None when the detach keys left it running.
        """
        from containerlib.runtime import terminal

        config = self.config
        with self.attach(stdin=config.stdin_open) as attachment:
            size = terminal.terminal_size((stdout or sys.stdout).fileno()) if config.tty else None
            if size is not None:
                attachment.resize(*size)
            return terminal.interact(
                attachment,
                detach_keys=detach_keys,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                raw=config.tty,
            )

    def interact_exec(
        self,
        command: Command,
        detach_keys: str = "ctrl-p,ctrl-q",
        *,
        user: str | int | None = None,
        environment: Environment | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        privileged: bool = False,
        stdin: File | None = None,
        stdout: File | None = None,
    ) -> int | None:
        """
        Join this terminal to a new process, as ``docker exec -it`` does.
        """
        from containerlib.runtime import terminal

        size = terminal.terminal_size((stdout or sys.stdout).fileno()) or (0, 0)
        process = self.popen(
            command,
            user=user,
            environment=environment,
            working_dir=working_dir,
            privileged=privileged,
            tty=True,
            size=size,
            encoding=None,
        )
        with process:
            descriptor = process.terminal
            assert descriptor is not None  # tty=True gives one
            return terminal.interact_fd(
                descriptor, process.wait, detach_keys=detach_keys, stdin=stdin, stdout=stdout
            )
