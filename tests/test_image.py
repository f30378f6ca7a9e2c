# SPDX-License-Identifier: Apache-2.0
"""
The class Image: made, found, listed, named, described, removed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerlib import images
from containerlib.engine import Engine
from containerlib.errors import Conflict, ImageNotFound, InvalidReference
from containerlib.image import Image


@pytest.fixture(name="engine", autouse=True)
def _engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "root", tmp_path / "run") as engine:
        yield engine
        for image in Image.list(all=True):
            image.remove(force=True)


@pytest.fixture(name="archive")
def _archive() -> io.BytesIO:
    """
    An archive with a file of root's, one of user 1000's, and a directory that only root may enter.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, uid, mode in (
            ("private", tarfile.DIRTYPE, 1000, 0o700),
            ("private/deep", tarfile.DIRTYPE, 1000, 0o500),
            ("private/deep/file", tarfile.REGTYPE, 1000, 0o600),
            ("etc", tarfile.DIRTYPE, 0, 0o755),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode = kind, uid, uid, mode
            tar.addfile(info)
    out.seek(0)
    return out


def test_from_rootfs(archive: io.BytesIO) -> None:
    """
    An image has the names and the configuration that it was made with.
    """
    image = Image.from_rootfs(archive, tag="app", config={"Cmd": ["x"], "Labels": {"a": "b"}})

    assert (("app:latest",), {"a": "b"}, ["x"]) == (image.tags, image.labels, image.config["Cmd"])
    assert ("linux", 1, True) == (image.os, len(image.layers), image.created.endswith("Z"))
    assert image.id.startswith("sha256:" + image.short_id)
    assert (f"app@{image.digest}",) == image.digests


def test_get_and_exists(archive: io.BytesIO) -> None:
    """
    An image is found by name and by the beginning of its id; what is not there is ImageNotFound.
    """
    image = Image.from_rootfs(archive, tag="app")

    assert image == Image.get("app") == Image.get(image.short_id)
    assert (True, False) == (Image.exists("app"), Image.exists("other"))
    with pytest.raises(ImageNotFound, match="other"):
        Image.get("other")


def test_list(archive: io.BytesIO) -> None:
    """
    Images are listed newest first, by pattern, label and whether they have a name.
    """
    one = Image.from_rootfs(archive, tag="me/one:1", config={"Labels": {"k": "v"}})
    archive.seek(0)
    two = Image.from_rootfs(archive, tag="two:2", config={"Labels": {"k": "w"}})
    archive.seek(0)
    three = Image.from_rootfs(archive, config={"Cmd": ["x"]})

    assert [three, two, one] == Image.list()
    assert [one] == Image.list(reference="me/*")
    assert [two] == Image.list(reference="two") == Image.list(reference="two:*")
    assert ([three], [two, one]) == (Image.list(dangling=True), Image.list(dangling=False))
    assert ([one], [two, one]) == (Image.list(labels={"k": "v"}), Image.list(labels="k"))
    assert [two] == Image.list(labels=["k=w"])


def test_names_are_current(archive: io.BytesIO) -> None:
    """
    An image object tells the present names, also those that others gave or took.
    """
    image = Image.from_rootfs(archive, tag="app")
    other = Image.get("app")
    other.tag("new:1")
    other.untag("app")

    assert ("new:1",) == image.tags
    image.remove()
    assert ((), ()) == (image.tags, other.tags)


def test_untag_of_another_image(archive: io.BytesIO) -> None:
    """
    A name of another image cannot be taken away through this one.
    """
    image = Image.from_rootfs(archive, tag="app")
    archive.seek(0)
    Image.from_rootfs(archive, tag="other", config={"Cmd": ["x"]})

    with pytest.raises(ImageNotFound, match="other"):
        image.untag("other")
    with pytest.raises(InvalidReference):
        image.tag("Not A Name")


def test_inspect(archive: io.BytesIO) -> None:
    """
    The description has Docker's fields.
    """
    image = Image.from_rootfs(archive, tag="app", config={"Env": ["A=b"]})
    found = image.inspect()

    assert (image.id, ["app:latest"], {"Env": ["A=b"]}) == (found["Id"], found["RepoTags"], found["Config"])
    assert {"Type": "layers", "Layers": list(image.layers)} == found["RootFS"]
    assert {"Architecture", "Created", "GraphDriver", "Os", "RepoDigests", "Size"} <= found.keys()


def test_history(archive: io.BytesIO) -> None:
    """
    The history has one step, with the id and the names.
    """
    image = Image.from_rootfs(archive, tag="app")

    assert [(image.id, ["app:latest"], image.size)] == [
        (step["Id"], step["Tags"], step["Size"]) for step in image.history()
    ]


def test_remove(engine: Engine, archive: io.BytesIO) -> None:
    """
    A removed image leaves nothing on the disk, whoever owns its files.
    """
    image = Image.from_rootfs(archive, tag="app")
    image.remove()

    assert not Image.exists("app")
    assert [] == list((engine.root / "layers" / "sha256").iterdir())
    assert [] == list((engine.root / "images" / "blobs" / "sha256").iterdir())


@pytest.mark.subids
def test_owners(engine: Engine, archive: io.BytesIO) -> None:
    """
    Files belong to the ids of the archive, as root or mapped into the user's range.
    """
    image = Image.from_rootfs(archive)
    root = images.lower_directories(engine.store, image.record)[0]
    mapping = engine.mapping
    outside = {0: 0, 1000: 1000}
    for inside, first, count in mapping.uids:
        for uid in outside:
            if inside <= uid < inside + count:
                outside[uid] = first + uid - inside

    assert outside[1000] == (root / "private").stat().st_uid
    assert outside[0] == (root / "etc").stat().st_uid


def test_host() -> None:
    """
    The host's file system is an image that cannot be named anew or removed.
    """
    host = Image.host(hide=["/home"])

    assert ("host", ("host",), ("/home",)) == (host.id, host.tags, host.hidden)
    assert Image.get("host") == Image.host()
    assert Image.host() != host
    assert Image.list() == []
    with pytest.raises(Conflict):
        host.remove(force=True)
    with pytest.raises(Conflict):
        host.tag("x")
