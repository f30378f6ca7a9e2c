# SPDX-License-Identifier: Apache-2.0
"""
The host's own root file system as an image.

Containers see what their caller can read of it, below overlays that keep the
changes.  As root that is one overlay over ``/`` and one more for each other
real file system.  In a user namespace the kernel refuses an overlay over a
directory that has mounts below it (they are locked there, and the overlay
would uncover what they hide): the root becomes a skeleton on a tmpfs with
one overlay for each top-level directory, and a directory that has mounts
below it is itself a skeleton of its children.

Never shown: ``/proc``, ``/sys`` and ``/dev``, which containers have of their
own; ``/run`` and ``/tmp``, which hold the sockets of host services (a session
bus, an agent, a terminal multiplexer: each a way to run programs outside)
and become empty writable directories; the engine's own state; and what
``hide`` names.  In a user namespace a directory that the user cannot enter,
like ``/root``, is an empty one, too, and files that lie directly in a
skeleton directory are bound read-only.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

import attrs

from containerlib.images.model import HOST, ImageRecord, host_platform

OWN = frozenset({"/proc", "/sys", "/dev"})
"""
Directories that every container has of its own.
"""

FRESH = {"/run": 0o755, "/tmp": 0o1777}
"""
Directories that start empty, with their modes.
"""

_PSEUDO = frozenset(
    "autofs binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs efivarfs "
    "fusectl hugetlbfs mqueue nsfs overlay proc pstore ramfs rpc_pipefs securityfs selinuxfs "
    "sysfs tmpfs tracefs".split()
)
"""
Types whose mounts are not shown: what the kernel makes up, what does not
last, and, with overlay, the roots of other containers.
"""

_SKELETON_MAX = 4000
"""
No more entries than this are made for one directory that must be a skeleton.
"""


@attrs.frozen(kw_only=True)
class Overlay:
    """
    One overlay: the host's directory *lower* shown at *target*.

    *key* names the subdirectories that hold its changes and its work files,
    *mode* what the first must have: the top of an overlay has the mode of its
    upper directory.
    """

    target: str
    lower: str
    key: str
    mode: int


@attrs.frozen(kw_only=True)
class Fresh:
    """
    A writable directory that starts empty; *key* and *mode* as in `Overlay`.
    """

    target: str
    key: str
    mode: int


@attrs.frozen(kw_only=True)
class HostLayout:
    """
    How the host's root file system is put together for a container.

    The order is that of making: *directories* with their modes and *symlinks*
    with their texts (on a skeleton only), *overlays*, *fresh* directories,
    read-only *binds* of files (source, target), and at last *masked* paths.
    With *single_root*, the first overlay is the root itself; else the root is
    a tmpfs.
    """

    single_root: bool
    directories: tuple[tuple[str, int], ...] = ()
    symlinks: tuple[tuple[str, str], ...] = ()
    overlays: tuple[Overlay, ...] = ()
    fresh: tuple[Fresh, ...] = ()
    binds: tuple[tuple[str, str], ...] = ()
    masked: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class MountPoint:
    """
    One mount of this process's mount namespace.
    """

    target: str
    type: str


def host_record() -> ImageRecord:
    """
    Return the host's root file system as an image.
    """
    document = {
        **host_platform(),
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return ImageRecord(id=HOST, document=document, layers=(), tags=(HOST,))


def host_layout(
    *, rootless: bool, hide: Iterable[str] = (), engine_paths: Iterable[str | Path] = ()
) -> HostLayout:
    """
    Say how to show the host's root file system.

    *rootless* means that the overlays are mounted in a user namespace.
    *engine_paths*, the engine's own directories, and the paths in *hide* are
    masked wherever they would show.
    """
    hidden = {_absolute(path) for path in hide} | {_resolved(path) for path in engine_paths}
    layout = _layout(rootless, _read_mountinfo(), os.stat("/").st_mtime_ns)
    return attrs.evolve(layout, masked=tuple(path for path in sorted(hidden) if _is_shown(path)))


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        path = "/" + path
    return os.path.normpath(path).replace("//", "/")


def _resolved(path: str | Path) -> str:
    return os.path.realpath(path)


def _is_shown(path: str) -> bool:
    """
    Say whether *path* would show: not below what is empty or the container's own.
    """
    return path != "/" and not any(_is_below(path, top) for top in (*OWN, *FRESH)) and os.path.lexists(path)


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


# ---- the host's mounts ------------------------------------------------------


def _read_mountinfo() -> bytes:
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        parts = []
        while part := file.read(65536):
            parts.append(part)
    return b"".join(parts)


def parse_mountinfo(data: bytes) -> list[MountPoint]:
    """
    Read the format of ``/proc/self/mountinfo``, in the order of mounting.
    """
    found = []
    for line in data.splitlines():
        fields = line.split(b" ")
        try:
            separator = fields.index(b"-", 6)
            found.append(MountPoint(target=_unescape(fields[4]), type=os.fsdecode(fields[separator + 1])))
        except (ValueError, IndexError):
            continue
    return found


def _unescape(field: bytes) -> str:
    if b"\\" in field:
        for code in (b"040", b"011", b"012", b"134"):  # space, tab, newline, backslash; the last one last
            field = field.replace(b"\\" + code, bytes([int(code, 8)]))
    return os.fsdecode(field)


def _is_real(mount: MountPoint) -> bool:
    # Other users' FUSE mounts refuse even root.
    return mount.type not in _PSEUDO and not mount.type.startswith("fuse.")


# ---- the layout -------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _layout(rootless: bool, mountinfo: bytes, changed: int) -> HostLayout:  # noqa: ARG001  # *changed* is for the cache
    """
    Compute a layout; kept while neither the mounts nor ``/`` itself change.
    """
    mounts: dict[str, MountPoint] = {}
    for mount in parse_mountinfo(mountinfo):
        mounts[mount.target] = mount  # of several on one place, the last is on top
    mounts.pop("/", None)
    for target in list(mounts):
        if any(_is_below(target, top) for top in (*OWN, *FRESH)):
            del mounts[target]
    return _Skeleton(mounts).layout() if rootless else _single(mounts)


def _single(mounts: dict[str, MountPoint]) -> HostLayout:
    overlays = [Overlay(target="/", lower="/", key=_key("/"), mode=0o755)]
    for target in sorted(mounts):
        # What lies on a file system that is not shown is not reached either.
        if _is_real(mounts[target]) and all(
            _is_real(other) for top, other in mounts.items() if _is_below(target, top)
        ):
            mode = _directory_mode(target)
            if mode is not None:
                overlays.append(_overlay(target, mode))
    return HostLayout(single_root=True, overlays=tuple(overlays), fresh=_fresh())


def _fresh() -> tuple[Fresh, ...]:
    return tuple(
        Fresh(target=path, key=_key(path), mode=mode)
        for path, mode in FRESH.items()
        if _directory_mode(path) is not None
    )


def _directory_mode(path: str) -> int | None:
    """
    Return the mode of a real directory, None for anything else.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode) if stat.S_ISDIR(found.st_mode) else None


def _overlay(target: str, mode: int) -> Overlay:
    return Overlay(target=target, lower=target, key=_key(target), mode=mode)


def _key(target: str) -> str:
    """
    Return a single path component for *target*, different for each, without
    what mount options give a meaning.
    """
    key = target.strip("/") or "/"
    for character in "%/:,\\":
        key = key.replace(character, f"%{ord(character):02X}")
    if len(os.fsencode(key)) <= 200:
        return key
    import hashlib  # rarely needed

    return "long-" + hashlib.sha256(os.fsencode(key)).hexdigest()


class _Skeleton:
    """
    Collects the parts of a root that is a skeleton on a tmpfs.
    """

    def __init__(self, mounts: dict[str, MountPoint]) -> None:
        self._mounts = mounts
        # Every directory that has a mount somewhere below it.
        self._above: Collection[str] = {str(parent) for target in mounts for parent in Path(target).parents}
        self._directories: list[tuple[str, int]] = []
        self._symlinks: list[tuple[str, str]] = []
        self._overlays: list[Overlay] = []
        self._fresh: list[Fresh] = []
        self._binds: list[tuple[str, str]] = []

    def layout(self) -> HostLayout:
        self._descend("/")
        return HostLayout(
            single_root=False,
            directories=tuple(self._directories),
            symlinks=tuple(self._symlinks),
            overlays=tuple(self._overlays),
            fresh=tuple(self._fresh),
            binds=tuple(self._binds),
        )

    def _descend(self, top: str) -> None:
        # A list instead of recursion: depth is the host's to choose.
        pending = [top]
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)[:_SKELETON_MAX]
            except OSError:
                continue  # not readable: left empty
            for entry in found:
                try:
                    if self._add(entry, is_top=directory == "/"):
                        pending.append(entry.path)
                except OSError:
                    continue  # gone, or not for this user to see

    def _add(self, entry: os.DirEntry[str], *, is_top: bool) -> bool:
        """
        Add one entry; say whether it is a directory to descend into.
        """
        path = entry.path
        if path in OWN:
            return False
        if entry.is_symlink():
            self._symlinks.append((path, os.readlink(path)))
            return False
        found = os.lstat(path)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(found.st_mode):
            mount = self._mounts.get(path)
            if not is_top and os.access(path, os.R_OK) and (mount is None or _is_real(mount)):
                self._binds.append((path, path))
            return False
        if not stat.S_ISDIR(found.st_mode):
            return False
        self._directories.append((path, mode))
        if path in FRESH:
            self._fresh.append(Fresh(target=path, key=_key(path), mode=FRESH[path]))
            return False
        mount = self._mounts.get(path)
        if mount is not None and not _is_real(mount):
            return False  # the empty directory stays
        if not os.access(path, os.R_OK | os.X_OK):
            if is_top:
                # /root is the home of the container's root: it must be able to write there.
                self._fresh.append(Fresh(target=path, key=_key(path), mode=mode))
            return False
        if path in self._above:
            return True
        self._overlays.append(_overlay(path, mode))
        return False
