# SPDX-License-Identifier: Apache-2.0
"""
Images, as users see them: looked up, made, named, removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from containerlib import images
from containerlib.images.model import HOST

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence
    from typing import Unpack

    from containerlib.container import Container
    from containerlib.engine import Engine
    from containerlib.images import ImageRecord
    from containerlib.runtime.exchange import Input
    from containerlib.types import Completed, ContainerOptions
    from containerlib.types.parsing import Command


@attrs.define(eq=False, repr=False)
class Image:
    """
    One image of an engine.

    Made by the class methods only.  The content of an image never changes;
    its names may, and attributes always tell the present ones.
    """

    _engine: Engine
    _record: ImageRecord
    _hide: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(self.tags) if self.tags else "<none>"
        return f"<Image {self.short_id} {names}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        same = self._record.id == other._record.id and self._hide == other._hide
        return same and self._engine.store.root == other._engine.store.root

    def __hash__(self) -> int:
        return hash((self._record.id, self._hide))

    # ---- finding and making -------------------------------------------------

    @classmethod
    def get(cls, reference_or_id: str, *, engine: Engine | None = None) -> Image:
        """
        Return the image that a reference, an id or the beginning of one means.

        Raises:
            ImageNotFound: The engine has no such image; nothing is pulled.
        """
        engine = _engine(engine)
        return cls(engine, images.get(engine.store, reference_or_id))

    @classmethod
    def exists(cls, reference: str, *, engine: Engine | None = None) -> bool:
        """
        Say whether the engine has an image of that reference or id.
        """
        return images.find(_engine(engine).store, reference) is not None

    @classmethod
    def list(
        cls,
        *,
        reference: str | None = None,
        all: bool = False,
        dangling: bool | None = None,
        labels: Mapping[str, str | None] | Sequence[str] | str | None = None,
        engine: Engine | None = None,
    ) -> builtins.list[Image]:
        """
        Return the images, newest first.

        Args:
            reference: A shell pattern over familiar names, as ``debian:*``; a
                pattern without a tag takes any tag.
            all: Images that builds made on the way, too.
            dangling: Only images without a name, or only those with one.
            labels: Only images with all of these labels: a mapping, whose value None
                means any, or words like ``key`` and ``key=value``.
            engine: Instead of the current one.
        """
        del all  # nothing makes intermediate images yet: all images are shown
        engine = _engine(engine)
        wanted = _labels(labels)
        return [
            cls(engine, record)
            for record in images.images(engine.store)
            if (dangling is None or dangling is not bool(record.tags))
            and (reference is None or _matches(record, reference))
            and all_present(record.config.get("Labels") or {}, wanted)
        ]

    @classmethod
    def prune(cls, *, all: bool = False, engine: Engine | None = None) -> builtins.list[str]:
        """
        Remove the images without a name that no container uses, with *all*
        those with a name too; returns their ids.
        """
        engine = _engine(engine)
        return images.prune(engine.store, all=all, userns_fd=engine.userns_fd())

    @classmethod
    def host(cls, *, hide: Sequence[str] = (), engine: Engine | None = None) -> Image:
        """
        Return the host's own root file system as an image.

        A container on it sees every program and every file that its caller
        can read, and keeps its changes to itself.  ``/run`` and ``/tmp``
        start empty, the engine's own state never shows; *hide* masks more
        paths, for code that is not trusted with, say, ``/home``.
        """
        if isinstance(hide, str):
            hide = (hide,)
        return cls(_engine(engine), images.host_record(), tuple(os.fspath(path) for path in hide))

    @classmethod
    def from_rootfs(
        cls,
        directory_or_tar: str | os.PathLike[str] | BinaryIO,
        *,
        tag: str | None = None,
        config: Mapping[str, Any] | None = None,
        engine: Engine | None = None,
    ) -> Image:
        """
        Make an image of one layer from a directory, a tar archive of any
        compression, or an open file with one.

        Args:
            directory_or_tar: What becomes the root file system.
            tag: The image's name.
            config: What containers start from, in Docker's names: ``{"Cmd": ["sh"],
                "Env": ["A=b"], "WorkingDir": "/srv"}``.
            engine: Instead of the current one.

        Raises:
            InvalidArchive: Not an archive, damaged, or leading out of its directory.
        """
        from containerlib.images.importer import import_rootfs

        engine = _engine(engine)
        record = import_rootfs(
            engine.store, directory_or_tar, tag=tag, config=config, userns_fd=engine.userns_fd()
        )
        return cls(engine, record)

    # ---- what it is -----------------------------------------------------------

    @property
    def id(self) -> str:
        """
        The digest of the image's configuration, ``sha256:`` and 64 digits.
        """
        return self._record.id

    @property
    def short_id(self) -> str:
        """
        The first twelve digits of the id.
        """
        return self._record.id.removeprefix("sha256:")[:12]

    @property
    def tags(self) -> tuple[str, ...]:
        """
        The image's present names, short as people write them.
        """
        return tuple(_familiar(name) for name in self._now().tags)

    @property
    def digests(self) -> tuple[str, ...]:
        """
        The image's repositories with the digest of its manifest.
        """
        return tuple(_familiar(name) for name in self._now().digests)

    @property
    def digest(self) -> str | None:
        """
        The digest of the image's manifest; None for the host's file system.
        """
        digests = self._now().manifests
        return digests[0] if digests else None

    @property
    def size(self) -> int:
        """
        Bytes that the image's files take, those shared with other images included.
        """
        return self._record.size

    @property
    def created(self) -> str:
        """
        When the image was made, in RFC 3339.
        """
        return self._record.created

    @property
    def architecture(self) -> str:
        """
        The processor that its programs are for, such as ``amd64``.
        """
        return self._record.architecture

    @property
    def os(self) -> str:
        """
        The operating system that its programs are for.
        """
        return self._record.os

    @property
    def labels(self) -> dict[str, str]:
        """
        The image's labels.
        """
        return dict(self._record.config.get("Labels") or {})

    @property
    def config(self) -> dict[str, Any]:
        """
        What containers start from: Cmd, Entrypoint, Env and so on.
        """
        return self._record.config

    @property
    def layers(self) -> tuple[str, ...]:
        """
        The digests of the image's layers, unpacked, bottom first.
        """
        return self._record.layers

    @property
    def parent(self) -> str | None:
        """
        The id of the image that this one was built on, where that is known.
        """
        return None

    @property
    def record(self) -> ImageRecord:
        """
        What the lower rooms work with.
        """
        return self._record

    @property
    def hidden(self) -> tuple[str, ...]:
        """
        The paths masked by ``Image.host(hide=…)``.
        """
        return self._hide

    def _now(self) -> ImageRecord:
        """
        Look the image up again, for its names; one that was removed has none.
        """
        if not self._record.is_host:
            found = images.find(self._engine.store, self._record.id)
            self._record = found or attrs.evolve(self._record, tags=(), digests=(), manifests=())
        return self._record

    def history(self) -> builtins.list[dict[str, Any]]:
        """
        Return the steps that made the image, newest first, in Docker's shape.
        """
        record = self._now()
        steps = list(record.document.get("history") or ())
        sizes = iter([images.layer_size(self._engine.store, layer) for layer in record.layers])
        found = []
        for step in steps:
            size = 0 if step.get("empty_layer") else next(sizes, 0)
            found.append(
                {
                    "Id": "<missing>",
                    "Created": step.get("created") or "",
                    "CreatedBy": step.get("created_by") or "",
                    "Tags": None,
                    "Size": size,
                    "Comment": step.get("comment") or "",
                }
            )
        found.reverse()
        if found:
            found[0] |= {"Id": record.id, "Tags": [_familiar(name) for name in record.tags] or None}
        return found

    def inspect(self) -> dict[str, Any]:
        """
        Describe the image as ``docker image inspect`` does.
        """
        record = self._now()
        directories = [str(images.layer_path(self._engine.store, layer)) for layer in reversed(record.layers)]
        return {
            "Id": record.id,
            "RepoTags": [_familiar(name) for name in record.tags],
            "RepoDigests": [_familiar(name) for name in record.digests],
            "Parent": "",
            "Comment": next(
                (s.get("comment") or "" for s in reversed(record.document.get("history") or ())), ""
            ),
            "Created": record.created,
            "Author": record.document.get("author") or "",
            "Config": record.config,
            "Architecture": record.architecture,
            "Variant": record.document.get("variant") or "",
            "Os": record.os,
            "Size": record.size,
            "VirtualSize": record.size,
            "GraphDriver": {"Name": "overlay", "Data": {"LowerDir": ":".join(directories)}},
            "RootFS": {"Type": "layers", "Layers": list(record.layers)},
            "Metadata": {},
        }

    # ---- changing -----------------------------------------------------------

    def tag(self, reference: str) -> None:
        """
        Give the image another name, taking it from the image that has it.

        Raises:
            InvalidReference: Not a name, or one with a digest.
        """
        self._record = images.tag(self._engine.store, self._record, reference)

    def untag(self, reference: str) -> None:
        """
        Take a name away; the image stays, even without a name.

        Raises:
            ImageNotFound: This image has no such name.
        """
        images.untag(self._engine.store, reference, record=self._record)

    def remove(self, *, force: bool = False) -> None:
        """
        Remove the image and the layers that no other image uses.

        Raises:
            Conflict: A container uses it, or it has several names; *force*
                removes all names, and the image too unless a container uses it.
        """
        images.remove(
            self._engine.store,
            self._record,
            force=force,
            users=lambda record: images.users(self._engine.store, record),
            userns_fd=None if self._record.is_host else self._engine.userns_fd(),
        )

    # ---- containers -----------------------------------------------------------

    def run(
        self,
        command: Command | None = None,
        *,
        input: Input | None = None,
        check: bool = True,
        timeout: float | None = None,
        encoding: str | None = "utf-8",
        **options: Unpack[ContainerOptions],
    ) -> Completed[Any]:
        """
        Run a command in a new container to its end; see `containerlib.run`.
        """
        from containerlib.container import run

        if encoding is None:
            return run(
                self,
                command,
                input=input,
                check=check,
                timeout=timeout,
                encoding=None,
                engine=self._engine,
                **options,
            )
        return run(
            self,
            command,
            input=input,
            check=check,
            timeout=timeout,
            encoding=encoding,
            engine=self._engine,
            **options,
        )

    def create_container(
        self, command: Command | None = None, **options: Unpack[ContainerOptions]
    ) -> Container:
        """
        Make a container that is not started; see `Container.create`.
        """
        from containerlib.container import Container

        return Container.create(self, command, engine=self._engine, **options)


def _engine(engine: Engine | None) -> Engine:
    if engine is not None:
        return engine
    from containerlib.engine import Engine

    return Engine.current()


def _familiar(name: str) -> str:
    return name if name == HOST else images.Reference.parse(name).familiar


def _labels(labels: Mapping[str, str | None] | Sequence[str] | str | None) -> dict[str, str | None]:
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return dict(labels)
    words = [labels] if isinstance(labels, str) else labels
    return {key: value if equals else None for key, equals, value in (word.partition("=") for word in words)}


def all_present(labels: Mapping[str, str], wanted: Mapping[str, str | None]) -> bool:
    """
    Say whether *labels* has everything in *wanted*, where None means any value.
    """
    return all(key in labels and (value is None or labels[key] == value) for key, value in wanted.items())


def _matches(record: ImageRecord, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    for name in record.tags:
        reference = images.Reference.parse(name)
        bare = attrs.evolve(reference, tag=None)
        forms = (reference.familiar, str(reference), bare.familiar, str(bare))
        if any(fnmatchcase(form, pattern) for form in forms):
            return True
    return False
