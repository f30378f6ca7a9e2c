# SPDX-License-Identifier: Apache-2.0
"""
Limits and policies: resources, ulimits, devices, restart, health, logging.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from .quantities import invalid, parse_bytes, parse_duration, parse_integer, wrong_type
from .values import BlkioConfig, Device, Healthcheck, LogConfig, Resources, RestartPolicy, Ulimit

Ulimits = Mapping[str, int | str | Mapping[str, int] | tuple[int, int]] | Iterable[str | Ulimit]
Devices = Iterable[str | os.PathLike[str] | Device]
Restart = str | RestartPolicy
HealthcheckOption = Healthcheck | Mapping[str, Any]
Blkio = BlkioConfig | Mapping[str, Any]
Logging = LogConfig | Mapping[str, Any]

#: Docker's lower bound: a container's first process does not start below it.
MINIMUM_MEMORY: Final = 6 << 20
_MAXIMUM_CPU: Final = 8191
_CPUSET: Final = r"(?a)[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*"


def parse_ulimits(value: Ulimits) -> tuple[Ulimit, ...]:
    """
    Limits from ``["nofile=1024:2048"]``, ``{"nofile": 1024}``, ``{"nofile":
    {"soft": 1, "hard": 2}}`` or Ulimit values; the last of a name wins.
    """
    if isinstance(value, Mapping):
        limits = [_ulimit(name, given) for name, given in value.items()]
    elif isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise wrong_type("ulimits", value, "a dictionary or a list of 'name=soft:hard'")
    else:
        limits = []
        for item in value:
            if not isinstance(item, (str, Ulimit)):
                raise wrong_type("ulimits", item, "'name=soft:hard' or a Ulimit")
            limits.append(Ulimit.parse(item) if isinstance(item, str) else item)
    return tuple({limit.name: limit for limit in limits}.values())


def _ulimit(name: object, given: object) -> Ulimit:
    if not isinstance(name, str):
        raise wrong_type("ulimits", name, "a limit's name")
    soft: object = given
    hard: object = None
    if isinstance(given, str):
        return Ulimit.parse(f"{name}={given}")
    if isinstance(given, Mapping):
        if set(given) != {"soft", "hard"}:
            raise invalid("ulimits", {name: dict(given)}, "{'soft': number, 'hard': number}")
        soft, hard = given["soft"], given["hard"]
    elif isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise invalid("ulimits", {name: given}, "(soft, hard)")
        soft, hard = given
    if type(soft) is not int or type(hard) not in (int, type(None)):
        raise wrong_type("ulimits", given, f"integers as the limits of {name}")
    return Ulimit(name=name, soft=soft, hard=hard)  # type: ignore[arg-type]  # checked above


def parse_devices(value: Devices) -> tuple[Device, ...]:
    """
    Devices from ``"/dev/fuse"``, ``"/dev/x:/dev/y:rwm"`` and Device values.
    """
    if isinstance(value, (str, bytes, Device)) or not isinstance(value, Iterable):
        raise wrong_type("devices", value, "a list of paths, 'source:target:rwm' strings and Devices")
    devices = []
    for item in value:
        if isinstance(item, Device):
            devices.append(item)
        elif isinstance(item, str):
            devices.append(Device.parse(item))
        elif isinstance(item, os.PathLike):
            devices.append(Device(source=item))
        else:
            raise wrong_type("devices", item, "'/dev/source:/dev/target:rwm' or a Device")
    return tuple(devices)


def parse_restart(value: Restart | Mapping[str, Any]) -> RestartPolicy:
    """
    A policy from ``"on-failure:3"`` and the like, or docker-py's dictionary.
    """
    if isinstance(value, RestartPolicy):
        return value
    if isinstance(value, str):
        return RestartPolicy.parse(value)
    if isinstance(value, Mapping):
        if set(value) - {"Name", "MaximumRetryCount"} or not isinstance(value.get("Name"), str):
            raise invalid("restart", dict(value), "{'Name': 'on-failure', 'MaximumRetryCount': 3}")
        maximum = parse_integer("restart", value.get("MaximumRetryCount", 0))
        return RestartPolicy(name=value["Name"] or "no", maximum=maximum)
    raise wrong_type("restart", value, "'no', 'on-failure:3', 'always', 'unless-stopped' or a RestartPolicy")


_HEALTH_KEYS: Final = frozenset(
    {"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"}
)


def parse_healthcheck(
    value: HealthcheckOption | None, image: Mapping[str, Any] | None = None, *, shell: Iterable[str] = ()
) -> Healthcheck | None:
    """
    The check to run, from the option and the image's; None when there is none.

    The option is a Healthcheck or Compose's form; what it leaves out comes
    from the image.  *shell* is the image's, for a test that is a line.
    """
    settings: dict[str, Any] = _image_healthcheck(image) if image else {}
    if isinstance(value, Healthcheck):
        settings = attrs.asdict(value)
    elif isinstance(value, Mapping):
        unknown = set(value) - _HEALTH_KEYS
        if unknown:
            raise invalid(
                "healthcheck", sorted(map(str, unknown)), f"keys of {', '.join(sorted(_HEALTH_KEYS))}"
            )
        if not isinstance(value.get("disable", False), bool):
            raise wrong_type("healthcheck", value["disable"], "True or False as disable")
        if value.get("disable"):
            return None
        settings |= _health_settings(value)
    elif value is not None:
        raise wrong_type("healthcheck", value, "a dictionary of Compose's form or a Healthcheck")
    if not settings.get("test"):
        if value is None:
            return None
        raise invalid("healthcheck", value, "a test, as neither option nor image has one")
    check = Healthcheck(**settings)
    if check.test[0] == "NONE":
        return None
    own_shell = tuple(shell)
    if check.test[0] == "CMD-SHELL" and own_shell and own_shell != ("/bin/sh", "-c"):
        return attrs.evolve(check, test=("CMD", *own_shell, check.test[1]))
    return check


def _health_settings(value: Mapping[Any, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, given in value.items():
        if given is None or key == "disable":
            continue
        if key == "test":
            settings["test"] = _health_test(given)
        elif key == "retries":
            settings["retries"] = parse_integer("healthcheck", given, minimum=1, maximum=0x7FFFFFFF)
        elif not isinstance(given, (str, int, float, timedelta)):
            raise wrong_type("healthcheck", given, f"a duration as {key}")
        else:
            settings[key] = parse_duration(given, option="healthcheck")
    return settings


def _health_test(given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        return ("CMD-SHELL", given) if given else ()
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise wrong_type("healthcheck", given, "a line or a list as the test")
    test = tuple(given)
    if not all(isinstance(word, str) for word in test):
        raise wrong_type("healthcheck", given, "strings in the test")
    if any("\0" in word for word in test):
        raise invalid("healthcheck", list(test), "a test without NUL")
    return test


def _image_healthcheck(image: Mapping[str, Any]) -> dict[str, Any]:
    """
    Docker's form of an image's check: times are integers of nanoseconds, and 0
    stands for the default.
    """
    settings: dict[str, Any] = {}
    if image.get("Test"):
        settings["test"] = _health_test(image["Test"])
    for key, name in (
        ("Interval", "interval"),
        ("Timeout", "timeout"),
        ("StartPeriod", "start_period"),
        ("StartInterval", "start_interval"),
    ):
        if image.get(key):
            settings[name] = parse_integer("healthcheck", image[key]) / 1e9
    if image.get("Retries"):
        settings["retries"] = parse_integer("healthcheck", image["Retries"], maximum=0x7FFFFFFF)
    return settings


def parse_logging(value: Logging) -> LogConfig:
    """
    Log rotation from a LogConfig or Compose's ``{"options": {"max-size": "10m",
    "max-file": "3"}}``.
    """
    if isinstance(value, LogConfig):
        return value
    if not isinstance(value, Mapping):
        raise wrong_type("logging", value, "a dictionary or a LogConfig")
    options = value.get("options") or {}
    if not isinstance(options, Mapping):
        raise wrong_type("logging", options, "a dictionary as options")
    driver = value.get("driver", "json-file")
    if set(value) - {"driver", "options"} or set(options) - {"max-size", "max-file"}:
        raise invalid("logging", dict(value), "driver, and options of max-size and max-file")
    if driver not in ("json-file", "local", "k8s-file"):
        raise invalid(
            "logging",
            driver,
            "no driver: the monitor keeps the logs (json-file, local and k8s-file mean that)",
        )
    return LogConfig(
        max_size=parse_bytes(options.get("max-size", 0), option="logging"),
        max_files=parse_integer("logging", options.get("max-file", 1), minimum=1, maximum=10000),
    )


def parse_cpus(value: float | str, *, option: str = "cpus") -> float:
    """
    A number of processors, also a fraction: 1.5 or ``"1.5"``; 0 is no limit.
    """
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{0,9})?|\.[0-9]{1,9}", value, re.ASCII):
            raise invalid(option, value, "a number of processors like 2 or '1.5'")
        number = float(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if -1 <= value <= 1_000_000 else -1.0
    else:
        raise wrong_type(option, value, "a number of processors")
    if number != 0 and not 0.01 <= number <= 1_000_000:
        raise invalid(option, value, "0.01 or more processors")
    return number


def parse_cpuset(value: str | int | Iterable[int], *, option: str = "cpuset") -> str:
    """
    Processors or memory nodes as ``"0-2,5"``, a number, or numbers.
    """
    if isinstance(value, str):
        text = value
    elif type(value) is int:
        text = str(value)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        numbers = list(value)
        if not all(type(number) is int for number in numbers):
            raise wrong_type(option, value, "a string like '0-2,5' or numbers")
        text = ",".join(map(str, numbers))
    else:
        raise wrong_type(option, value, "a string like '0-2,5' or numbers")
    if not re.fullmatch(_CPUSET, text):
        raise invalid(option, value, "a list like '0-2,5'")
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not int(first) <= int(last if dash else first) <= _MAXIMUM_CPU:
            raise invalid(option, value, f"rising ranges of numbers up to {_MAXIMUM_CPU}")
    return text


def parse_blkio(value: Blkio) -> BlkioConfig:
    """
    Block I/O limits from a BlkioConfig or Compose's ``blkio_config``.
    """
    if isinstance(value, BlkioConfig):
        return value
    if not isinstance(value, Mapping):
        raise wrong_type("blkio_config", value, "a dictionary or a BlkioConfig")
    settings: dict[str, Any] = {}
    for key, given in value.items():
        if key == "weight":
            settings[key] = parse_integer("blkio_config", given, maximum=1000) or None
        elif key == "weight_device":
            settings[key] = _rates(key, given, "weight")
        elif key in ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"):
            settings[key] = _rates(key, given, "rate")
        else:
            accepted = ", ".join(field.name for field in attrs.fields(BlkioConfig))
            raise invalid("blkio_config", key, f"keys of {accepted}")
    return BlkioConfig(**settings)


def _rates(key: str, given: object, unit: str) -> tuple[tuple[str, int], ...]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise wrong_type("blkio_config", given, f"a list as {key}")
    rates = []
    for item in given:
        if not isinstance(item, Mapping):
            raise wrong_type("blkio_config", item, f"{{'path': …, '{unit}': …}} in {key}")
        path, number = item.get("path"), item.get(unit)
        if set(item) != {"path", unit} or not isinstance(path, (str, os.PathLike)):
            raise invalid("blkio_config", dict(item), f"{{'path': '/dev/…', '{unit}': number}} in {key}")
        if key.endswith("bps"):
            rate = parse_bytes(number, option="blkio_config")  # type: ignore[arg-type]  # it checks
        else:
            rate = parse_integer("blkio_config", number)
        rates.append((os.fspath(path), rate))
    return tuple(rates)


def _memory(value: Any, option: str) -> int | None:
    size = parse_bytes(value, option=option) or None
    if size is not None and size < MINIMUM_MEMORY:
        raise invalid(option, value, "at least 6m")
    return size


def _swap(value: Any, option: str) -> int | None:
    return parse_bytes(value, option=option, unlimited=True) or None


def _pids(value: Any, option: str) -> int | None:
    number = parse_integer(option, value, minimum=-1, maximum=4194304)
    return number if number > 0 else None


def _shares(value: Any, option: str) -> int | None:
    number = parse_integer(option, value, maximum=262144)
    if number == 1:
        raise invalid(option, value, "0 (the default) or 2 to 262144")
    return number or None


def _boolean(value: Any, option: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(option, value, "True or False")
    return value


_RESOURCES: Final[dict[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "mem_limit": ("mem_limit", _memory),
    "memswap_limit": ("memswap_limit", _swap),
    "mem_reservation": ("mem_reservation", _memory),
    "cpus": ("cpus", lambda value, option: parse_cpus(value, option=option) or None),
    "cpu_shares": ("cpu_shares", _shares),
    "cpuset": ("cpuset", lambda value, option: None if value == "" else parse_cpuset(value, option=option)),
    "cpuset_mems": (
        "cpuset_mems",
        lambda value, option: None if value == "" else parse_cpuset(value, option=option),
    ),
    "pids_limit": ("pids_limit", _pids),
    "blkio_config": ("blkio", lambda value, _: parse_blkio(value)),
    "oom_kill_disable": ("oom_kill_disable", _boolean),
}
RESOURCE_OPTIONS: Final = frozenset(_RESOURCES)


def parse_resources(options: Mapping[str, Any], current: Resources | None = None) -> Resources:
    """
    The limits among *options*, put over *current*; 0 takes a limit away.
    """
    given = options.keys() & RESOURCE_OPTIONS
    settings: dict[str, Any] = {}
    for option in given:
        if options[option] is not None:
            name, parse = _RESOURCES[option]
            settings[name] = parse(options[option], option)
    if not settings:
        return current or _UNLIMITED
    resources = attrs.evolve(current or _UNLIMITED, **settings)
    _check_memory(resources)
    return resources


_UNLIMITED: Final = Resources()


def _check_memory(resources: Resources) -> None:
    limit, swap = resources.mem_limit, resources.memswap_limit
    if swap is not None and swap != -1:
        if limit is None:
            raise invalid("memswap_limit", swap, "a mem_limit beside it")
        if swap < limit:
            raise invalid("memswap_limit", swap, f"memory and swap together, so at least mem_limit ({limit})")
    if limit is not None and resources.mem_reservation is not None and resources.mem_reservation > limit:
        raise invalid("mem_reservation", resources.mem_reservation, f"at most mem_limit ({limit})")
    if resources.oom_kill_disable and limit is None:
        raise invalid("oom_kill_disable", True, "a mem_limit beside it, or the host could run out of memory")
