# SPDX-License-Identifier: Apache-2.0
"""
The class Container.

It looks up, checks, and asks the rooms below; it holds no kernel detail and
remembers nothing but an engine and an id, so its attributes are always
current.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, overload

from containerlib.containers import creation, ending, observing, processes, running, starting, waiting
from containerlib.containers.groundwork import compile_cgroups
from containerlib.containers.inside import Inside
from containerlib.engine import Engine
from containerlib.errors import (
    Conflict,
    ContainerlibError,
    ContainerTimeout,
    ExitCodeLost,
    InvalidOption,
)
from containerlib.runtime import cgroups
from containerlib.runtime.client import Deadline, MonitorGone
from containerlib.shim import Restart
from containerlib.types import ContainerOptions, UpdateOptions, parse_signal, update_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from containerlib.image import Image
    from containerlib.runtime.conditions import HttpOption, LogOption, PortOption
    from containerlib.runtime.exchange import Input
    from containerlib.types import Completed
    from containerlib.types.parsing import Command


class Container(Inside):
    """
    A container: made by :meth:`run` and :meth:`create`, found by :meth:`get`
    and :meth:`list`.  This class has no public constructor.

    As a context manager it is stopped and removed at the end of the block.
    """

    def __init__(self, engine: Engine, id: str) -> None:
        self._engine = engine
        self._id = id

    # ---- making and finding -------------------------------------------------

    @classmethod
    def create(
        cls,
        image: str | Image,
        command: Command | None = None,
        *,
        engine: Engine | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Self:
        """
        Make a container that is not started; it outlives this process.

        Raises:
            ImageNotFound: There is no such image.
            Conflict: The name is taken.
            InvalidOption: An option's value cannot be used.
            NotSupported: The host cannot enforce what was asked for.
        """
        engine = engine or Engine.current()
        source, hide = creation.image_source(image)
        config = creation.create(engine, source, command, options, detach=True, hide=hide)
        return cls(engine, config.id)

    @classmethod
    def run(
        cls,
        image: str | Image,
        command: Command | None = None,
        *,
        engine: Engine | None = None,
        **options: Unpack[ContainerOptions],
    ) -> Self:
        """
        Make a container and start it.

        It belongs to this process, and is stopped and removed when this
        process ends, even by SIGKILL; with ``detach=True`` it lives on.

        Raises:
            StartFailed: Its first process cannot be executed.  An owned
                container is removed again, a detached one stays as created.
        """
        engine = engine or Engine.current()
        source, hide = creation.image_source(image)
        detach = bool(options.get("detach"))
        id_ = creation.new_id()
        try:
            config = creation.create(engine, source, command, options, detach=detach, hide=hide, id=id_)
            starting.start(engine, config).status.close()
        except BaseException:
            if not detach:
                running.discard(engine, id_)
            raise
        return cls(engine, id_)

    @classmethod
    def get(cls, name_or_id: str, *, engine: Engine | None = None) -> Self:
        """
        The container of that name, id, or beginning of an id.

        Raises:
            ContainerNotFound: There is none.
            Conflict: Several ids begin so.
        """
        engine = engine or Engine.current()
        return cls(engine, engine.store.containers.resolve(name_or_id))

    @classmethod
    def prune(cls, *, engine: Engine | None = None) -> list[str]:
        """
        Remove all containers that do not run; returns their ids.
        """
        return ending.prune(engine or Engine.current())

    @classmethod
    def list(
        cls,
        *,
        all: bool = False,
        last: int | None = None,
        status: str | Sequence[str] | None = None,
        name: str | None = None,
        labels: Mapping[str, str | None] | Sequence[str] | str | None = None,
        image: str | None = None,
        exit_code: int | None = None,
        health: str | None = None,
        engine: Engine | None = None,
    ) -> list[Self]:
        """
        Containers, newest first: those that run, with *all* also the others.

        *last* gives that many of the newest, whatever their status.  *name*
        is a part of the name; *labels* are ``"key"``, ``"key=value"`` or a
        mapping.  A filter on *status*, *exit_code* implies *all*.
        """
        engine = engine or Engine.current()
        ending.sweep_once(engine)
        from containerlib.containers.listing import Filter, select

        wanted = Filter.of(
            all=all, status=status, name=name, labels=labels, image=image, exit_code=exit_code, health=health
        )
        return [cls(engine, id_) for id_ in select(engine, wanted, last)]

    # ---- what it is ---------------------------------------------------------

    def __repr__(self) -> str:
        try:
            return f"<Container(name={self.name!r}, id={self.short_id!r}, status={self.status!r})>"
        except ContainerlibError:
            return f"<Container(id={self.short_id!r}, removed)>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Container):
            return NotImplemented
        return self._id == other._id and self._engine.root == other._engine.root

    def __hash__(self) -> int:
        return hash(self._id)

    # ---- its life -----------------------------------------------------------

    def start(self) -> None:
        """
        Start a container that does not run.

        Raises:
            Conflict: It runs already.
            StartFailed: Its first process cannot be executed.
        """
        starting.start(self._engine, self.config).status.close()

    def stop(self, timeout: float | None = None, *, signal: str | int | None = None) -> None:
        """
        Send the stop signal, and SIGKILL after *timeout* seconds (by default
        the container's ``stop_grace_period``, 10); wait for the end.

        Raises:
            Conflict: It does not run.
        """
        if timeout is not None and timeout < 0:
            raise InvalidOption(f"timeout={timeout!r}: 0 or more seconds", subject="timeout")
        number = parse_signal(signal, option="signal") if signal is not None else 0
        try:
            ending.stop(self._engine, self._id, timeout=timeout, signal=number)
        except MonitorGone:
            raise self._idle("stopped") from None

    def restart(self, timeout: float | None = None) -> None:
        """
        Stop the container if it runs, and start it.
        """
        try:
            ending.restart(self._engine, self._id, timeout=timeout)
        except MonitorGone:
            self.start()

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """
        Send *signal* to the first process.

        Raises:
            InvalidOption: There is no such signal.
            Conflict: The container does not run.
        """
        number = parse_signal(signal, option="signal")
        try:
            ending.kill(self._engine, self._id, number)
        except (MonitorGone, ProcessLookupError):
            raise self._idle("killed") from None

    def pause(self) -> None:
        """
        Freeze all processes.

        Raises:
            Conflict: It does not run, or is paused.
            NotSupported: No control group of this host can freeze.
        """
        state = processes.running_state(self._engine, self._id, self.name, doing="paused")
        if state.status == "paused":
            raise Conflict(f"container {self.name} is paused already", subject=self.name)
        cgroups.freeze(observing.directories(self._engine, self._id))

    def unpause(self) -> None:
        """
        Let the processes go on.
        """
        if self.status != "paused":
            message = f"container {self.name} is {self.status}: only a paused container can be unpaused"
            raise Conflict(message, subject=self.name)
        cgroups.thaw(observing.directories(self._engine, self._id))

    def remove(self, force: bool = False, volumes: bool = False) -> None:
        """
        Remove the container; with *force* one that runs is killed first.

        Anonymous volumes live in the container's own directory and go with
        it; *volumes* is taken for the day when they do not.
        """
        del volumes
        ending.remove(self._engine, self._id, force=force)

    def rename(self, name: str) -> None:
        """
        Give the container another name.

        Raises:
            Conflict: The name is taken.
        """
        self._engine.store.containers.rename(self._id, name)

    def update(self, **options: Unpack[UpdateOptions]) -> None:
        """
        Change limits and restart policy, of a running container at once.

        Raises:
            NotSupported: The host cannot enforce a limit.
        """
        engine = self._engine
        with engine.store.containers.lock(self._id):
            old = observing.read_config(engine, self._id)
            new = update_config(old, options)
            compile_cgroups(engine, new)
            if self.state.running:
                cgroups.update(observing.directories(engine, self._id, old), old.resources, new.resources)
            engine.store.containers.replace(self._id, "config.json", new.to_json())
        if new.restart != old.restart:
            policy = Restart[new.restart.name.upper().replace("-", "_")]
            try:
                with ending.connect(engine, self._id) as client:
                    client.set_policy(policy, new.restart.maximum)
            except MonitorGone:
                return

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until the container has ended and return its exit code.

        A container that was never started is waited for, too.

        Raises:
            ContainerTimeout: It still runs after *timeout* seconds.
            ExitCodeLost: It has ended, and nobody saw how.
        """
        deadline = Deadline(timeout)
        while True:
            try:
                with ending.connect(self._engine, self._id) as client:
                    state = client.wait_exit(deadline.remaining())
                    if state is not None:
                        return state.exit_code
            except MonitorGone:
                pass
            except ContainerTimeout:
                message = f"container {self.name} still runs after {timeout} s"
                raise ContainerTimeout(message, subject=self.name) from None
            found = self.state
            if found.exit_code is not None:
                return found.exit_code
            if found.status == "exited":
                raise ExitCodeLost(f"container {self.name}: {found.error}", subject=self.name)
            if deadline.passed:
                raise ContainerTimeout(f"container {self.name} is {found.status} after {timeout} s")
            # Between the state file's lock and the socket lies a moment.
            time.sleep(0.005)

    def wait_until(
        self,
        *,
        log: LogOption | None = None,
        port: PortOption | Sequence[PortOption] | None = None,
        http: str | HttpOption | None = None,
        healthy: bool | None = None,
        command: Command | None = None,
        timeout: float | None = 60,
    ) -> None:
        """
        Wait until the container is ready: all conditions given have held.

        *log* is a text or pattern in a line, *port* one that something listens
        on inside, *http* a path that answers, *healthy* the health check,
        *command* one that ends with 0 inside.

        Raises:
            ContainerExited: It ended first; carries the log's tail.
            ContainerTimeout: Not within *timeout* seconds.
        """
        # Brings the HTTP client along, which most programs never need.
        from containerlib.runtime import readiness

        target = waiting.Watched(self._engine, self.config)
        readiness.wait_until(
            target, log=log, port=port, http=http, healthy=healthy, command=command, timeout=timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        running.stop_and_remove(self._engine, self._id)

    def _idle(self, doing: str) -> Conflict:
        return ending.not_running(self.name, self.status, doing)


@overload
def run(
    image: str | Image,
    command: Command | None = None,
    *,
    input: Input | None = None,
    check: bool = True,
    timeout: float | None = None,
    encoding: str = "utf-8",
    engine: Engine | None = None,
    **options: Unpack[ContainerOptions],
) -> Completed[str]: ...


@overload
def run(
    image: str | Image,
    command: Command | None = None,
    *,
    input: Input | None = None,
    check: bool = True,
    timeout: float | None = None,
    encoding: None,
    engine: Engine | None = None,
    **options: Unpack[ContainerOptions],
) -> Completed[bytes]: ...


def run(
    image: str | Image,
    command: Command | None = None,
    *,
    input: Input | None = None,
    check: bool = True,
    timeout: float | None = None,
    encoding: str | None = "utf-8",
    engine: Engine | None = None,
    **options: Unpack[ContainerOptions],
) -> Completed[Any]:
    """
    Run *command* in a new container to its end, and remove the container.

    *input* goes to its standard input; without it there is none.  With
    ``encoding=None`` everything is bytes.

    Raises:
        CommandFailed: It ended with another code than 0 and *check* is true;
            carries the output.
        ContainerTimeout: It was killed after *timeout* seconds; carries the
            output so far.
        StartFailed: Its first process cannot be executed.
    """
    engine = engine or Engine.current()
    source, hide = creation.image_source(image)
    return running.run(
        engine,
        source,
        command,
        options,
        input=input,
        check=check,
        timeout=timeout,
        encoding=encoding,
        hide=hide,
    )
