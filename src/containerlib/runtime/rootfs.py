# SPDX-License-Identifier: Apache-2.0
"""
The steps that make a container's file system: root, mounts, devices, masks.

Order and flags are those of moby's default OCI specification; what differs is
told in docs/explanation.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import DeviceError, MountError, NotSupported
from containerlib.shim import MountFlag, Op
from containerlib.types.inspect import MASKED_PATHS, READONLY_PATHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.runtime.cgroups import CgroupPlan
    from containerlib.runtime.plan import Plan
    from containerlib.types import ContainerConfig, Device, Mount

# linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
NOATIME, STRICTATIME, NODIRATIME = 0x10, 0x20, 0x80
_MS_REC = 0x4000
_PROPAGATION = {"private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}

_NODES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


@attrs.frozen(kw_only=True)
class Overlay:
    """
    One overlay: *lower* top first; *upper* and *work* are empty for none.
    """

    target: str
    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""


@attrs.frozen(kw_only=True)
class RootFilesystem:
    """
    What a container's root is made of.

    An image is one overlay at ``/``.  The host's root, seen by a user, is a
    tmpfs (*skeleton*) with an overlay for each directory, links and plain
    directories between them; *fresh* (source, target) start empty, *binds* are
    read-only files, *masked* is hidden.
    """

    overlays: tuple[Overlay, ...]
    skeleton: bool = False
    symlinks: tuple[tuple[str, str], ...] = ()
    directories: tuple[tuple[str, int], ...] = ()
    fresh: tuple[tuple[str, str], ...] = ()
    binds: tuple[tuple[str, str], ...] = ()
    masked: tuple[str, ...] = ()


def add_root(plan: Plan, root: RootFilesystem, *, volatile: bool, userns: bool) -> None:
    """
    Make the root and what belongs to the image.
    """
    flags = (MountFlag.VOLATILE if volatile else 0) | (MountFlag.USERXATTR if userns else 0)
    overlays = list(root.overlays)
    if root.skeleton:
        plan.add(Op.ROOT_TMPFS, strings=("mode=0755,size=1m",))
        for path, mode in root.directories:
            plan.add(Op.MKDIR, mode, strings=(path,))
        for path, text in root.symlinks:
            plan.add(Op.SYMLINK, strings=(text, path))
    else:
        first = overlays.pop(0)
        plan.add(Op.ROOT_OVERLAY, flags, strings=(first.upper, first.work, *first.lower))
    for overlay in overlays:
        plan.add(Op.OVERLAY, flags, strings=(overlay.target, overlay.upper, overlay.work, *overlay.lower))
    for source, target in root.fresh:
        add_bind(plan, source, target)
    for source, target in root.binds:
        add_bind(plan, source, target, attr_set=RDONLY, flags=MountFlag.RECURSIVE | MountFlag.ATTR_RECURSIVE)


def add_mount(
    plan: Plan, fs_type: str, target: str, attributes: int, *, flags: int = 0, **options: str
) -> None:
    """
    Mount a new file system.
    """
    pairs = [word for key, value in options.items() for word in (key.rstrip("_"), value)]
    plan.add(Op.MOUNT, attributes, flags, strings=(fs_type, target, *pairs))


def add_bind(
    plan: Plan,
    source: str,
    target: str,
    *,
    attr_set: int = 0,
    attr_clear: int = 0,
    flags: int = 0,
    propagation: int = _PROPAGATION["private"] | _MS_REC,
    pidfd: int = -1,
    subpath: str = "",
) -> None:
    """
    Bind a file or directory of the host.
    """
    flags |= MountFlag.CREATE_AUTO
    plan.add(Op.BIND, attr_set, attr_clear, flags, propagation, pidfd, strings=(source, target, subpath))


def add_standard_mounts(
    plan: Plan,
    config: ContainerConfig,
    cgroups: CgroupPlan,
    *,
    single_id: bool,
    userns: bool,
    shm_pidfd: int = -1,
) -> None:
    """
    /proc, /dev, /sys, control groups, message queues and shared memory.
    """
    exact = MountFlag.EXACT | MountFlag.CREATE_DIR
    fallback = exact | MountFlag.FALLBACK_BIND
    # The host's own instance shows the host's processes: it serves nobody but
    # who shares their namespace.
    proc = fallback if config.pid == "host" else exact
    add_mount(plan, "proc", "/proc", NOSUID | NODEV | NOEXEC, flags=proc)
    add_mount(plan, "tmpfs", "/dev", NOSUID | STRICTATIME, flags=exact, mode="755", size="65536k")
    pts = {"newinstance": "", "ptmxmode": "0666", "mode": "0620"}
    if not single_id:
        pts["gid"] = "5"
    add_mount(plan, "devpts", "/dev/pts", NOSUID | NOEXEC, flags=exact, **pts)
    writable = config.privileged
    sys_attributes = NOSUID | NODEV | NOEXEC | (0 if writable else RDONLY)
    add_mount(plan, "sysfs", "/sys", sys_attributes, flags=fallback)
    _add_cgroups(plan, config, cgroups, 0 if writable else RDONLY, userns=userns)
    # A host need not have mounted its own.
    queues = fallback | MountFlag.OPTIONAL if config.ipc == "host" else exact
    add_mount(plan, "mqueue", "/dev/mqueue", NOSUID | NODEV | NOEXEC, flags=queues)
    if config.ipc == "host":
        add_bind(plan, "/dev/shm", "/dev/shm", attr_set=NOSUID | NODEV | NOEXEC)
    elif shm_pidfd >= 0:
        add_bind(plan, "/dev/shm", "/dev/shm", attr_set=NOSUID | NODEV | NOEXEC, pidfd=shm_pidfd)
    elif config.ipc != "none":
        size = f"{config.shm_size // 1024}k" if config.shm_size % 1024 == 0 else str(config.shm_size)
        add_mount(plan, "tmpfs", "/dev/shm", NOSUID | NODEV | NOEXEC, flags=exact, mode="1777", size=size)


def _add_cgroups(
    plan: Plan, config: ContainerConfig, cgroups: CgroupPlan, readonly: int, *, userns: bool
) -> None:
    """
    What the container may know of its groups: a view that starts at them.
    """
    attributes = NOSUID | NODEV | NOEXEC | readonly
    optional = MountFlag.OPTIONAL
    versions = {directory.version for directory in cgroups.directories}
    if config.cgroup == "host":
        flags = MountFlag.RECURSIVE | MountFlag.ATTR_RECURSIVE | optional
        add_bind(plan, "/sys/fs/cgroup", "/sys/fs/cgroup", attr_set=attributes, flags=flags)
        return
    if versions <= {2}:
        add_mount(plan, "cgroup2", "/sys/fs/cgroup", attributes, flags=optional)
        return
    add_mount(plan, "tmpfs", "/sys/fs/cgroup", NOSUID | NODEV | NOEXEC, mode="755", size="64k")
    for directory in cgroups.directories:
        if directory.version == 1:
            name = ",".join(directory.controllers)
            options = dict.fromkeys(directory.controllers, "")
            add_mount(plan, "cgroup", f"/sys/fs/cgroup/{name}", attributes, flags=optional, **options)
        elif not userns:
            add_mount(plan, "cgroup2", "/sys/fs/cgroup/unified", attributes, flags=optional)
    if readonly:
        plan.add(Op.READONLY_PATH, 1, strings=("/sys/fs/cgroup",))


def add_devices(plan: Plan, config: ContainerConfig, *, userns: bool) -> None:
    """
    The default nodes and links, then what was asked for.
    """
    bind = MountFlag.FALLBACK_BIND if userns else 0
    for name, minor in _NODES:
        plan.add(
            Op.DEVICE, stat.S_IFCHR | 0o666, 1, minor, 0, 0, bind, strings=(f"/dev/{name}", f"/dev/{name}")
        )
    plan.add(Op.DEVICE, stat.S_IFCHR | 0o666, 5, 0, 0, 0, bind, strings=("/dev/tty", "/dev/tty"))
    for text, path in _LINKS:
        plan.add(Op.SYMLINK, strings=(text, path))
    plan.add(Op.SYMLINK, strings=("/proc/kcore", "/dev/core"))
    taken = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
    for source, target, permissions in _expand(config.devices):
        _add_device(plan, source, target, bind, subject=config.name)
        taken.add(target)
        del permissions  # the control group enforces them
    if config.privileged:
        for source in _host_devices():
            if source not in taken:
                _add_device(plan, source, source, bind, subject=config.name)


def _expand(devices: Sequence[Device]) -> Iterable[tuple[str, str, str]]:
    """
    Single nodes: a directory stands for all devices in it.
    """
    for device in devices:
        source = os.path.realpath(device.source)
        if os.path.isdir(source):
            for directory, _, names in os.walk(source):
                for name in names:
                    path = os.path.join(directory, name)
                    target = device.target + path[len(source) :]
                    yield path, target, device.permissions
        else:
            yield source, device.target, device.permissions


def _add_device(plan: Plan, source: str, target: str, bind: int, *, subject: str) -> None:
    try:
        found = os.stat(source)
    except OSError as error:
        message = f"devices={source!r}: {error.strerror}; give the path of a device that this host has"
        code = error.errno or 0
        raise DeviceError(message, subject=subject, stage="device", errno=code, path=source) from error
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        message = f"devices={source!r} is not a device; use volumes= for files and directories"
        raise DeviceError(message, subject=subject, stage="device", path=source)
    plan.add(
        Op.DEVICE,
        found.st_mode,
        os.major(found.st_rdev),
        os.minor(found.st_rdev),
        found.st_uid if not bind else 0,
        found.st_gid if not bind else 0,
        bind,
        strings=(source, target),
    )


def _host_devices() -> Iterable[str]:
    """
    The nodes that a privileged container gets: all of /dev but what it has
    its own of.
    """
    for directory, names, files in os.walk("/dev"):
        if directory == "/dev":
            names[:] = [name for name in names if name not in ("pts", "shm", "mqueue", "fd", ".lxc")]
        for name in files:
            path = os.path.join(directory, name)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) or path in ("/dev/console", "/dev/ptmx"):
                continue
            if os.access(path, os.R_OK) or os.geteuid() == 0:
                yield path


def add_volumes(plan: Plan, mounts: Sequence[Mount], volume_path: dict[str, str], *, subject: str) -> None:
    """
    Bind mounts, volumes and tmpfs, shallow targets first.
    """
    for mount in sorted(mounts, key=lambda m: m.target.count("/")):
        if mount.type == "tmpfs":
            _add_tmpfs(plan, mount)
            continue
        if mount.type == "bind":
            source = mount.source or ""
            _check_source(mount, source, subject)
        else:
            source = volume_path[mount.target]
        _add_bind_mount(plan, mount, source)


def _check_source(mount: Mount, source: str, subject: str) -> None:
    try:
        os.stat(source)
    except FileNotFoundError:
        if mount.create_source:
            os.makedirs(source, mode=0o755, exist_ok=True)
            return
        message = f"volumes: {source!r} does not exist on this host; make it first, or name a volume"
        raise MountError(message, subject=subject, stage="mount", errno=2, path=source) from None
    except OSError as error:
        message = f"volumes: {source!r}: {error.strerror}"
        raise MountError(
            message, subject=subject, stage="mount", errno=error.errno or 0, path=source
        ) from error


def _add_bind_mount(plan: Plan, mount: Mount, source: str) -> None:
    attr_set = attr_clear = 0
    for option in mount.options:
        attr_set |= _OPTION_SET.get(option, 0)
        attr_clear |= _OPTION_CLEAR.get(option, 0)
    flags = 0
    if mount.recursive:
        flags |= MountFlag.RECURSIVE
    if mount.read_only:
        attr_set |= RDONLY
        flags |= MountFlag.ATTR_RECURSIVE
    word = mount.propagation or "rprivate"
    propagation = _PROPAGATION[word.removeprefix("r") if word != "private" else word]
    if word.startswith("r"):
        propagation |= _MS_REC
    add_bind(
        plan,
        source,
        mount.target,
        attr_set=attr_set,
        attr_clear=attr_clear,
        flags=flags,
        propagation=propagation,
        subpath=mount.subpath or "",
    )


_OPTION_SET = {"nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC, "ro": RDONLY, "noatime": NOATIME}
_OPTION_CLEAR = {"suid": NOSUID, "dev": NODEV, "exec": NOEXEC}


def _add_tmpfs(plan: Plan, mount: Mount) -> None:
    """
    A tmpfs; Docker's flags are noexec, nosuid and nodev unless told otherwise.
    """
    attributes = NOSUID | NODEV | NOEXEC | (RDONLY if mount.read_only else 0)
    options: dict[str, str] = {}
    flags = MountFlag.INHERIT_MODE
    for option in mount.options:
        key, equals, value = option.partition("=")
        if key in _OPTION_CLEAR:
            attributes &= ~_OPTION_CLEAR[key]
        elif key in _OPTION_SET:
            attributes |= _OPTION_SET[key]
        elif key in ("size", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol") and equals:
            options[key] = value
        elif key not in ("rw", "relatime", "strictatime", "diratime", "async", "z", "Z"):
            message = f"tmpfs: option {option!r} is not one that containerlib passes on"
            raise NotSupported(message, subject=option)
    if mount.tmpfs_size is not None:
        options["size"] = str(mount.tmpfs_size)
    if mount.tmpfs_mode is not None:
        options["mode"] = f"{mount.tmpfs_mode:o}"
        flags = MountFlag(0)
    add_mount(plan, "tmpfs", mount.target, attributes, flags=flags, **options)


def add_network_files(plan: Plan, directory: str, mounts: Sequence[Mount], *, read_only: bool) -> None:
    """
    /etc/hosts, /etc/hostname and /etc/resolv.conf from the run directory,
    unless something else is mounted there.
    """
    targets = {mount.target for mount in mounts}
    for name in ("resolv.conf", "hostname", "hosts"):
        if f"/etc/{name}" not in targets:
            add_bind(plan, f"{directory}/{name}", f"/etc/{name}", attr_set=RDONLY if read_only else 0)


def add_read_only(plan: Plan, root: RootFilesystem, mounts: Sequence[Mount]) -> None:
    """
    The root and all that belongs to the image, but not what is mounted over it.
    """
    plan.add(Op.ROOT_READONLY)
    covered = {mount.target for mount in mounts}
    own = [overlay.target for overlay in root.overlays] + [target for _, target in root.fresh]
    for target in own:
        if target != "/" and target not in covered:
            plan.add(Op.READONLY_PATH, 1, strings=(target,))


def add_masks(plan: Plan, config: ContainerConfig, extra: Sequence[str] = ()) -> None:
    """
    Read-only and hidden paths; a privileged container has none.
    """
    for path in extra:
        plan.add(Op.MASK_PATH, strings=(path,))
    if config.privileged or config.security.unmask:
        return
    for path in READONLY_PATHS:
        plan.add(Op.READONLY_PATH, 0, strings=(path,))
    for path in (*MASKED_PATHS, *_thermal()):
        plan.add(Op.MASK_PATH, strings=(path,))


_thermal_paths: tuple[str, ...] | None = None


def _thermal() -> tuple[str, ...]:
    """
    Each processor's throttling counters, which tell of other loads (moby
    GHSA-6fw5-f8r9-fgfm); looked for once.
    """
    global _thermal_paths  # the host's processors do not change
    if _thermal_paths is None:
        base = "/sys/devices/system/cpu"
        found = []
        if os.path.isdir(base):
            for name in sorted(os.listdir(base)):
                path = f"{base}/{name}/thermal_throttle"
                if name.startswith("cpu") and os.path.isdir(path):
                    found.append(path)
        _thermal_paths = tuple(found)
    return _thermal_paths
