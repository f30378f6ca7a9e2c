# SPDX-License-Identifier: Apache-2.0
"""
What a container is: the part of Container that only looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from containerlib.containers import observing, starting
from containerlib.errors import ContainerNotFound
from containerlib.types import container_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from containerlib.engine import Engine
    from containerlib.types import ContainerConfig, ContainerState


class Described:
    """
    One container's configuration and state, read anew each time.
    """

    _engine: Engine
    _id: str

    @property
    def config(self) -> ContainerConfig:
        """
        What the container was asked to be, with its present name.
        """
        return observing.current_config(self._engine, self._id)

    @property
    def id(self) -> str:
        """
        The full id: 64 hexadecimal digits.
        """
        return self._id

    @property
    def short_id(self) -> str:
        """
        The first twelve digits of the id.
        """
        return self._id[:12]

    @property
    def engine(self) -> Engine:
        """
        The engine that holds it.
        """
        return self._engine

    @property
    def state(self) -> ContainerState:
        """
        Where the container stands now.
        """
        return observing.observe(self._engine, self._id)

    @property
    def name(self) -> str:
        """
        The container's name.
        """
        return self._engine.store.containers.name(self._id) or self.config.name

    @property
    def image(self) -> str:
        """
        The reference that the container was made from.
        """
        return self.config.image

    @property
    def labels(self) -> Mapping[str, str]:
        """
        The container's labels, those of its image included.
        """
        return self.config.labels

    @property
    def status(self) -> str:
        """
        ``created``, ``running``, ``paused``, ``restarting``, ``exited``,
        ``removing`` or, when there is no such container any more, ``removed``.
        """
        try:
            return self.state.status
        except ContainerNotFound:
            return "removed"

    @property
    def exit_code(self) -> int | None:
        """
        The exit code of the last run; None while there is none, or it was lost.
        """
        return self.state.exit_code

    @property
    def pid(self) -> int | None:
        """
        The host's pid of the first process, None when it does not run.
        """
        return self.state.pid or None

    @property
    def created(self) -> datetime:
        """
        When the container was made.
        """
        return self.config.created

    @property
    def started(self) -> datetime | None:
        """
        When it was last started.
        """
        return self.state.started

    @property
    def finished(self) -> datetime | None:
        """
        When it last ended.
        """
        return self.state.finished

    @property
    def health(self) -> str | None:
        """
        ``starting``, ``healthy``, ``unhealthy``; None without a health check.
        """
        return self.state.health

    @property
    def ports(self) -> dict[str, Any]:
        """
        Published ports: none before networks exist.
        """
        return {}

    def inspect(self) -> dict[str, Any]:
        """
        Everything, in the shape of ``docker inspect``.
        """
        config = self.config
        directory = self._engine.store.containers.path(self._id)
        return container_document(
            config,
            self.state,
            directory=str(directory),
            log_path=str(directory / "log"),
            volume_paths=starting.anonymous_volumes(self._engine, config),
            upper=str(directory / "upper"),
        )
