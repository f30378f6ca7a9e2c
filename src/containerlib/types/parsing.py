# SPDX-License-Identifier: Apache-2.0
"""
Commands, names, platforms and detach keys; and every other parser by name.

The parsers live with their subjects: quantities, mounts, environment, limits,
security.  Each takes what docker, docker-py and Compose take, and refuses the
rest with an InvalidOption that names the option and the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from .environment import (
    parse_dns,
    parse_dns_opt,
    parse_dns_search,
    parse_env_file,
    parse_environment,
    parse_extra_hosts,
    parse_hostname,
    parse_labels,
    parse_strings,
)
from .limits import (
    parse_blkio,
    parse_cpus,
    parse_cpuset,
    parse_devices,
    parse_healthcheck,
    parse_logging,
    parse_resources,
    parse_restart,
    parse_ulimits,
)
from .mounts import parse_tmpfs, parse_volume, parse_volumes
from .quantities import (
    clean_path,
    invalid,
    parse_bytes,
    parse_duration,
    parse_integer,
    parse_signal,
    signal_name,
    wrong_type,
)
from .security import (
    parse_capabilities,
    parse_cgroup_parent,
    parse_groups,
    parse_mode,
    parse_security_opt,
    parse_sysctls,
    parse_user,
)

__all__ = [
    "clean_path",
    "parse_blkio",
    "parse_bytes",
    "parse_capabilities",
    "parse_cgroup_parent",
    "parse_command",
    "parse_cpus",
    "parse_cpuset",
    "parse_detach_keys",
    "parse_devices",
    "parse_dns",
    "parse_dns_opt",
    "parse_dns_search",
    "parse_duration",
    "parse_env_file",
    "parse_environment",
    "parse_extra_hosts",
    "parse_groups",
    "parse_healthcheck",
    "parse_hostname",
    "parse_integer",
    "parse_labels",
    "parse_logging",
    "parse_mode",
    "parse_name",
    "parse_platform",
    "parse_pull_policy",
    "parse_resources",
    "parse_restart",
    "parse_security_opt",
    "parse_signal",
    "parse_strings",
    "parse_sysctls",
    "parse_tmpfs",
    "parse_ulimits",
    "parse_user",
    "parse_volume",
    "parse_volumes",
    "parse_working_dir",
    "signal_name",
]

Command = str | Iterable[str | os.PathLike[str]]

_NAME: Final = r"(?a)[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}"
_PLATFORM: Final = r"(?a)[a-z0-9_]+(?:/[a-z0-9_]+(?:/[a-z0-9_.]+)?)?"
_CONTROL: Final = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_command(value: Command, *, option: str = "command") -> tuple[str, ...]:
    """
    Words of a command: a list as it stands, a string split as a shell would.

    Nothing is expanded: there is no shell.
    """
    words: list[str] = []
    if isinstance(value, str):
        if "'" in value or '"' in value or "\\" in value:
            import shlex  # a millisecond that a list or a plain line does not need

            try:
                words = shlex.split(value)
            except ValueError as error:
                raise invalid(option, value, f"a line that a shell can split ({error}), or a list") from None
        else:
            words = [word for word in re.split(r"[ \t\r\n]+", value) if word]
    elif isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type(option, value, "a string or a list of strings")
    else:
        for word in value:
            text = os.fspath(word) if isinstance(word, os.PathLike) else word
            if not isinstance(text, str):
                raise wrong_type(option, word, "strings or paths in the list")
            words.append(text)
    for word in words:
        if "\0" in word:
            raise invalid(option, value, "words without NUL")
    return tuple(words)


def parse_name(value: object, *, option: str = "name") -> str:
    """
    A container's name: two or more letters, digits, ``_``, ``.`` and ``-``.
    """
    if not isinstance(value, str):
        raise wrong_type(option, value, "a string")
    name = value.removeprefix("/")
    if not re.fullmatch(_NAME, name):
        raise invalid(option, value, "2 to 128 of [a-zA-Z0-9_.-], the first a letter or digit")
    return name


def parse_platform(value: object) -> str:
    """
    A platform as ``os``, ``os/architecture`` or ``os/architecture/variant``.
    """
    if not isinstance(value, str):
        raise wrong_type("platform", value, "a string like 'linux/amd64'")
    if not re.fullmatch(_PLATFORM, value) or len(value) > 100:
        raise invalid("platform", value, "'linux/amd64' or 'linux/arm64/v8'")
    return value


def parse_pull_policy(value: object) -> str:
    """
    When an image is pulled: ``missing``, ``always`` or ``never``.
    """
    if not isinstance(value, str):
        raise wrong_type("pull_policy", value, "a string")
    if value not in ("missing", "if_not_present", "always", "never"):
        raise invalid("pull_policy", value, "'missing', 'always' or 'never'")
    return "missing" if value == "if_not_present" else value


def parse_working_dir(value: object, *, option: str = "working_dir") -> str:
    """
    An absolute directory inside, cleaned.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise wrong_type(option, value, "an absolute path")
    return clean_path(option, value)


def parse_detach_keys(value: object, *, option: str = "detach_keys") -> bytes:
    r"""
    The bytes that leave a container from ``"ctrl-p,ctrl-q"``: keys between
    commas, each one character, ``ctrl-`` with one of a-z@[\]^_, or ``DEL``.

    An empty string means that no keys leave.
    """
    if not isinstance(value, str):
        raise wrong_type(option, value, "keys like 'ctrl-p,ctrl-q'")
    if not value:
        return b""
    codes = bytearray()
    for key in value.split(","):
        control = key.removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            codes += key.encode()
        elif key == "DEL":
            codes.append(127)
        elif key != control and len(control) == 1 and "a" <= control <= "z":
            codes.append(ord(control) - ord("a") + 1)
        elif key != control and control in _CONTROL:
            codes.append(_CONTROL[control])
        else:
            raise invalid(
                option, value, "keys like 'ctrl-p,ctrl-q': characters, ctrl- with one of a-z@[\\]^_, DEL"
            )
    return bytes(codes)
