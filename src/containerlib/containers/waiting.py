# SPDX-License-Identifier: Apache-2.0
"""
A container as the thing that readiness conditions look at.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from containerlib.containers import ending, observing, processes
from containerlib.errors import ContainerlibError
from containerlib.runtime import exec as run_inside
from containerlib.runtime import logs
from containerlib.runtime.client import MonitorGone
from containerlib.runtime.follow import LogFollower, LogWatch
from containerlib.types import parse_command

if TYPE_CHECKING:
    from containerlib.engine import Engine
    from containerlib.types import ContainerConfig
    from containerlib.types.parsing import Command


class Watched:
    """
    Looks at one container, anew each time.
    """

    def __init__(self, engine: Engine, config: ContainerConfig) -> None:
        self._engine = engine
        self._config = config

    @property
    def name(self) -> str:
        """
        For messages.
        """
        return self._config.name

    @property
    def pid(self) -> int | None:
        """
        The first process.
        """
        return observing.observe(self._engine, self._config.id).pid or None

    @property
    def exit_code(self) -> int | None:
        """
        The exit code, once it has ended.
        """
        return observing.observe(self._engine, self._config.id).exit_code

    def is_running(self) -> bool:
        """
        Whether it runs, or is about to be restarted.
        """
        state = observing.observe(self._engine, self._config.id)
        return state.running or state.status == "restarting"

    def health(self) -> str | None:
        """
        What the health checks say.
        """
        return observing.observe(self._engine, self._config.id).health

    def log_tail(self, lines: int) -> str:
        """
        The log's last lines.
        """
        path = self._engine.store.containers.path(self._config.id)
        return logs.read_logs(path, tail=lines).decode(errors="replace")

    def follow(self) -> LogFollower:
        """
        A follower from this run's first line on.
        """
        started = observing.observe(self._engine, self._config.id).started
        return LogFollower(
            self._engine.store.containers.path(self._config.id),
            log_watch(self._engine, self._config.id),
            since=started,
        )

    def probe(self, command: Command, timeout: float | None) -> int:
        """
        Run a command inside, dropping its output; its exit code.
        """
        config = self._config
        with processes.target(self._engine, config) as target:
            process = run_inside.start_process(
                target,
                parse_command(command),
                environment=config.environment,
                user=config.user,
                working_dir=config.working_dir,
                stdin=False,
                encoding=None,
            )
        with process:
            process.communicate(timeout=timeout)
            return process.wait()

    def open_socket(self, address: str, port: int, timeout: float) -> socket.socket:
        """
        A TCP connection made in the container's network namespace.
        """
        with processes.target(self._engine, self._config) as target:
            connection = run_inside.open_socket(target, address, port, timeout=max(timeout, 0.01))
        connection.settimeout(timeout)
        return connection


def log_watch(engine: Engine, id: str) -> LogWatch | None:
    """
    What says that the log has grown; None when no monitor runs.
    """
    try:
        client = ending.connect(engine, id)
    except MonitorGone:
        return None
    try:
        client.watch()
        return LogWatch(client)
    except ContainerlibError:
        client.close()
        return None
