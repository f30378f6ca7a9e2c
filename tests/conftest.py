# SPDX-License-Identifier: Apache-2.0
"""
What all tests share: an engine of their own, a small image, the markers, and
a check that no module leaves anything behind.

Everything is real; what a machine or a user cannot do is skipped with the
reason.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BUSYBOX = "/bin/busybox"


# ---- who runs the tests ---------------------------------------------------


@pytest.fixture(scope="session", name="lane")
def _lane() -> str:
    """
    `root`, `user` or `single-id`: see tests/lanes.py.
    """
    return os.environ.get("CONTAINERLIB_TEST_LANE") or ("root" if os.geteuid() == 0 else "user")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """
    Skip what this user or machine cannot do.
    """
    for name, reason in MARKERS.items():
        if item.get_closest_marker(name) and (why := reason()):
            pytest.skip(why)


def _not_root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def _not_user() -> str:
    return "" if os.geteuid() != 0 else "is about an ordinary user"


def _no_subids() -> str:
    if os.geteuid() == 0:
        return ""
    name = pwd.getpwuid(os.getuid()).pw_name
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        if not any(line.partition(":")[0] in (name, str(os.getuid())) for line in lines):
            return f"{name} has no range in {path}"
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return "newuidmap is not installed (Debian: uidmap)"
    return ""


def _no_cgroups() -> str:
    if any(_writable_cgroups()):
        return ""
    return "no cgroup that this user may write to"


MARKERS = {"root": _not_root, "user": _not_user, "subids": _no_subids, "cgroups": _no_cgroups}


def _own_cgroups() -> Iterator[Path]:
    """
    The cgroup of this process in each mounted hierarchy.
    """
    inside = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        inside[controllers] = path
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, kind = line.partition(" - ")
        root, target = fields.split()[3:5]
        name, _, options = kind.split(maxsplit=2)
        if name == "cgroup2":
            path = inside.get("", "")
        elif name == "cgroup":
            mounted = set(options.split()[-1].split(","))
            path = next((p for c, p in inside.items() if c and set(c.split(",")) & mounted), "")
        else:
            continue
        if path:
            yield Path(target) / os.path.relpath(path, root)


def _writable_cgroups() -> Iterator[Path]:
    for path in _own_cgroups():
        # A hierarchy that controls nothing cannot set a limit.
        limits = (
            "memory.limit_in_bytes",
            "pids.current",
            "cpu.shares",
            "memory.events",
            "cgroup.controllers",
        )
        if os.access(path, os.W_OK) and any((path / name).exists() for name in limits):
            controllers = path / "cgroup.controllers"
            if not controllers.exists() or controllers.read_text(encoding="utf-8").strip():
                yield path


# ---- an engine and an image -----------------------------------------------


@pytest.fixture(name="engine")
def _engine(tmp_path: Path) -> Iterator[object]:
    """
    An engine of the test's own, current during the test and emptied after it.
    """
    from containerlib.engine import Engine

    with Engine(tmp_path / "root", tmp_path / "run") as engine:
        yield engine
        _empty(engine)


def _empty(engine: object) -> None:
    """
    Remove all containers, then all images: as a user, only the helper can
    delete what belongs to other ids.
    """
    from containerlib.container import Container
    from containerlib.image import Image

    for container in Container.list(all=True, engine=engine):
        container.remove(force=True, volumes=True)
    for image in Image.list(all=True, engine=engine):
        if image.id != "host":
            image.remove(force=True)


@pytest.fixture(scope="session", name="busybox_rootfs")
def _busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A root file system of 2 MB: busybox with a link for each applet, passwd and group.
    """
    if not os.access(BUSYBOX, os.X_OK):
        pytest.skip(f"{BUSYBOX} is not installed (Debian: busybox-static)")
    top = tmp_path_factory.mktemp("busybox") / "rootfs"
    for name in ("bin", "dev", "etc", "home/user", "proc", "root", "sys", "tmp", "usr/bin", "var/tmp"):
        (top / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (top / name).chmod(0o1777)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (top / "bin" / applet).symlink_to("busybox")
    (top / "usr/bin/env").symlink_to("../../bin/env")
    (top / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/:/bin/false\n"
        "user:x:1000:1000:A user:/home/user:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n",
        encoding="utf-8",
    )
    (top / "etc/group").write_text(
        "root:x:0:\ndaemon:x:1:\naudio:x:29:user\nuser:x:1000:\nstaff:x:50:user\nnogroup:x:65534:\n",
        encoding="utf-8",
    )
    return top


@pytest.fixture(scope="session", name="as_archive")
def _as_archive() -> Callable[[Path], Path]:
    """
    Pack a directory into a tar beside it, the same whoever runs the tests, with whatever umask.
    """

    def settled(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if not member.mode & 0o1000:
            member.mode &= ~0o022
        return member

    def pack(directory: Path) -> Path:
        path = directory.with_suffix(".tar")
        with tarfile.open(path, "w") as archive:
            archive.add(directory, ".", filter=settled)
        return path

    return pack


@pytest.fixture(scope="session", name="busybox_archive")
def _busybox_archive(busybox_rootfs: Path, as_archive: Callable[[Path], Path]) -> Path:
    """
    The same as a tar.
    """
    return as_archive(busybox_rootfs)


@pytest.fixture(name="busybox")
def _busybox(engine: object, busybox_archive: Path) -> object:
    """
    The image `busybox` in the test's engine.
    """
    from containerlib.image import Image

    return Image.from_rootfs(busybox_archive, tag="busybox", engine=engine)


# ---- nothing is left behind -----------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    After each module: no mount, cgroup or process of containers that its tests started.
    """
    base = str(tmp_path_factory.getbasetemp())
    cgroups = set(_container_cgroups())
    yield
    left = _left(base, cgroups)
    # A monitor that was just told to end needs a moment; it is not left behind unless it stays.
    deadline = time.monotonic() + 3
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = _left(base, cgroups)
    assert [] == left


def _left(base: str, cgroups: set[Path]) -> list[str]:
    return [
        *(f"mount {path}" for path in _mounts_below(base)),
        *(f"cgroup {path}" for path in sorted(set(_container_cgroups()) - cgroups) if _is_empty(path)),
        *(f"process {pid}: {what}" for pid, what in _helpers_of(base)),
    ]


def _mounts_below(base: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        path = line.split()[4]
        if path.startswith(base + "/"):
            yield path


def _container_cgroups() -> Iterator[Path]:
    for top in _own_cgroups():
        # Below the tests' own cgroup and beside it, where a container's may stand.
        for place in (top, top.parent if top.parent.name != "cgroup" else top):
            try:
                yield from place.glob("containerlib-*")
            except OSError:
                continue


def _is_empty(cgroup: Path) -> bool:
    """
    Whether nothing runs in *cgroup*: others that run tests on this machine have containers that do.
    """
    try:
        return not (cgroup / "cgroup.procs").read_text(encoding="utf-8").strip()
    except OSError:
        return False


def _helpers_of(base: str) -> Iterator[tuple[int, str]]:
    """
    Processes of the helper that hold something open below *base*.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text(encoding="utf-8")
            # Its own name for itself, or that of the memory file while it is young.
            if not name.startswith(("containerlib", "memfd:container")):
                continue
            links = [os.readlink(link) for link in (entry / "fd").iterdir()]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(link.startswith(base + "/") for link in links):
            yield int(entry.name), command.strip()
