# SPDX-License-Identifier: Apache-2.0
"""
The frozen values that options are made of: mounts, devices, limits, policies.

Each checks itself when it is made, so that a value that exists can be used.
The strings and dictionaries of the Compose specification are turned into
these by the parsers of this package; a caller may as well pass them directly.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, Literal

import attrs

from .quantities import MAXIMUM_BYTES, clean_path, invalid, parse_integer

MountType = Literal["bind", "volume", "tmpfs"]

PROPAGATIONS: Final = ("private", "rprivate", "shared", "rshared", "slave", "rslave")

#: What a bind mount or a volume can have beside ro; a tmpfs has its own.
MOUNT_OPTIONS: Final = ("z", "Z", "nosuid", "nodev", "noexec")

#: Limits that the kernel knows, with their numbers in <asm-generic/resource.h>.
RLIMITS: Final = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}


def _text(value: str | os.PathLike[str]) -> str:
    """
    Take a path object as the string that it stands for.
    """
    return os.fspath(value)


def _optional_text(value: str | os.PathLike[str] | None) -> str | None:
    return None if value is None else os.fspath(value)


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class Mount:
    """
    One thing mounted into a container.

    *source* is a host path for ``bind``, a volume's name for ``volume`` (None:
    an anonymous one) and nothing for ``tmpfs``.  *propagation* of None means
    rprivate.  *options* are flags as mount(8) has them for a tmpfs, and ``z``,
    ``Z``, ``nosuid``, ``nodev``, ``noexec`` for the others.
    """

    type: MountType = "bind"
    source: str | None = attrs.field(default=None, converter=_optional_text)
    target: str = attrs.field(converter=_text)
    read_only: bool = False
    propagation: str | None = None
    options: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None
    subpath: str | None = None
    nocopy: bool = False
    create_source: bool = False
    recursive: bool = True

    def __attrs_post_init__(self) -> None:
        target = clean_path("tmpfs" if self.type == "tmpfs" else "volumes", self.target)
        if target != self.target:
            object.__setattr__(self, "target", target)
        if self.type == "bind":
            source = self.source
            if not source or source[0] != "/" or "\0" in source:
                raise invalid("volumes", source, "an absolute host path as the source of a bind mount")
        elif self.type == "tmpfs":
            if self.source is not None:
                raise invalid("tmpfs", self.source, "no source: a tmpfs starts empty")
        elif self.type != "volume":
            raise invalid("volumes", self.type, "a mount of type 'bind', 'volume' or 'tmpfs'")
        if self.options and self.type != "tmpfs" and not set(self.options) <= set(MOUNT_OPTIONS):
            raise invalid("volumes", list(self.options), f"options of {', '.join(MOUNT_OPTIONS)}")
        if self.propagation is not None and self.propagation not in PROPAGATIONS:
            raise invalid("volumes", self.propagation, f"a propagation of {', '.join(PROPAGATIONS)}")
        if self.propagation is not None and self.type != "bind":
            raise invalid("volumes", self.propagation, "a propagation only for a bind mount")
        if self.tmpfs_size is not None and not 0 <= self.tmpfs_size <= MAXIMUM_BYTES:
            raise invalid("tmpfs", self.tmpfs_size, "a size of 0 (no bound) or more bytes")
        if self.tmpfs_mode is not None and not 0 <= self.tmpfs_mode <= 0o7777:
            raise invalid("tmpfs", oct(self.tmpfs_mode), "a mode from 0 to 0o7777")
        if self.subpath is not None and (
            self.subpath.startswith("/") or ".." in self.subpath.split("/") or "\0" in self.subpath
        ):
            raise invalid("volumes", self.subpath, "a subpath inside the source, without '..'")


@attrs.frozen(kw_only=True)
class Device:
    """
    A device of the host, or a directory of them, given to a container.

    *permissions* are letters of ``rwm``: read, write, make nodes.
    """

    source: str = attrs.field(converter=_text)
    target: str = attrs.field(default="", converter=_text)
    permissions: str = "rwm"

    def __attrs_post_init__(self) -> None:
        if self.source[:1] != "/" or "\0" in self.source:
            raise invalid("devices", self.source, "an absolute path of a device, like '/dev/fuse'")
        object.__setattr__(self, "target", clean_path("devices", self.target or self.source))
        if not self.permissions or set(self.permissions) - set("rwm"):
            raise invalid("devices", self.permissions, "permissions made of the letters r, w and m")

    @classmethod
    def parse(cls, text: str) -> Device:
        """
        Read ``/dev/x``, ``/dev/x:/dev/y``, ``/dev/x:rw`` or ``/dev/x:/dev/y:rwm``.
        """
        parts = text.split(":")
        if len(parts) > 3 or not all(parts):
            raise invalid("devices", text, "'/dev/source', '/dev/source:/dev/target' or with ':rwm'")
        source, *rest = parts
        if len(rest) == 1 and not rest[0].startswith("/"):
            rest.insert(0, source)
        target = rest[0] if rest else source
        return cls(source=source, target=target, permissions=rest[1] if len(rest) == 2 else "rwm")


@attrs.frozen(kw_only=True)
class Ulimit:
    """
    A resource limit; -1 is unlimited.

    A *hard* of None is the soft limit.
    """

    name: str
    soft: int
    hard: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.name not in RLIMITS:
            raise invalid("ulimits", self.name, f"one of {', '.join(sorted(RLIMITS))}")
        if self.hard is None:
            object.__setattr__(self, "hard", self.soft)
        for limit in (self.soft, self.hard):
            if type(limit) is not int:
                raise TypeError(f"ulimits: {self.name}: a limit is an integer, not {limit!r}")
            if not -1 <= limit <= MAXIMUM_BYTES:
                raise invalid("ulimits", f"{self.name}={limit}", "limits of -1 (unlimited) or more")
        if self.hard != -1 and (self.soft == -1 or self.soft > (self.hard or 0)):
            raise invalid(
                "ulimits",
                f"{self.name}={self.soft}:{self.hard}",
                "a soft limit that is not above the hard one",
            )

    @property
    def resource(self) -> int:
        """
        The number of the limit for setrlimit(2).
        """
        return RLIMITS[self.name]

    @classmethod
    def parse(cls, text: str) -> Ulimit:
        """
        Read ``name=soft`` or ``name=soft:hard``.
        """
        name, equals, limits = text.partition("=")
        soft, colon, hard = limits.partition(":")
        if not equals or not soft or (colon and not hard):
            raise invalid("ulimits", text, "'name=soft' or 'name=soft:hard'")
        first = _limit(text, soft)
        return cls(name=name, soft=first, hard=_limit(text, hard) if colon else first)


def _limit(text: str, number: str) -> int:
    return -1 if number in ("-1", "unlimited") else parse_integer("ulimits", number, shown=text)


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """
    When a container is started again: ``no``, ``on-failure``, ``always`` or
    ``unless-stopped``.

    *maximum* bounds the restarts of ``on-failure``; 0 is without bound.
    """

    name: str = "no"
    maximum: int = 0

    def __attrs_post_init__(self) -> None:
        if self.name not in ("no", "on-failure", "always", "unless-stopped"):
            raise invalid(
                "restart", self.name, "'no', 'on-failure', 'on-failure:N', 'always' or 'unless-stopped'"
            )
        if self.maximum < 0 or self.maximum > 0x7FFFFFFF:
            raise invalid("restart", self.maximum, "a number of restarts of 0 (no bound) or more")
        if self.maximum and self.name != "on-failure":
            raise invalid(
                "restart", f"{self.name}:{self.maximum}", "a number of restarts only after 'on-failure'"
            )

    def __str__(self) -> str:
        return f"{self.name}:{self.maximum}" if self.maximum else self.name

    @classmethod
    def parse(cls, text: str) -> RestartPolicy:
        """
        Read ``no``, ``on-failure``, ``on-failure:3``, ``always``, ``unless-stopped``.
        """
        name, colon, maximum = text.partition(":")
        return cls(name=name or "no", maximum=parse_integer("restart", maximum, shown=text) if colon else 0)


@attrs.frozen(kw_only=True)
class Healthcheck:
    """
    A command that tells whether a container does its work.

    *test* is in Docker's form: ``("CMD", "curl", …)``, ``("CMD-SHELL", "…")``
    or ``("NONE",)``, which turns off the image's check.  Times are seconds.
    """

    test: tuple[str, ...] = attrs.field(converter=_strings)
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    def __attrs_post_init__(self) -> None:
        test = self.test
        kind = test[0] if test else ""
        if not (
            (kind == "NONE" and len(test) == 1)
            or (kind == "CMD" and len(test) > 1)
            or (kind == "CMD-SHELL" and len(test) == 2)
        ):
            raise invalid(
                "healthcheck", list(test), "a test of ['CMD', program, …], ['CMD-SHELL', line] or ['NONE']"
            )
        for name in ("interval", "timeout", "start_interval"):
            if not 0.001 <= getattr(self, name) < 1e9:
                raise invalid(
                    "healthcheck", f"{name}={getattr(self, name)!r}", "a time of at least one millisecond"
                )
        if not 0 <= self.start_period < 1e9:
            raise invalid("healthcheck", f"start_period={self.start_period!r}", "a time of 0 or more")
        if not 1 <= self.retries <= 0x7FFFFFFF:
            raise invalid("healthcheck", f"retries={self.retries!r}", "1 or more retries")

    @property
    def argv(self) -> tuple[str, ...]:
        """
        What to run; empty when the check is off.  A shell line has the shell of
        the image put before it when the configuration is built.
        """
        if self.test[0] == "NONE":
            return ()
        return self.test[1:] if self.test[0] == "CMD" else ("/bin/sh", "-c", self.test[1])


@attrs.frozen(kw_only=True)
class LogConfig:
    """
    How much output is kept: *max_files* files of *max_size* bytes each.

    A *max_size* of 0 keeps everything.
    """

    max_size: int = 0
    max_files: int = 1

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.max_size <= MAXIMUM_BYTES:
            raise invalid("logging", self.max_size, "a max-size of 0 (no bound) or more bytes")
        if not 1 <= self.max_files <= 10000:
            raise invalid("logging", self.max_files, "a max-file of 1 to 10000")


DeviceRate = tuple[str, int]


@attrs.frozen(kw_only=True)
class BlkioConfig:
    """
    Block I/O limits: a weight, and rates per device (path, bytes or
    operations each second).
    """

    weight: int | None = None
    weight_device: tuple[DeviceRate, ...] = ()
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()

    def __attrs_post_init__(self) -> None:
        weights = [("weight", self.weight), *self.weight_device]
        for name, weight in weights:
            if weight is not None and not 10 <= weight <= 1000:
                raise invalid("blkio_config", f"{name}={weight}", "weights from 10 to 1000")
        for rates in (
            self.device_read_bps,
            self.device_write_bps,
            self.device_read_iops,
            self.device_write_iops,
        ):
            for path, rate in rates:
                if not 0 <= rate <= MAXIMUM_BYTES:
                    raise invalid("blkio_config", f"{path}: {rate}", "rates of 0 or more")
        for path, _ in (
            *self.weight_device,
            *self.device_read_bps,
            *self.device_write_bps,
            *self.device_read_iops,
            *self.device_write_iops,
        ):
            if not path.startswith("/"):
                raise invalid("blkio_config", path, "an absolute path of a block device")


@attrs.frozen(kw_only=True)
class Resources:
    """
    What a container may use; None leaves a limit out.

    Memory is in bytes.  *memswap_limit* is memory and swap together, -1 for
    unlimited swap.  *cpus* may be a fraction.
    """

    mem_limit: int | None = None
    memswap_limit: int | None = None
    mem_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    blkio: BlkioConfig | None = None
    oom_kill_disable: bool = False
