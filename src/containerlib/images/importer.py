# SPDX-License-Identifier: Apache-2.0
"""
Making an image from a root file system: a directory, or a tar archive.

The content is read once.  On the way it is hashed, kept as the image's layer
blob, and unpacked; the layer, the documents and the name become visible
together at the end, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import attrs

from containerlib.errors import ContainerlibError, InvalidArchive, InvalidOption, KernelError
from containerlib.images import compression, library, pack
from containerlib.images.archive import Limits, TarReader
from containerlib.images.model import (
    CONFIG_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    ImageRecord,
    check_config,
    encode,
    host_platform,
    new_config,
    new_manifest,
    timestamp,
)
from containerlib.images.unpack import Unpacker
from containerlib.store import Descriptor, Store
from containerlib.store.paths import DIRECTORY

CHUNK = 1 << 20
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def import_rootfs(
    store: Store,
    source: str | os.PathLike[str] | BinaryIO,
    *,
    tag: str | None = None,
    config: Mapping[str, Any] | None = None,
    userns_fd: int | None = None,
    single_id: bool = False,
    limits: Limits | None = None,
    durable: bool = True,
) -> ImageRecord:
    """
    Make an image from a directory, a tar archive or an open file with one.

    The archive may be compressed with gzip, bzip2, xz or zstd, which its
    content tells.  *config* has Docker's names: Cmd, Entrypoint, Env and so
    on.  As root owners are kept; in the user namespace *userns_fd* they are
    kept as its ids; with *single_id* all files belong to the user.  With
    *durable*, everything is on the disk before the image becomes visible.

    Raises:
        InvalidArchive: Not a tar archive, damaged, or leading out of itself.
        InvalidOption: *source* cannot be read, or *config* is not one.
        KernelError: The files cannot be made, for instance for want of space.
    """
    checked = check_config(config)
    name = None if tag is None else str(library._taggable(tag))  # one room
    with store.workspace("import", userns_fd=userns_fd) as workspace:
        os.mkdir("layer", 0o700, dir_fd=workspace)
        os.mkdir(f"layer/{library.LAYER_ROOT}", 0o700, dir_fd=workspace)
        root = os.open(f"layer/{library.LAYER_ROOT}", DIRECTORY | os.O_NOFOLLOW, dir_fd=workspace)
        try:
            os.fchmod(root, 0o755)  # unless the archive has another mode for it
            # Nothing is committed before the source has been closed: packing may have failed at its end.
            with (
                _opened(source) as stream,
                open(os.open("blob", _CREATE, 0o600, dir_fd=workspace), "wb") as blob,
            ):
                unpacker = Unpacker(root, userns_fd=userns_fd, single_id=single_id, sync=durable)
                layer = _unpack_layer(stream, blob, limits=limits, unpacker=unpacker)
                blob.flush()
                if durable:
                    os.fsync(blob.fileno())
        except InvalidArchive as error:
            raise InvalidArchive(
                f"cannot import {_label(source)}: {error}", subject=_label(source)
            ) from error
        finally:
            os.close(root)
        return _commit(
            store, workspace, layer=layer, name=name, config=checked, label=_label(source), durable=durable
        )


def _label(source: str | os.PathLike[str] | BinaryIO) -> str:
    """
    Say in messages what is imported.
    """
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", "the given file"))


@attrs.frozen(kw_only=True)
class _Layer:
    """
    What was learnt about the layer while it was read.
    """

    diff_id: str
    blob: Descriptor
    size: int


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """
    Open *source* as a stream of bytes; a directory becomes a tar archive.
    """
    if not isinstance(source, str | os.PathLike):
        yield source
        return
    path = Path(source)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidOption(f"cannot import {str(path)!r}: {error.strerror}", subject=str(path)) from error
    if not path.is_dir():
        with open(fd, "rb", buffering=0) as file:
            yield file
        return
    try:
        with _packed(fd) as stream:
            yield stream
    finally:
        os.close(fd)


@contextlib.contextmanager
def _packed(fd: int) -> Iterator[BinaryIO]:
    """
    Yield the tree behind *fd* as a tar archive, written by another thread.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with open(writer, "wb", buffering=CHUNK) as out:
                pack.write_tar(fd, out)
        except BrokenPipeError:
            pass  # the reader failed, and says why
        except OSError as error:
            name = os.fsdecode(error.filename or b"")
            failure.append(
                KernelError(
                    f"read {name!r} of the directory", errno=error.errno or 0, stage="import", path=name
                )
            )
        except BaseException as error:  # raised again by the reader's thread
            failure.append(error)

    thread = threading.Thread(target=write, name="containerlib-pack")
    thread.start()
    try:
        with open(reader, "rb", buffering=0) as stream:
            yield stream
    except InvalidArchive:
        thread.join()
        if failure:  # the archive is cut off because of it
            raise failure[0] from None
        raise
    finally:
        thread.join()
    if failure:
        raise failure[0]


class _Tee(io.RawIOBase):
    """
    A stream that hashes, and with *copy* keeps, what is read through it.

    *head* was read from the source before.
    """

    def __init__(
        self, source: IO[bytes] | BinaryIO, *, head: bytes = b"", copy: IO[bytes] | None = None
    ) -> None:
        self._source = source
        self._head = head
        self._copy = copy
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """
        The digest of what was read so far.
        """
        return "sha256:" + self._hash.hexdigest()

    def readable(self) -> bool:
        """
        Say yes: the buffered reader above asks.
        """
        return True

    def readinto(self, buffer: Any) -> int:
        """
        Read some bytes, as many as there are at once.
        """
        wanted = len(buffer)
        if self._head:
            data, self._head = self._head[:wanted], self._head[wanted:]
        else:
            data = self._source.read(wanted)
        if not data:
            return 0
        self._hash.update(data)
        if self._copy is not None:
            self._copy.write(data)
        self.size += len(data)
        buffer[: len(data)] = data
        return len(data)


_KEPT = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}
"""
Compressions that OCI has a media type for; other layers are kept plain.
"""


def _unpack_layer(source: BinaryIO, blob: IO[bytes], *, limits: Limits | None, unpacker: Unpacker) -> _Layer:
    with unpacker:
        head = source.read(CHUNK) or b""
        kind = compression.detect(head)
        raw = _Tee(source, head=head, copy=blob if kind in _KEPT else None)
        buffered = io.BufferedReader(raw, CHUNK)
        if kind == "plain":
            content, stream = raw, buffered
        else:
            content = _Tee(compression.decompressed(buffered, kind), copy=None if kind in _KEPT else blob)
            stream = io.BufferedReader(content, CHUNK)
        tar = TarReader(stream, limits=limits)
        with _damage(kind):
            for entry in tar:
                unpacker.add(entry, tar.read)
            tar.drain()
            while buffered.read(CHUNK):  # what follows the compressed content is part of the blob
                pass
        unpacker.finish()
    kept = raw if kind in _KEPT else content
    return _Layer(
        diff_id=content.digest,
        size=tar.total,
        blob=Descriptor(media_type=LAYER_TYPE + _KEPT.get(kind, ""), digest=kept.digest, size=kept.size),
    )


@contextlib.contextmanager
def _damage(kind: str) -> Iterator[None]:
    """
    Turn what decompressors raise into InvalidArchive.
    """
    try:
        yield
    except ContainerlibError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # theirs have no errno: this is the disk
            raise KernelError(f"import: {error.strerror}", errno=error.errno, stage="import") from error
        damaged = isinstance(error, OSError | EOFError) or type(error).__name__ in _DECOMPRESSOR_ERRORS
        if not damaged:
            raise
        raise InvalidArchive(f"the {kind} stream is damaged: {error}") from error


_DECOMPRESSOR_ERRORS = ("LZMAError", "ZstdError", "IsalError", "error")


def _commit(
    store: Store,
    workspace: int,
    *,
    layer: _Layer,
    name: str | None,
    config: dict[str, Any],
    label: str,
    durable: bool,
) -> ImageRecord:
    """
    Make layer, blobs, documents and name visible.
    """
    created = timestamp()
    document = new_config(
        config=config,
        diff_ids=[layer.diff_id],
        created=created,
        comment=f"Imported from {os.path.basename(label)}",
    )
    data = encode(document)
    info = encode({"size": layer.size})
    with open(os.open(f"layer/{library.LAYER_INFO}", _CREATE, 0o600, dir_fd=workspace), "wb") as file:
        file.write(info)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    blobs = store.blobs
    with blobs.transaction():
        if not library.has_layer(store, layer.diff_id):
            os.rename("layer", layer.diff_id[7:], src_dir_fd=workspace, dst_dir_fd=store.layers_fd())
            if durable:
                os.fsync(store.layers_fd())
        if blobs.size(layer.blob.digest) is None:
            blobs.adopt("blob", layer.blob.digest, dir_fd=workspace)
        config_blob = Descriptor(media_type=CONFIG_TYPE, digest=blobs.write(data), size=len(data))
        manifest = encode(new_manifest(config_blob, [layer.blob]))
        entry = Descriptor(
            media_type=MANIFEST_TYPE,
            digest=blobs.write(manifest),
            size=len(manifest),
            platform=host_platform(),
        )
        blobs.replace_index(library.named(blobs.index(), entry, name))
    return library.get(store, config_blob.digest)
