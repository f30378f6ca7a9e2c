# SPDX-License-Identifier: Apache-2.0
"""
What a container was asked to be: options and image merged into one frozen
value, which is kept as JSON in the container's directory.

``build_config`` applies Docker's rules for entrypoint and command, environment
and health check, and refuses options that contradict each other.  It looks at
nothing but what it is given: names of users, containers, devices and files
inside are looked up by those who can.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from containerlib.errors import CorruptState

from .quantities import signal_name
from .security import SecurityOptions
from .values import (
    BlkioConfig,
    Device,
    Healthcheck,
    LogConfig,
    Mount,
    Resources,
    RestartPolicy,
    Ulimit,
)

CONFIG_VERSION: Final = 1


def _names_only(environment: Mapping[str, str]) -> str:
    """
    Variables without their values, which may be secrets.
    """
    return "{" + ", ".join(f"{name!r}: …" for name in environment) + "}"


@attrs.frozen(kw_only=True)
class ContainerConfig:
    """
    Everything that a container was asked for, merged with its image.

    *args* is what the first process runs; *entrypoint* and *command* are its
    two parts.  *environment* is complete but for HOME, which depends on the
    user.  Namespace modes are Docker's words, never empty; ``container:<x>``
    holds what the caller wrote until the engine puts the id there.
    """

    id: str
    name: str
    image: str
    image_id: str
    created_ns: int

    args: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=_names_only)
    working_dir: str = "/"
    user: str = ""
    group_add: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    stdin_open: bool = False
    init: bool = False
    stop_signal: int = 15
    stop_grace_period: float = 10.0
    labels: Mapping[str, str] = attrs.field(factory=dict)
    platform: str | None = None
    logging: LogConfig = LogConfig()

    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    read_only: bool = False
    shm_size: int = 64 << 20
    devices: tuple[Device, ...] = ()

    network: str = "none"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()

    resources: Resources = Resources()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security: SecurityOptions = SecurityOptions()
    sysctls: Mapping[str, str] = attrs.field(factory=dict)
    userns_mode: str = "private"
    ipc: str = "private"
    pid: str = "private"
    uts: str = "private"
    cgroup: str = "private"
    cgroup_parent: str | None = None

    detach: bool = False
    auto_remove: bool = False
    restart: RestartPolicy = RestartPolicy()
    healthcheck: Healthcheck | None = None

    exposed_ports: tuple[str, ...] = ()
    image_volumes: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()

    @property
    def short_id(self) -> str:
        """
        The first twelve digits of the id.
        """
        return self.id[:12]

    @property
    def created(self) -> datetime:
        """
        When the container was created, aware and in UTC.
        """
        return datetime.fromtimestamp(self.created_ns / 1e9, UTC)

    @property
    def stop_signal_name(self) -> str:
        """
        The stop signal by name.
        """
        return signal_name(self.stop_signal)

    def to_json(self) -> bytes:
        """
        The configuration as JSON, with the version of its form.
        """
        import json  # two milliseconds that those who only use the values need not pay

        document: dict[str, Any] = {"version": CONFIG_VERSION}
        for name in _NAMES:
            document[name] = getattr(self, name)
        return json.dumps(document, default=_plain, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> ContainerConfig:
        """
        The configuration that ``to_json`` wrote; CorruptState if it is not one.
        """
        import json

        try:
            document = json.loads(data)
            version = document.pop("version")
            if version != CONFIG_VERSION:
                raise ValueError(f"version {version!r}, this containerlib reads {CONFIG_VERSION}")
            for name, read in _READERS.items():
                if document.get(name):
                    document[name] = read(document[name])
                elif name in _TUPLES:
                    document[name] = ()
            return cls(**document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptState(f"not a container's configuration: {error}") from error


_NAMES: Final = tuple(field.name for field in attrs.fields(ContainerConfig))
_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    cls: tuple(field.name for field in attrs.fields(cls))
    for cls in (
        BlkioConfig,
        Device,
        Healthcheck,
        LogConfig,
        Mount,
        Resources,
        RestartPolicy,
        SecurityOptions,
        Ulimit,
    )
}


def _plain(value: object) -> dict[str, Any]:
    """
    The fields of a value, for json.
    """
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}


def _read_healthcheck(value: dict[str, Any]) -> Healthcheck:
    return Healthcheck(**value)


def _read_security(value: dict[str, Any]) -> SecurityOptions:
    value["label"] = tuple(value["label"])
    return SecurityOptions(**value)


def _read_blkio(value: dict[str, Any]) -> BlkioConfig:
    weight = value.pop("weight")
    return BlkioConfig(weight=weight, **{name: tuple(map(_pair, rates)) for name, rates in value.items()})


def _pair(value: list[Any]) -> tuple[Any, Any]:
    first, second = value
    return first, second


def _read_resources(value: dict[str, Any]) -> Resources:
    if value.get("blkio") is not None:
        value["blkio"] = _read_blkio(value["blkio"])
    return Resources(**value)


_TUPLES: Final = frozenset(
    {
        "args",
        "cap_add",
        "cap_drop",
        "command",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "entrypoint",
        "exposed_ports",
        "extra_hosts",
        "group_add",
        "image_volumes",
        "mounts",
        "shell",
        "ulimits",
        "volumes_from",
    }
)
_READERS: Final[dict[str, Any]] = {
    **dict.fromkeys(_TUPLES, tuple),
    "mounts": lambda values: tuple(Mount(**value) for value in values),
    "devices": lambda values: tuple(Device(**value) for value in values),
    "ulimits": lambda values: tuple(Ulimit(**value) for value in values),
    "extra_hosts": lambda values: tuple(_pair(value) for value in values),
    "logging": lambda value: LogConfig(**value),
    "restart": lambda value: RestartPolicy(**value),
    "healthcheck": _read_healthcheck,
    "resources": _read_resources,
    "security": _read_security,
}
