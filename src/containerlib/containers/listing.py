# SPDX-License-Identifier: Apache-2.0
"""
Which containers a list shows.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from containerlib.containers import observing
from containerlib.errors import ContainerlibError, CorruptState, InvalidOption
from containerlib.types import parse_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.engine import Engine
    from containerlib.types import ContainerConfig

STATUSES = ("created", "running", "paused", "restarting", "exited", "removing", "dead")


@attrs.frozen(kw_only=True)
class Filter:
    """
    What a container must be to be listed.
    """

    statuses: frozenset[str] | None
    name: str | None
    labels: tuple[tuple[str, str | None], ...]
    image: str | None
    exit_code: int | None
    health: str | None

    @classmethod
    def of(
        cls,
        *,
        all: bool,
        status: str | Sequence[str] | None,
        name: str | None,
        labels: Mapping[str, str | None] | Sequence[str] | str | None,
        image: str | None,
        exit_code: int | None,
        health: str | None,
    ) -> Filter:
        """
        From what a caller says.
        """
        statuses: frozenset[str] | None = None
        if status is not None:
            statuses = frozenset((status,) if isinstance(status, str) else status)
            for word in statuses:
                if word not in STATUSES:
                    message = f"status={word!r}: one of {', '.join(STATUSES)}"
                    raise InvalidOption(message, subject="status")
        elif not all and exit_code is None:
            statuses = frozenset({"running", "paused", "restarting"})
        return cls(
            statuses=statuses,
            name=name,
            labels=_labels(labels),
            image=image,
            exit_code=exit_code,
            health=health,
        )

    def matches(self, engine: Engine, config: ContainerConfig) -> bool:
        """
        Whether the container is one of those.
        """
        if self.name is not None and self.name not in config.name:
            return False
        if self.image is not None and self.image not in (config.image, config.image_id):
            return False
        for key, value in self.labels:
            if key not in config.labels or value not in (None, config.labels[key]):
                return False
        if self.statuses is None and self.exit_code is None and self.health is None:
            return True
        state = observing.observe(engine, config.id)
        if self.statuses is not None and state.status not in self.statuses:
            return False
        if self.exit_code is not None and (state.status != "exited" or state.exit_code != self.exit_code):
            return False
        return self.health is None or state.health == self.health


def _labels(
    labels: Mapping[str, str | None] | Sequence[str] | str | None,
) -> tuple[tuple[str, str | None], ...]:
    if labels is None:
        return ()
    if isinstance(labels, str):
        labels = [labels]
    if isinstance(labels, list | tuple):
        wanted: list[tuple[str, str | None]] = []
        for label in labels:
            key, equals, value = label.partition("=")
            wanted.append((key, value if equals else None))
        return tuple(wanted)
    mapping: dict[str, Any] = dict(labels)  # type: ignore[arg-type]  # a mapping by now
    plain = parse_labels({key: value for key, value in mapping.items() if value is not None})
    return tuple((key, plain.get(key)) for key in mapping)


def select(engine: Engine, wanted: Filter, last: int | None) -> list[str]:
    """
    Ids of the containers that match, newest first.
    """
    configs = []
    for id_ in engine.store.containers.ids():
        with contextlib.suppress(CorruptState, ContainerlibError):
            configs.append(observing.current_config(engine, id_))
    configs.sort(key=lambda config: config.created_ns, reverse=True)
    if last is not None:
        wanted = attrs.evolve(wanted, statuses=None) if wanted.statuses == _DEFAULT else wanted
    found: list[str] = []
    for config in configs:
        if last is not None and len(found) >= last:
            break
        with contextlib.suppress(ContainerlibError):
            if wanted.matches(engine, config):
                found.append(config.id)
    return found


_DEFAULT = frozenset({"running", "paused", "restarting"})
