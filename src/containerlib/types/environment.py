# SPDX-License-Identifier: Apache-2.0
"""
Names and texts that a container is given: environment, labels, hosts, DNS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

from .quantities import invalid, wrong_type

EnvironmentValue = str | int | float | os.PathLike[str] | None
Environment = Mapping[str, EnvironmentValue] | Iterable[str]
EnvFile = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Labels = Mapping[str, str | int | float | None] | Iterable[str]
ExtraHosts = Mapping[str, str | Iterable[str]] | Iterable[str]

_HOSTNAME: Final = r"(?a)[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9_])?"
_DOMAIN: Final = r"(?a)[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9_.])?|\."


def parse_environment(value: Environment, *, option: str = "environment") -> dict[str, str | None]:
    """
    Variables from a dictionary or a list of ``"NAME=value"``.

    A value of None, and a name without ``=`` in a list, is taken from the
    caller's environment; where that has none, the result is None, which takes
    the image's value away.  Errors name the variable and never show its value,
    which may be a secret.
    """
    result: dict[str, str | None] = {}
    if isinstance(value, Mapping):
        for name, given in value.items():
            if not isinstance(name, str):
                raise wrong_type(option, name, "names as strings")
            result[_variable(option, name)] = _value(option, name, given)
        return result
    accepted = "a dictionary or a list of 'NAME=value'"
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{option}: expected {accepted}, not {type(value).__name__}")
    for item in value:
        if not isinstance(item, str):
            raise TypeError(f"{option}: expected {accepted}, not {type(item).__name__} in the list")
        name, equals, text = item.partition("=")
        result[_variable(option, name, f"{name}=…")] = _value(option, name, text if equals else None)
    return result


def _variable(option: str, name: str, shown: str | None = None) -> str:
    if not name or "=" in name or "\0" in name:
        raise invalid(option, name if shown is None else shown, "a name without '=' before the value")
    return name


def _value(option: str, name: str, value: object) -> str | None:
    if value is None:
        return os.environ.get(name)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError(
            f"{option}: {name}: expected text or a number, not {type(value).__name__}; "
            "write what the program should see as a string"
        )
    text = str(value)
    if "\0" in text:
        raise invalid(option, f"{name}=…", "text without NUL")
    return text


def _items(option: str, value: object, accepted: str) -> list[str]:
    """
    The strings of a list; a lone string or bytes is a mistake, not a list.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong_type(option, value, accepted)
    items = list(value)
    for item in items:
        if not isinstance(item, str):
            raise wrong_type(option, item, accepted)
    return items


def parse_env_file(value: EnvFile) -> dict[str, str | None]:
    """
    Variables from files in docker's format: ``NAME=value`` as it stands, ``NAME``
    from the caller, ``#`` comments and empty lines; later files win.
    """
    if isinstance(value, (str, os.PathLike)):
        paths: list[object] = [value]
    elif isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type("env_file", value, "a path or a list of paths")
    else:
        paths = list(value)
    result: dict[str, str | None] = {}
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise wrong_type("env_file", path, "a path")
        result.update(_read_env_file(os.fspath(path)))
    return result


def _read_env_file(path: str) -> dict[str, str | None]:
    try:
        with open(path, "rb") as file:
            data = file.read().removeprefix(b"\xef\xbb\xbf")
        text = data.decode()
    except OSError as error:
        raise invalid("env_file", path, f"a file that can be read ({error.strerror})") from None
    except ValueError:
        raise invalid("env_file", path, "a text file in UTF-8 and a path without NUL") from None
    result: dict[str, str | None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.removesuffix("\r").lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, given = stripped.partition("=")
        if not name or re.search(r"\s", name) or "\0" in stripped:
            # Not the line: it may be the second one of a secret.
            raise invalid("env_file", f"{path}, line {number}", "NAME=value, the name without white space")
        if equals:
            result[name] = given
        elif name in os.environ:
            result[name] = os.environ[name]
    return result


def parse_labels(value: Labels, *, option: str = "labels") -> dict[str, str]:
    """
    Labels from a dictionary or a list of ``"name=value"``; a name alone has an
    empty value.
    """
    result: dict[str, str] = {}
    if isinstance(value, Mapping):
        pairs: list[tuple[object, object]] = list(value.items())
    else:
        pairs = []
        for item in _items(option, value, "a dictionary or a list of 'name=value'"):
            name, _, text = item.partition("=")
            pairs.append((name, text))
    for key, given in pairs:
        if not isinstance(key, str):
            raise wrong_type(option, key, "names as strings")
        if isinstance(given, bool) or not isinstance(given, (str, int, float, type(None))):
            raise wrong_type(option, given, f"text as the value of {key!r}")
        if not key or "\0" in key or "=" in key:
            raise invalid(option, key, "a name that is not empty, without '='")
        result[key] = "" if given is None else str(given)
    return result


def is_address(text: str) -> bool:
    """
    Whether *text* is an IPv4 or IPv6 address.
    """
    import socket  # a third of a millisecond that few callers need

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def parse_extra_hosts(value: ExtraHosts) -> tuple[tuple[str, str], ...]:
    """
    Lines for /etc/hosts as (name, address), from ``{"name": "10.0.0.1"}`` or a
    list of ``"name:10.0.0.1"`` or ``"name=::1"``.

    ``host-gateway`` may stand for the address of the host.
    """
    pairs: list[tuple[object, object, object]] = []
    if isinstance(value, Mapping):
        for name, given in value.items():
            addresses = [given] if isinstance(given, str) else _items("extra_hosts", given, "an address")
            pairs += [(name, address, f"{name}:{address}") for address in addresses]
    else:
        for item in _items("extra_hosts", value, "a dictionary or a list of 'name:address'"):
            separator = "=" if "=" in item else ":"
            before, _, after = item.partition(separator)
            pairs.append((before, after, item))
    result = []
    for host, address, shown in pairs:
        if not isinstance(host, str) or not isinstance(address, str):
            raise wrong_type("extra_hosts", host, "names and addresses as strings")
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        if not re.fullmatch(_DOMAIN, host) or not (address == "host-gateway" or is_address(address)):
            raise invalid(
                "extra_hosts", shown, "'name:address' with an IPv4 or IPv6 address, or host-gateway"
            )
        result.append((host, address))
    return tuple(result)


def parse_dns(value: str | Iterable[str]) -> tuple[str, ...]:
    """
    Addresses of name servers.
    """
    servers = parse_strings("dns", value)
    for server in servers:
        if not is_address(server):
            raise invalid("dns", server, "IPv4 or IPv6 addresses of name servers")
    return servers


def parse_dns_search(value: str | Iterable[str]) -> tuple[str, ...]:
    """
    Domains that short names are looked up in; ``.`` alone means none.
    """
    domains = parse_strings("dns_search", value)
    for domain in domains:
        if not re.fullmatch(_DOMAIN, domain):
            raise invalid("dns_search", domain, "domain names, or '.' for none")
    return domains


def parse_dns_opt(value: str | Iterable[str]) -> tuple[str, ...]:
    """
    Words for the options line of resolv.conf, like ``ndots:2``.
    """
    words = parse_strings("dns_opt", value)
    for word in words:
        if not re.fullmatch(r"[a-zA-Z0-9_-]+(:[0-9]+)?", word):
            raise invalid("dns_opt", word, "an option of resolv.conf(5) like 'ndots:2'")
    return words


def parse_strings(option: str, value: object) -> tuple[str, ...]:
    """
    One string or a list of them, none empty, none with NUL or a line break.
    """
    items = [value] if isinstance(value, str) else _items(option, value, "a string or a list of strings")
    for item in items:
        if not item or "\0" in item or "\n" in item:
            raise invalid(option, item, "text that is not empty and has no line break")
    return tuple(items)


def parse_hostname(value: object, *, option: str = "hostname") -> str:
    """
    A host name of at most 64 letters, digits, ``-``, ``_`` and dots.
    """
    if not isinstance(value, str):
        raise wrong_type(option, value, "a string")
    if not re.fullmatch(_HOSTNAME, value):
        raise invalid(
            option, value, "1 to 64 letters, digits, '-', '_' and '.', not starting or ending in '-' or '.'"
        )
    return value
