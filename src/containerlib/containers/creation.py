# SPDX-License-Identifier: Apache-2.0
"""
Making a container: its configuration checked and written down, nothing started.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import attrs

from containerlib.containers import ending
from containerlib.containers.groundwork import compile_cgroups, layout_of
from containerlib.containers.observing import initial_state
from containerlib.errors import Conflict, ImageNotFound, NotSupported
from containerlib.images import library
from containerlib.runtime import launch, leftovers
from containerlib.types import Resources, build_config

if TYPE_CHECKING:
    from containerlib.engine import Engine
    from containerlib.images.model import ImageRecord
    from containerlib.types import ContainerConfig, ContainerOptions
    from containerlib.types.parsing import Command

NO_LIMITS = Resources()

_warned = False


def create(
    engine: Engine,
    image: ImageRecord | str,
    command: Command | None,
    options: ContainerOptions,
    *,
    detach: bool,
    hide: tuple[str, ...] = (),
    id: str | None = None,
) -> ContainerConfig:
    """
    Make a container of *image*; nothing runs yet.

    A caller that brings the *id* can remove what an interrupt leaves.

    Raises:
        ImageNotFound: There is no such image.
        Conflict: The name is taken.
        InvalidOption: An option's value cannot be used.
        NotSupported: The host cannot enforce what was asked for.
    """
    ending.sweep_once(engine)
    record = image if not isinstance(image, str) else _find_image(engine, image)
    id_ = id or new_id()
    for attempt in range(20):
        config = build_config(
            id=id_,
            image_reference=image if isinstance(image, str) else next(iter(record.tags), record.id),
            image_id=record.id,
            image_config=_image_config(record),
            command=command,
            options=options,
        )
        config = _complete(engine, config, options, detach=detach)
        files, directories = contents(engine, config, record, hide)
        try:
            engine.store.containers.create(id_, name=config.name, files=files, directories=directories)
        except Conflict:
            # A random name that is taken is drawn again.
            if options.get("name") or attempt == 19:
                raise
            continue
        return config
    raise AssertionError  # the loop returns or raises


def new_id() -> str:
    """
    An id that no container has.
    """
    return os.urandom(32).hex()


def image_source(image: Any) -> tuple[ImageRecord | str, tuple[str, ...]]:
    """
    A reference as it is, or an Image's record and what it hides.
    """
    if isinstance(image, str):
        return image, ()
    record = getattr(image, "record", None)
    if record is None:
        raise TypeError(f"image: a reference or an Image, not {image!r}")
    return record, tuple(image.hidden)


def _find_image(engine: Engine, key: str) -> ImageRecord:
    record = library.find(engine.store, key, cached=True)
    if record is None:
        message = (
            f"no image {key!r} in {engine.root}; make it with Image.from_rootfs, or use 'host' for the "
            "host's own root file system"
        )
        raise ImageNotFound(message, subject=key)
    return record


def _image_config(record: ImageRecord) -> dict[str, Any]:
    image_config = record.config
    if record.is_host:
        # The programs that the caller finds, the container finds too.
        path = os.environ.get("PATH")
        if path:
            image_config["Env"] = [f"PATH={path}"]
    return image_config


def _complete(
    engine: Engine, config: ContainerConfig, options: ContainerOptions, *, detach: bool
) -> ContainerConfig:
    """
    What needs a look at the engine or the host.
    """
    global _warned  # once a process
    changes: dict[str, Any] = {"detach": detach}
    for field in ("network", "ipc", "pid"):
        mode = getattr(config, field)
        if mode.startswith("container:"):
            peer = engine.store.containers.resolve(mode.partition(":")[2])
            changes[field] = f"container:{peer}"
    if config.volumes_from:
        message = (
            "volumes_from needs volumes, which this version does not have: repeat the mounts in volumes="
        )
        raise NotSupported(message, subject=config.volumes_from[0])
    if config.network == "none" and options.get("network") is None and not _warned:
        _warned = True
        warnings.warn(
            "this version of containerlib has no bridge and no user-mode network yet: the container gets "
            "a loopback interface only; say network='none' to silence this, or network='host'",
            stacklevel=5,
        )
    for mount in config.mounts:
        if mount.type == "volume" and mount.source is not None:
            message = (
                f"volumes: {mount.source!r} names a volume, and this version has only bind mounts, tmpfs "
                "and anonymous volumes: give an absolute host path"
            )
            raise NotSupported(message, subject=mount.source)
    config = attrs.evolve(config, **changes)
    _check_host(engine, config)
    return config


def _check_host(engine: Engine, config: ContainerConfig) -> None:
    """
    Refuse now what would only fail, or not be enforced, at the start.
    """
    if config.resources != NO_LIMITS or config.devices or config.cgroup_parent:
        compile_cgroups(engine, config)
    if config.cap_add or config.cap_drop:
        launch.container_capabilities(config, engine.mapping)
    if config.userns_mode not in ("private", "host"):
        message = f"userns_mode={config.userns_mode!r}: this version knows 'host' only"
        raise NotSupported(message, subject="userns_mode")
    apparmor = config.security.apparmor
    if apparmor not in (None, "unconfined"):
        message = (
            f"security_opt='apparmor={apparmor}': this version does not apply AppArmor profiles: leave it "
            "out, and confine the Python process instead"
        )
        raise NotSupported(message, subject="security_opt")
    label = next((label for label in config.security.label if label != "disable"), None)
    if label is not None:
        message = (
            f"security_opt='label={label}': this version does not apply SELinux labels: leave it out, "
            "and confine the Python process instead"
        )
        raise NotSupported(message, subject="security_opt")
    if (
        config.pid != "private"
        and not compile_cgroups(engine, config).directories
        and not leftovers.can_find()
    ):
        message = (
            f"pid={config.pid!r}: without a process namespace or a control group of its own a container "
            "could not be ended here; run as root, from a delegated control group, or on Linux 6.10"
        )
        raise NotSupported(message, subject="pid")


def contents(
    engine: Engine, config: ContainerConfig, record: ImageRecord, hide: tuple[str, ...]
) -> tuple[dict[str, bytes], list[str | tuple[str, int]]]:
    """
    The files and directories of a new container.
    """
    files = {
        "config.json": config.to_json(),
        "state": initial_state(owned=not config.detach),
    }
    directories: list[str | tuple[str, int]] = []
    if record.is_host:
        layout = layout_of(engine, hide)
        directories += ["upper", "work"]
        directories += [(f"upper/{overlay.key}", overlay.mode) for overlay in layout.overlays]
        directories += [f"work/{overlay.key}" for overlay in layout.overlays]
        directories += [(f"upper/{fresh.key}", fresh.mode) for fresh in layout.fresh]
        if hide:
            files["hide"] = "\0".join(hide).encode()
    else:
        lower = library.lower_directories(engine.store, record)
        mode = os.stat(lower[0]).st_mode & 0o7777 if lower else 0o755
        directories += [("upper", mode), "work"]
    anonymous = [mount for mount in config.mounts if mount.type == "volume"]
    if anonymous:
        directories.append("volumes")
        directories += [f"volumes/{index}" for index in range(len(anonymous))]
    return files, directories
