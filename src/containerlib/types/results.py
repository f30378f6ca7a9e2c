# SPDX-License-Identifier: Apache-2.0
"""
The frozen values that calls give back: results, log lines, processes,
statistics, and what the host can do.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import AnyStr, Generic

import attrs


def _shortened(value: str | bytes) -> str:
    """
    Show the ends of long output.
    """
    return repr(value) if len(value) <= 400 else f"{value[:200]!r}…{value[-180:]!r}"


@attrs.frozen(kw_only=True)
class Completed(Generic[AnyStr]):
    """
    A command that ran to its end: text, or bytes when encoding was None.
    """

    args: tuple[str, ...]
    exit_code: int
    stdout: AnyStr = attrs.field(repr=_shortened)
    stderr: AnyStr = attrs.field(repr=_shortened)


@attrs.frozen(kw_only=True)
class LogLine:
    """
    One line that a container printed, without its newline.

    *stream* is ``stdout`` or ``stderr``; *time*, aware and in UTC, is when
    the monitor read its end.
    """

    stream: str
    time: datetime
    data: bytes
    encoding: str = attrs.field(default="utf-8", repr=False)

    @property
    def text(self) -> str:
        """
        The line as text; what is not text shows as U+FFFD.
        """
        return self.data.decode(self.encoding, "replace")

    def __str__(self) -> str:
        return self.text


@attrs.frozen(kw_only=True)
class ProcessInfo:
    """
    One process in a container, as ps(1) shows it.

    *pid* and *ppid* are the host's numbers, *container_pid* the one that the
    container sees.  *uid* is the container's; *user* its name there, or the
    number as text.  *cpu_time* is in seconds, *rss* in bytes.
    """

    pid: int
    ppid: int
    uid: int
    user: str
    command: str
    args: tuple[str, ...] = ()
    state: str = ""
    tty: str = "?"
    threads: int = 1
    cpu_time: float = 0.0
    rss: int = 0
    started: datetime | None = None
    container_pid: int | None = None

    def __str__(self) -> str:
        minutes, seconds = divmod(int(self.cpu_time), 60)
        hours, minutes = divmod(minutes, 60)
        line = " ".join(self.args) or f"[{self.command}]"
        return f"{self.user:<8} {self.pid:>7} {self.ppid:>7} {hours:02}:{minutes:02}:{seconds:02} {line}"


@attrs.frozen(kw_only=True)
class Stats:
    """
    What a container has used, at one moment.

    Times are seconds and sizes bytes since its start; None is what this host
    does not count.  *cpu_percent* compares with the sample before and is None
    in a first one; 100 is one whole processor.
    """

    time: datetime
    cpu_total: float = 0.0
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled: float | None = None
    online_cpus: int = 1
    memory: int | None = None
    memory_limit: int | None = None
    memory_peak: int | None = None
    memory_cache: int | None = None
    swap: int | None = None
    oom_kills: int | None = None
    pids: int | None = None
    pids_limit: int | None = None
    block_read: int | None = None
    block_write: int | None = None
    block_reads: int | None = None
    block_writes: int | None = None
    network_received: int | None = None
    network_sent: int | None = None
    cpu_percent: float | None = None

    @property
    def memory_used(self) -> int | None:
        """
        Memory without the page cache that the kernel can take back, as
        ``docker stats`` counts it.
        """
        if self.memory is None:
            return None
        return max(0, self.memory - (self.memory_cache or 0))

    @property
    def memory_percent(self) -> float | None:
        """
        Used memory in percent of the limit; None without a limit.
        """
        used = self.memory_used
        return 100.0 * used / self.memory_limit if used is not None and self.memory_limit else None

    def since(self, earlier: Stats) -> Stats:
        """
        This sample with *cpu_percent* computed over the time since *earlier*.
        """
        seconds = (self.time - earlier.time).total_seconds()
        used = self.cpu_total - earlier.cpu_total
        return attrs.evolve(self, cpu_percent=max(0.0, 100.0 * used / seconds) if seconds > 0 else None)


@attrs.frozen(kw_only=True)
class DiskUsage:
    """
    Bytes that an engine holds on disk, as ``du`` counts them: allocated
    blocks, a file with several names once.

    *images* are the compressed blobs, *layers* their unpacked files; *other*
    is what is being made, and the run directory if it lies below the root.
    *unreadable* are directories that belong to other ids of a container and
    let nobody else in: what is in them is not counted.
    """

    images: int = 0
    layers: int = 0
    containers: int = 0
    volumes: int = 0
    cache: int = 0
    other: int = 0
    unreadable: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """
        All of it.
        """
        return self.images + self.layers + self.containers + self.volumes + self.cache + self.other

    def __str__(self) -> str:
        kinds = ("images", "layers", "containers", "volumes", "cache", "other", "total")
        lines = [f"{kind + ':':<12}{getattr(self, kind) / 1e6:>10.1f} MB" for kind in kinds]
        if self.unreadable:
            lines.append(f"not counted: what is in {len(self.unreadable)} directories of other ids")
        return "\n".join(lines)


@attrs.frozen(kw_only=True)
class Pruned:
    """
    What a prune has removed: ids of containers and images, other entries by
    their file names, and the bytes that the disk has won.
    """

    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    freed: int = 0


@attrs.frozen(kw_only=True)
class Feature:
    """
    One ability of the host: enforced or not, why not, and how to get it.
    """

    name: str
    available: bool
    reason: str = ""
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.available

    def __str__(self) -> str:
        if self.available:
            return f"{self.name}: yes" + (f" ({self.reason})" if self.reason else "")
        return f"{self.name}: no" + "".join(f"; {text}" for text in (self.reason, self.remedy) if text)


def _features(features: Iterable[Feature]) -> tuple[Feature, ...]:
    return tuple(features)


@attrs.frozen(kw_only=True)
class HostInfo:
    """
    What an engine finds on its host, and which isolation it can enforce.

    *id_mapping* is ``none`` (root), ``ranges`` (newuidmap) or ``single``;
    *cgroup_layout* ``v1``, ``hybrid``, ``v2`` or ``none``.
    """

    version: str
    root: str
    run_root: str
    rootless: bool
    id_mapping: str
    cgroup_layout: str
    storage_driver: str
    network_modes: tuple[str, ...]
    seccomp: bool
    kernel: str
    architecture: str = ""
    features: tuple[Feature, ...] = attrs.field(default=(), converter=_features)

    def feature(self, name: str) -> Feature:
        """
        The ability called *name*; KeyError when there is none of that name.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("containerlib", self.version),
            ("kernel", " ".join(filter(None, (self.kernel, self.architecture)))),
            ("root", self.root),
            ("run root", self.run_root),
            ("runs as", "a user" if self.rootless else "root"),
            ("id mapping", self.id_mapping),
            ("cgroups", self.cgroup_layout),
            ("storage", self.storage_driver),
            ("network modes", ", ".join(self.network_modes)),
            ("seccomp", "enforced" if self.seccomp else "not available"),
        ]

    def __str__(self) -> str:
        from textwrap import wrap  # only who prints needs it

        lines = [f"{name + ':':<15} {value}" for name, value in self._rows()]
        width = max((len(feature.name) for feature in self.features), default=0)
        if self.features:
            lines.append("features:")
        for feature in self.features:
            word = "yes" if feature else "no"
            note = f"  ({feature.reason})" if feature.reason else ""
            lines.append(f"  {feature.name:<{width}}  {word:<3}{note}".rstrip())
            lines += (f"  {'':<{width}}       {text}" for text in wrap(feature.remedy, 78))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """
        A table, for notebooks.
        """
        from html import escape  # only a notebook needs it

        rows = [*self._rows(), *(tuple(str(feature).split(": ", 1)) for feature in self.features)]
        cells = "".join(f"<tr><th>{escape(row[0])}</th><td>{escape(row[-1])}</td></tr>" for row in rows)
        return f"<table>{cells}</table>"
