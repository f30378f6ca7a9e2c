# SPDX-License-Identifier: Apache-2.0
"""
The host's root file system as an image.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.container import Container
from containerlib.image import Image
from containerlib.images import host, host_layout, host_record
from containerlib.images.host import parse_mountinfo


def test_record() -> None:
    """
    The host's image is named host and has no layers.
    """
    record = host_record()

    assert ("host", ("host",), (), True) == (record.id, record.tags, record.layers, record.is_host)


def test_single_root() -> None:
    """
    As root the first overlay is that of /, with all of its own file system.
    """
    layout = host_layout(rootless=False)

    assert layout.single_root
    assert ("/", "/") == (layout.overlays[0].target, layout.overlays[0].lower)
    assert () == layout.symlinks


def test_skeleton_covers_the_root() -> None:
    """
    As a user every readable top-level directory is there, as an overlay, a skeleton or empty.
    """
    layout = host_layout(rootless=True)
    made = {path for path, _ in layout.directories} | {path for path, _ in layout.symlinks}
    expected = {
        f"/{name}"
        for name in os.listdir("/")
        if stat.S_IFMT(os.lstat(f"/{name}").st_mode) in (stat.S_IFDIR, stat.S_IFLNK)
    } - host.OWN

    assert not layout.single_root
    assert expected <= made
    assert {f"/{name}" for name in ("usr", "etc")} & {o.target for o in layout.overlays} or any(
        path.startswith("/etc/") for path, _ in layout.directories
    )


def test_no_overlay_over_mounts() -> None:
    """
    As a user no overlay is laid over a directory that has a mount below it.
    """
    targets = [m.target for m in parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())]
    for overlay in host_layout(rootless=True).overlays:
        assert not any(target.startswith(overlay.lower.rstrip("/") + "/") for target in targets)


@pytest.mark.parametrize("rootless", [True, False])
def test_never_shown(rootless: bool) -> None:
    """
    Neither /proc, /sys and /dev, nor what is in /run and /tmp shows.
    """
    layout = host_layout(rootless=rootless)
    shown = [o.lower for o in layout.overlays] + [source for source, _ in layout.binds]
    tops = (*host.OWN, *host.FRESH)

    assert not [path for path in shown if any(path == top or path.startswith(top + "/") for top in tops)]
    assert {"/run": 0o755, "/tmp": 0o1777} == {
        f.target: f.mode for f in layout.fresh if f.target in host.FRESH
    }


@pytest.mark.parametrize("rootless", [True, False])
def test_keys_are_names(rootless: bool) -> None:
    """
    Each overlay and empty directory has a key of its own that is one plain component.
    """
    layout = host_layout(rootless=rootless)
    keys = [part.key for part in (*layout.overlays, *layout.fresh)]

    assert len(keys) == len(set(keys))
    assert not [key for key in keys if not key or set("/:,\\") & set(key) or key in (".", "..")]


@pytest.mark.parametrize("rootless", [True, False])
def test_masks(rootless: bool) -> None:
    """
    What is hidden and the engine's own paths are masked, unless they do not show anyway.
    """
    layout = host_layout(
        rootless=rootless, hide=["/etc/../etc", "/nope", "/tmp", "usr"], engine_paths=["/var"]
    )

    assert ("/etc", "/usr", "/var") == layout.masked


def test_layout_is_kept() -> None:
    """
    A second look at an unchanged host costs no second walk.
    """
    before = host._layout.cache_info().hits
    host_layout(rootless=True)
    host_layout(rootless=True)

    assert host._layout.cache_info().hits > before


def test_layout_of_mounts(tmp_path: Path) -> None:
    """
    Below a directory with mounts the skeleton goes on, pseudo file systems stay empty, real ones show.
    """
    top = tmp_path
    for name in ("a/real", "a/pseudo", "a/plain", "b"):
        (top / name).mkdir(parents=True)
    (top / "a" / "file").touch()
    os.symlink("plain", top / "a" / "link")
    mounts = {
        str(top / "a/real"): host.MountPoint(target=str(top / "a/real"), type="ext4"),
        str(top / "a/pseudo"): host.MountPoint(target=str(top / "a/pseudo"), type="tmpfs"),
    }
    skeleton = host._Skeleton(mounts)
    skeleton._descend(str(top))

    assert [str(top / name) for name in ("b", "a/plain", "a/real")] == [o.target for o in skeleton._overlays]
    assert [str(top / name) for name in ("a", "b", "a/plain", "a/pseudo", "a/real")] == [
        path for path, _ in skeleton._directories
    ]
    assert [(str(top / "a/file"),) * 2] == skeleton._binds
    assert [(str(top / "a/link"), "plain")] == skeleton._symlinks


MOUNTINFO = rb"""21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:21 / /proc rw shared:5 master:3 - proc proc rw
23 21 8:1 /sub /with\040space\134x rw - xfs /dev/sda1 rw
broken line
24 21 0:30 / /fuse rw - fuse.sshfs host rw
"""


def test_mountinfo() -> None:
    """
    Mount points are read with their types; escapes are undone and broken lines left out.
    """
    found = [(mount.target, mount.type) for mount in parse_mountinfo(MOUNTINFO)]

    assert [("/", "ext4"), ("/proc", "proc"), ("/with space\\x", "xfs"), ("/fuse", "fuse.sshfs")] == found


@given(st.binary(max_size=200))
def test_any_mountinfo(data: bytes) -> None:
    """
    No text makes the reader fail.
    """
    parse_mountinfo(data)


def test_hidden_paths_are_hidden_in_a_container(engine: object) -> None:
    """
    What `hide` names is empty inside, whichever call made the container.
    """
    image = Image.host(hide=["/etc/passwd", "/usr/share"])
    command = ["sh", "-c", "cat /etc/passwd; ls /usr/share"]
    container = Container.create(image, command, network="none")
    container.start()

    assert 0 == container.wait()
    assert "" == container.logs() == image.run(command, network="none").stdout
