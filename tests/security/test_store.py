# SPDX-License-Identifier: Apache-2.0
"""
The store against other users and against what containers leave in it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from containerlib.errors import InvalidOption
from containerlib.store import Store
from containerlib.store.paths import open_private


def test_private_even_under_umask_zero(tmp_path: Path) -> None:
    """
    With umask 0 the root, the run root and all collections still have mode 0700
    (containerd, CVE-2024-25621; moby, CVE-2021-41091).
    """
    old = os.umask(0)
    try:
        store = Store(tmp_path / "a" / "root", tmp_path / "run")
        store.containers.create("a" * 64, name="x", files={"f": b""}, directories=["upper"])
        store.blobs.write(b"x")
        store.run_fd()
        store.layers_fd()
        store.tmp_fd()
    finally:
        os.umask(old)
    own = ["", "containers", f"containers/{'a' * 64}", "containers/by-name", "images", "layers", "tmp"]
    modes = {name: stat.S_IMODE((store.root / name).stat().st_mode) for name in own}

    assert dict.fromkeys(own, 0o700) == modes
    assert 0o700 == stat.S_IMODE(store.run_root.stat().st_mode)
    assert not (tmp_path / "a").stat().st_mode & 0o022


@pytest.mark.root
def test_directory_of_another_user(tmp_path: Path) -> None:
    """
    A root that belongs to somebody else is refused, so that nobody lays one out for us.
    """
    (tmp_path / "root").mkdir(mode=0o700)
    os.chown(tmp_path / "root", 12345, 12345)

    with pytest.raises(InvalidOption, match="12345"):
        Store(tmp_path / "root", tmp_path / "run").root_fd()


def test_link_in_a_shared_directory(tmp_path: Path) -> None:
    """
    Below a directory that everybody may write, like /tmp, a link in the place of the root is refused.
    """
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "victim").mkdir(mode=0o700)
    os.symlink(tmp_path / "victim", shared / "containerlib-0")

    with pytest.raises(InvalidOption):
        open_private(shared / "containerlib-0", option="run_root")

    assert [] == os.listdir(tmp_path / "victim")


def test_links_in_place_of_collections(tmp_path: Path) -> None:
    """
    A link in the place of a collection or an object is not followed.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    store.root_fd()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "config.json").write_text("{}")
    os.symlink(tmp_path / "victim", store.root / "containers")

    with pytest.raises(OSError, match="containers"):
        store.containers.ids()

    (store.root / "containers").unlink()
    store.containers.ids()
    os.symlink(tmp_path / "victim", store.root / "containers" / ("a" * 64))
    with pytest.raises(OSError, match="a" * 64):
        store.containers.open("a" * 64)
    store.containers.remove("a" * 64)
    assert ["config.json"] == os.listdir(tmp_path / "victim")


def test_link_in_place_of_a_file(tmp_path: Path) -> None:
    """
    A file of an object that was replaced by a link is neither read nor written through it.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    path = store.containers.create("a" * 64, files={"config.json": b"{}"})
    (tmp_path / "victim").write_text("secret")
    (path / "config.json").unlink()
    os.symlink(tmp_path / "victim", path / "config.json")

    with pytest.raises(OSError, match=r"config\.json"):
        store.containers.read("a" * 64, "config.json")
    store.containers.replace("a" * 64, "config.json", b"new")

    assert ("secret", b"new") == ((tmp_path / "victim").read_text(), (path / "config.json").read_bytes())


@pytest.mark.parametrize("key", ["../victim", "..", ".", "by-name", "/etc", "", ".new-x"])
def test_keys_that_are_paths(tmp_path: Path, key: str) -> None:
    """
    An id or name with a path in it reaches nothing.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    store.containers.ids()
    (tmp_path / "root" / "victim").mkdir()
    for call in (store.containers.resolve, store.containers.remove):
        with pytest.raises(LookupError):
            call(key)

    assert not store.containers.exists(key)
    assert (tmp_path / "root" / "victim").is_dir()
