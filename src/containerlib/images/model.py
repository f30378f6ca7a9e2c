# SPDX-License-Identifier: Apache-2.0
"""
OCI documents: the configuration and the manifest of an image, and the record
that the rest of the library works with.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from containerlib.errors import CorruptState, InvalidOption
from containerlib.store import Descriptor

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

HOST = "host"
"""
Id and name of the image that is the host's own root file system.
"""

_LIST, _STR, _MAP = "a list of strings", "a string", "a mapping"
_CONFIG_FIELDS: dict[str, str] = {
    "ArgsEscaped": "true or false",
    "Cmd": _LIST,
    "Domainname": _STR,
    "Entrypoint": _LIST,
    "Env": _LIST,
    "ExposedPorts": _MAP,
    "Healthcheck": _MAP,
    "Hostname": _STR,
    "Labels": _MAP,
    "OnBuild": _LIST,
    "Shell": _LIST,
    "StopSignal": _STR,
    "StopTimeout": "a number",
    "User": _STR,
    "Volumes": _MAP,
    "WorkingDir": _STR,
}


@attrs.frozen(kw_only=True, eq=False)
class ImageRecord:
    """
    One image of a store, as it was when it was looked up.

    *document* is the whole OCI configuration, *layers* are diff ids, bottom
    first, *tags* full references, *digests* repositories with the digest of a
    manifest, *manifests* those digests alone; *size* is that of the unpacked files.
    """

    id: str
    document: Mapping[str, Any] = attrs.field(repr=False)
    layers: tuple[str, ...]
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    size: int = 0

    @property
    def config(self) -> dict[str, Any]:
        """
        The part that containers start from: Env, Cmd, Entrypoint and so on.
        """
        return dict(self.document.get("config") or {})

    @property
    def created(self) -> str:
        """
        When the image was made, in RFC 3339; empty if it does not say.
        """
        return str(self.document.get("created") or "")

    @property
    def architecture(self) -> str:
        """
        The processor that the programs are for, as OCI names it.
        """
        return str(self.document.get("architecture") or "")

    @property
    def os(self) -> str:
        """
        The operating system that the programs are for.
        """
        return str(self.document.get("os") or "")

    @property
    def is_host(self) -> bool:
        """
        Whether this is the host's own root file system.
        """
        return self.id == HOST


def check_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    Check a configuration as given by a user: Docker's names, sane values.

    Raises:
        InvalidOption: An unknown name, or a value of another kind.
    """
    checked: dict[str, Any] = {}
    for key, value in (config or {}).items():
        kind = _CONFIG_FIELDS.get(key)
        if kind is None:
            raise InvalidOption(
                f"config={key!r}: an image's configuration has no such field, "
                f"but {', '.join(_CONFIG_FIELDS)}",
                subject=str(key),
            )
        if value is None:
            continue
        good = {
            _LIST: isinstance(value, Sequence)
            and not isinstance(value, str | bytes)
            and all(isinstance(item, str) for item in value),
            _STR: isinstance(value, str),
            _MAP: isinstance(value, Mapping),
        }.get(kind, isinstance(value, int))
        if not good:
            raise InvalidOption(f"config: {key}={value!r} must be {kind}", subject=key)
        checked[key] = list(value) if kind is _LIST else dict(value) if kind is _MAP else value
    for item in checked.get("Env", ()):
        if "=" not in item or item.startswith("="):
            raise InvalidOption(f"config: Env={item!r} must be NAME=value", subject="Env")
    return checked


_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "i386": ("386", None),
    "i686": ("386", None),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "ppc64le": ("ppc64le", None),
    "loongarch64": ("loong64", None),
}


def host_platform() -> dict[str, str]:
    """
    Return the platform of this machine as OCI names it.
    """
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, None))
    found = {"architecture": architecture, "os": "linux"}
    return found | {"variant": variant} if variant else found


def timestamp(seconds: float | None = None) -> str:
    """
    Return a time, by default the present, as RFC 3339 in UTC.
    """
    now = time.time() if seconds is None else seconds
    whole = int(now)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((now - whole) * 1e9):09d}Z"


def encode(document: Mapping[str, Any]) -> bytes:
    """
    Write a document in the one form whose digest this library computes.
    """
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def new_config(
    *, config: Mapping[str, Any], diff_ids: Sequence[str], created: str, comment: str, created_by: str = ""
) -> dict[str, Any]:
    """
    Make the configuration document of an image of this platform.
    """
    history: dict[str, Any] = {"created": created, "comment": comment}
    if created_by:
        history["created_by"] = created_by
    return {
        "created": created,
        **host_platform(),
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [history],
    }


def new_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> dict[str, Any]:
    """
    Make a manifest over blobs that are in the store.
    """
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }


def read_document(data: bytes, *, subject: str) -> dict[str, Any]:
    """
    Parse a JSON object of the store.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise CorruptState(f"{subject} is not JSON: {error}", subject=subject) from error
    if not isinstance(document, dict):
        raise CorruptState(f"{subject} is not a JSON object", subject=subject)
    return document
