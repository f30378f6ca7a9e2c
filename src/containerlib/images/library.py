# SPDX-License-Identifier: Apache-2.0
"""
The images of a store: looking up, naming, removing.

``images/index.json`` has one descriptor for each tag and one without a name
for an image that has none; everything else follows from the blobs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from containerlib.errors import (
    Conflict,
    ContainerlibError,
    CorruptState,
    ImageNotFound,
    InvalidReference,
    NotFound,
)
from containerlib.images.host import host_record
from containerlib.images.model import HOST, ImageRecord, read_document
from containerlib.images.reference import Reference
from containerlib.store import Descriptor, Store, makers, remove_tree
from containerlib.store.blobs import REF_NAME, check_digest
from containerlib.store.names import list_directory
from containerlib.types import ContainerConfig

_HEX = re.compile(r"[0-9a-f]{1,64}")

LAYER_ROOT = "root"
LAYER_INFO = "layer.json"


def images(store: Store, *, cached: bool = False) -> list[ImageRecord]:
    """
    Return all images, newest first, without the host's own.

    An image whose documents are damaged is left out: it must not hide the
    others.  Naming it says what is wrong.
    """
    found = []
    for entries in _by_digest(store).values():
        try:
            found.append(_load(store, entries, cached=cached))
        except CorruptState:
            continue
    return sorted(_merged(found), key=lambda record: record.created, reverse=True)


def find(store: Store, key: str, *, cached: bool = False) -> ImageRecord | None:
    """
    Return the image that *key* means, or None.

    A full id, else a reference, else the beginning of exactly one id, with
    or without ``sha256:``; ``host`` is the host's own root file system.

    With *cached*, documents that this process has read are not read again
    while the index stays the same: starting containers need not see damage
    done since.

    Raises:
        Conflict: The beginning of several ids.
        InvalidReference: Neither an id nor a reference.
    """
    if key == HOST:
        return host_record()
    by_digest = _by_digest(store)
    hexadecimal = key.removeprefix("sha256:")
    if not key.startswith("sha256:") and len(hexadecimal) != 64:
        wanted = _find_reference(by_digest, key)
        if wanted is not None:
            return _merge_tags(store, _load(store, wanted, cached=cached), by_digest, cached=cached)
    if not _HEX.fullmatch(hexadecimal):
        return None
    matches = {r.id: r for r in images(store, cached=cached) if r.id[7:].startswith(hexadecimal)}
    if len(matches) > 1:
        raise Conflict(
            f"{len(matches)} images have an id that begins with {hexadecimal!r}; give more of it", subject=key
        )
    return next(iter(matches.values()), None)


def get(store: Store, key: str) -> ImageRecord:
    """
    Return the image that *key* means; see `find`.

    Raises:
        ImageNotFound: There is none.
    """
    record = find(store, key)
    if record is None:
        raise ImageNotFound(f"there is no image {key!r} in {store.root}", subject=key)
    return record


def _find_reference(by_digest: dict[str, list[Descriptor]], key: str) -> list[Descriptor] | None:
    try:
        reference = Reference.parse(key).with_default_tag()
    except InvalidReference:
        if _HEX.fullmatch(key):
            return None
        raise
    for digest, entries in by_digest.items():
        names = [entry.annotations.get(REF_NAME) for entry in entries]
        if reference.digest is not None:
            # A digest names the content; the repository must be one that it came from.
            same = any(
                name and name.startswith((f"{reference.name}:", f"{reference.name}@")) for name in names
            )
            if digest == reference.digest and same:
                return entries
        elif str(reference) in names:
            return entries
    return None


def _by_digest(store: Store) -> dict[str, list[Descriptor]]:
    found: dict[str, list[Descriptor]] = {}
    for entry in store.blobs.index():
        found.setdefault(entry.digest, []).append(entry)
    return found


def _load(store: Store, entries: Sequence[Descriptor], *, cached: bool = False) -> ImageRecord:
    """
    Read manifest and configuration, or with *cached* take what was read
    before; *entries* all have one digest.
    """
    digest = entries[0].digest
    if not cached:
        return _read(store, digest, entries)
    known: tuple[Sequence[Descriptor], ImageRecord] | None = store.blobs.derived.get(digest)
    # Compared, too: another thread may have read a newer index meanwhile.
    if known is None or known[0] != entries:
        known = store.blobs.derived[digest] = (entries, _read(store, digest, entries))
    return known[1]


def _read(store: Store, digest: str, entries: Sequence[Descriptor]) -> ImageRecord:
    try:
        manifest = read_document(store.blobs.read(digest), subject=f"manifest {digest}")
        config = Descriptor.from_json(manifest["config"])
        document = read_document(
            store.blobs.read(config.digest), subject=f"image configuration {config.digest}"
        )
        layers = tuple(document["rootfs"]["diff_ids"])
        for layer in layers:
            check_digest(layer)
    except CorruptState:
        raise
    except (KeyError, TypeError, ValueError, ContainerlibError) as error:
        raise CorruptState(
            f"the image with manifest {digest} is damaged: {error!r}", subject=digest
        ) from error
    names = [entry.annotations[REF_NAME] for entry in entries if REF_NAME in entry.annotations]
    return ImageRecord(
        id=config.digest,
        document=document,
        layers=layers,
        tags=tuple(sorted(name for name in names if "@" not in name)),
        digests=tuple(sorted({f"{_repository(name)}@{digest}" for name in names})),
        manifests=(digest,),
        size=sum(layer_size(store, layer) for layer in set(layers)),
    )


def _repository(name: str) -> str:
    return Reference.parse(name).name


def _merged(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """
    Join records of one id: one configuration may have several manifests,
    which compress its layers differently.
    """
    merged: dict[str, ImageRecord] = {}
    for record in records:
        if (other := merged.get(record.id)) is not None:
            record = attrs.evolve(  # the joined one takes its place
                record,
                tags=tuple(sorted({*record.tags, *other.tags})),
                digests=tuple(sorted({*record.digests, *other.digests})),
                manifests=(*other.manifests, *record.manifests),
            )
        merged[record.id] = record
    return list(merged.values())


def _merge_tags(
    store: Store, record: ImageRecord, by_digest: dict[str, list[Descriptor]], *, cached: bool
) -> ImageRecord:
    if len(by_digest) == 1:
        return record
    return next((other for other in images(store, cached=cached) if other.id == record.id), record)


# ---- layers ---------------------------------------------------------------


def layer_path(store: Store, diff_id: str) -> Path:
    """
    Return the directory of an unpacked layer, whether it is there or not.
    """
    return store.root / "layers" / "sha256" / check_digest(diff_id) / LAYER_ROOT


def has_layer(store: Store, diff_id: str) -> bool:
    """
    Say whether a layer is unpacked.
    """
    try:
        os.stat(f"{check_digest(diff_id)}/{LAYER_ROOT}", dir_fd=store.layers_fd(), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def layer_size(store: Store, diff_id: str) -> int:
    """
    Return what the files of an unpacked layer add up to; 0 if it is not there.
    """
    path = f"{check_digest(diff_id)}/{LAYER_INFO}"
    try:
        with open(
            os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.layers_fd()), "rb"
        ) as file:
            return int(json.loads(file.read())["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def lower_directories(store: Store, record: ImageRecord) -> list[Path]:
    """
    Return the image's layers as overlayfs wants them: the topmost first.

    The host's own root file system has none; see `host_layout`.

    Raises:
        CorruptState: A layer is missing.
    """
    directories = []
    for diff_id in reversed(record.layers):
        if not has_layer(store, diff_id):
            raise CorruptState(
                f"image {record.id[7:19]} lacks its layer {diff_id} in {store.root}; import or pull it again",
                subject=record.id,
            )
        directories.append(layer_path(store, diff_id))
    return directories


# ---- naming and removing ----------------------------------------------------


def tag(store: Store, record: ImageRecord, reference: str) -> ImageRecord:
    """
    Give the image a name, which is taken from any other image that has it.
    """
    _refuse_host(record, "tag")
    name = str(_taggable(reference))
    with store.blobs.transaction():
        index = store.blobs.index()
        mine = _own_entries(store, record, index)
        if not mine:
            raise ImageNotFound(f"there is no image {record.id[7:19]} in {store.root}", subject=record.id)
        store.blobs.replace_index(named(index, mine[0], name))
    return get(store, record.id)


def _taggable(reference: str) -> Reference:
    parsed = Reference.parse(reference).with_default_tag()
    if parsed.digest is not None:
        raise InvalidReference(f"{reference!r} has a digest: a tag cannot choose it", subject=reference)
    if parsed.domain == "docker.io" and parsed.path == f"library/{HOST}":
        raise InvalidReference(
            f"{reference!r} is the name of the host's own root file system", subject=reference
        )
    return parsed


def named(index: Sequence[Descriptor], entry: Descriptor, name: str | None) -> tuple[Descriptor, ...]:
    """
    Return the index in which *entry*'s image has *name* as one of its names.

    An image that loses its last name stays, without one.
    """
    loser = next((e for e in index if name is not None and e.annotations.get(REF_NAME) == name), None)
    kept = [
        other
        for other in index
        if other is not loser and not (other.digest == entry.digest and REF_NAME not in other.annotations)
    ]
    if loser is not None and loser.digest != entry.digest and all(e.digest != loser.digest for e in kept):
        kept.append(attrs.evolve(loser, annotations=_without_name(loser)))
    if name is not None or all(other.digest != entry.digest for other in kept):
        annotations = _without_name(entry) | ({} if name is None else {REF_NAME: name})
        kept.append(attrs.evolve(entry, annotations=annotations))
    return tuple(kept)


def _without_name(entry: Descriptor) -> dict[str, str]:
    return {key: value for key, value in entry.annotations.items() if key != REF_NAME}


def untag(store: Store, reference: str, *, record: ImageRecord | None = None) -> None:
    """
    Take a name away; the image itself stays.

    With *record*, only if it is a name of that image.
    """
    name = str(Reference.parse(reference).with_default_tag())
    with store.blobs.transaction():
        index = store.blobs.index()
        entry = next((e for e in index if e.annotations.get(REF_NAME) == name), None)
        if entry is None:
            raise ImageNotFound(f"there is no image {reference!r} in {store.root}", subject=reference)
        if record is not None and entry not in _own_entries(store, record, index):
            raise ImageNotFound(f"{reference!r} is not a name of image {record.id[7:19]}", subject=reference)
        kept = tuple(other for other in index if other is not entry)
        if all(other.digest != entry.digest for other in kept):
            kept += (attrs.evolve(entry, annotations=_without_name(entry)),)
        store.blobs.replace_index(kept)


def remove(
    store: Store,
    record: ImageRecord,
    *,
    force: bool = False,
    users: Callable[[ImageRecord], Sequence[str]] | None = None,
    userns_fd: int | None = None,
) -> None:
    """
    Remove an image with all its names, and what no other image needs.

    *users* returns the names of the containers that use it.  With *force*,
    an image in use loses its names and is deleted by a later removal.

    Raises:
        Conflict: A container uses it, or without *force* it has several names.
    """
    _refuse_host(record, "remove")
    holders = list(users(record)) if users is not None else []
    if holders and not force:
        raise Conflict(
            f"image {record.id[7:19]} is used by container {', '.join(holders)}; "
            f"remove that first, or use force=True to take only its names",
            subject=record.id,
        )
    if len(record.tags) > 1 and not force:
        raise Conflict(
            f"image {record.id[7:19]} has {len(record.tags)} names: {', '.join(record.tags)}; "
            f"untag those that are to go, or remove it with force=True",
            subject=record.id,
        )
    with store.blobs.transaction():
        index = store.blobs.index()
        mine = _own_entries(store, record, index)
        if not mine:
            raise ImageNotFound(f"there is no image {record.id[7:19]} in {store.root}", subject=record.id)
        kept = [entry for entry in index if entry not in mine]
        if holders:
            kept.append(attrs.evolve(mine[0], annotations=_without_name(mine[0])))
        store.blobs.replace_index(tuple(kept))
        doomed = _take_unused(store)
    for name in doomed:
        remove_tree(name, dir_fd=store.layers_fd(), userns_fd=userns_fd)


def prune(store: Store, *, all: bool = False, userns_fd: int | None = None) -> list[str]:
    """
    Remove the images without a name, with *all* those with one too, that no
    container uses, and the blobs and layers that no image needs.

    Returns the ids of the images.
    """
    removed = []
    for record in images(store):
        if (record.tags and not all) or users(store, record):
            continue
        try:
            remove(store, record, force=True, users=lambda record: users(store, record), userns_fd=userns_fd)
        except ImageNotFound:
            continue  # somebody else has removed it
        removed.append(record.id)
    with store.blobs.transaction():
        doomed = _take_unused(store)
    for name in doomed:
        remove_tree(name, dir_fd=store.layers_fd(), userns_fd=userns_fd)
    return removed


def users(store: Store, record: ImageRecord) -> list[str]:
    """
    Return the names of the containers made from the image.
    """
    containers = store.containers
    names = []
    for id in containers.ids():
        try:
            config = ContainerConfig.from_json(containers.read(id, "config.json"))
        except (NotFound, CorruptState):
            continue  # removed meanwhile, or damaged: then nothing can start from it
        if config.image_id == record.id:
            names.append(containers.name(id) or id[:12])
    return sorted(names)


def _refuse_host(record: ImageRecord, verb: str) -> None:
    if record.is_host:
        raise Conflict(f"cannot {verb} the image 'host': it is the host's own root file system", subject=HOST)


def _own_entries(store: Store, record: ImageRecord, index: Sequence[Descriptor]) -> list[Descriptor]:
    mine = []
    for entry in index:
        try:
            if _load(store, [entry]).id == record.id:
                mine.append(entry)
        except CorruptState:
            continue
    return mine


def _take_unused(store: Store) -> list[str]:
    """
    Delete blobs, and rename away layers, that no image points to.

    Inside a transaction.  If any image cannot be read, nothing is deleted:
    what it needs is not known.
    """
    blobs: set[str] = set()
    layers: set[str] = set()
    for digest in _by_digest(store):
        try:
            manifest = read_document(store.blobs.read(digest), subject=digest)
            record = _load(store, [Descriptor(media_type="", digest=digest, size=0)])
            blobs |= {digest, record.id, *(layer["digest"] for layer in manifest["layers"])}
            layers |= set(record.layers)
        except (CorruptState, KeyError, TypeError):
            return []
    for digest in store.blobs.digests():
        if digest not in blobs:
            store.blobs.delete(digest)
    doomed = []
    fd = store.layers_fd()
    for name in list_directory(fd):
        if name[0] != "." and f"sha256:{name}" not in layers:
            temporary = makers.removing(name)
            os.rename(name, temporary, src_dir_fd=fd, dst_dir_fd=fd)
            doomed.append(temporary)
    return doomed
