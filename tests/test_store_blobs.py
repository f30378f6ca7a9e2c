# SPDX-License-Identifier: Apache-2.0
"""
Blobs by digest, in an OCI layout.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerlib.errors import CorruptState, DigestMismatch
from containerlib.store import Blobs, Descriptor, Store


@pytest.fixture(name="blobs")
def _blobs(tmp_path: Path) -> Iterator[Blobs]:
    store = Store(tmp_path / "root", tmp_path / "run")
    yield store.blobs
    store.close()


def _descriptor(digest: str, **annotations: str) -> Descriptor:
    return Descriptor(media_type="x/y", digest=digest, size=1, annotations=annotations)


def test_write_and_read(blobs: Blobs) -> None:
    """
    What was written is read under its digest, and the file has the digest's name.
    """
    digest = blobs.write(b"hello")

    assert "sha256:" + hashlib.sha256(b"hello").hexdigest() == digest
    assert (b"hello", 5, [digest]) == (blobs.read(digest), blobs.size(digest), blobs.digests())
    assert b"hello" == blobs.path(digest).read_bytes()


def test_damaged_blob(blobs: Blobs) -> None:
    """
    A blob whose content was changed on the disk is refused by name.
    """
    digest = blobs.write(b"hello")
    blobs.path(digest).write_bytes(b"jello")

    with pytest.raises(CorruptState, match=digest[7:]):
        blobs.read(digest)


def test_cut_blob_is_written_again(blobs: Blobs) -> None:
    """
    A blob that a power cut left short is replaced by the next writer.
    """
    digest = blobs.write(b"hello")
    blobs.path(digest).write_bytes(b"")
    blobs.write(b"hello")

    assert b"hello" == blobs.read(digest)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../x",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha512:" + "a" * 64,
        "a" * 64,
        "",
        "sha256:" + "a" * 64 + "\n",
    ],
)
def test_bad_digests(blobs: Blobs, digest: str) -> None:
    """
    A digest that is none never becomes a path.
    """
    for call in (blobs.path, blobs.size, blobs.open, blobs.read, blobs.delete):
        with pytest.raises(DigestMismatch):
            call(digest)
    with pytest.raises(DigestMismatch):
        Descriptor.from_json({"mediaType": "x", "digest": digest, "size": 1})


def test_layout(blobs: Blobs) -> None:
    """
    The directory is an OCI layout: its mark, an index, blobs by algorithm.
    """
    digest = blobs.write(b"{}")
    with blobs.transaction():
        blobs.replace_index((_descriptor(digest, a="b"),))
    top = blobs.path(digest).parent.parent.parent

    assert {"imageLayoutVersion": "1.0.0"} == json.loads((top / "oci-layout").read_text())
    index = json.loads((top / "index.json").read_text())
    assert [{"mediaType": "x/y", "digest": digest, "size": 1, "annotations": {"a": "b"}}] == index[
        "manifests"
    ]
    assert 2 == index["schemaVersion"]


def test_index_of_another_process(blobs: Blobs, tmp_path: Path) -> None:
    """
    A change of the index by another process is seen at once.
    """
    digest = blobs.write(b"{}")
    other = Store(tmp_path / "root", tmp_path / "run").blobs
    seen = [blobs.index()]
    for entries in ((_descriptor(digest),), (), (_descriptor(digest, n="1"),)):
        with other.transaction():
            other.replace_index(entries)
        seen.append(blobs.index())

    assert [(), (_descriptor(digest),), (), (_descriptor(digest, n="1"),)] == seen


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"manifests": [{}]}', '{"manifests": 5}', "\xff"])
def test_damaged_index(blobs: Blobs, text: str) -> None:
    """
    An index that is none is CorruptState and names the file.
    """
    with blobs.transaction():
        blobs.replace_index(())
    (blobs.path("sha256:" + "0" * 64).parent.parent.parent / "index.json").write_text(
        text, encoding="latin-1"
    )

    with pytest.raises(CorruptState, match=r"index\.json"):
        blobs.index()


def test_transactions_exclude_each_other(blobs: Blobs) -> None:
    """
    Threads that add to the index in transactions lose no entry.
    """

    def add(number: int) -> None:
        with blobs.transaction():
            blobs.replace_index((*blobs.index(), _descriptor(f"sha256:{number:064x}")))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [f"sha256:{number:064x}" for number in range(16)] == sorted(e.digest for e in blobs.index())


def test_sweep(blobs: Blobs) -> None:
    """
    Temporary files of dead makers are swept, blobs and those of the living are not.
    """
    digest = blobs.write(b"x")
    folder = blobs.path(digest).parent
    (folder / f".new-abc-1-1-{'0' * 16}").touch()

    blobs.sweep()

    assert [digest[7:]] == os.listdir(folder)
