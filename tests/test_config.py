# SPDX-License-Identifier: Apache-2.0
"""
What a container was asked to be: Docker's rules for merging options and image.
"""

from __future__ import annotations

import contextlib
import os
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import CorruptState, InvalidOption, NotSupported
from containerlib.types import (
    BlkioConfig,
    ContainerConfig,
    Device,
    Healthcheck,
    LogConfig,
    Mount,
    Resources,
    RestartPolicy,
    SecurityOptions,
    Ulimit,
    build_config,
    random_name,
    update_config,
)
from containerlib.types.build import DEFAULT_PATH
from containerlib.types.mounts import TMPFS_FLAGS
from containerlib.types.options import OPTION_NAMES

ID = "0123456789ab" + "c" * 52


def _build(command: Any = ("true",), image: Any = None, **options: Any) -> ContainerConfig:
    return build_config(
        id=ID,
        name=None,
        image_reference="app:1",
        image_id="sha256:" + "1" * 64,
        image_config=image or {},
        command=command,
        options=options,  # type: ignore[arg-type]
    )


FULL: dict[str, Any] = {
    "entrypoint": ["/entry", "-x"],
    "environment": {"A": "1", "LATIN": b"\xff".decode("utf-8", "surrogateescape")},
    "working_dir": "/srv/../app",
    "user": "1000:44",
    "group_add": ["audio", 5],
    "hostname": "web",
    "domainname": "example.org",
    "tty": True,
    "stdin_open": True,
    "init": True,
    "stop_signal": "INT",
    "stop_grace_period": "1m30s",
    "labels": {"a": "b"},
    "platform": "linux/amd64",
    "pull_policy": "never",
    "logging": {"options": {"max-size": "1m", "max-file": 3}},
    "volumes": ["/a:/in:ro,rslave", "data:/data"],
    "tmpfs": {"/run": "size=1m,mode=700"},
    "volumes_from": "other:ro",
    "read_only": True,
    "shm_size": "128m",
    "devices": ["/dev/fuse:r"],
    "dns": "10.0.0.1",
    "dns_search": ["a.example", "b.example"],
    "dns_opt": "ndots:2",
    "extra_hosts": {"db": "10.0.0.2"},
    "mem_limit": "512m",
    "cpus": 1.5,
    "blkio_config": {"weight": 20, "device_read_bps": [{"path": "/dev/sda", "rate": "1m"}]},
    "ulimits": {"nofile": (1, 2)},
    "oom_score_adj": 500,
    "cap_add": ["NET_ADMIN"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges", "seccomp=unconfined", "label=disable"],
    "sysctls": {"net.core.somaxconn": 1},
    "ipc": "shareable",
    "pid": "container:other",
    "cgroup_parent": "/jobs",
    "detach": True,
    "restart": "on-failure:3",
    "healthcheck": {"test": "ok", "interval": "3s"},
}


def test_defaults() -> None:
    """
    A plain container has Docker's defaults.
    """
    config = _build(["true"])

    assert ("true",) == config.args
    assert {"PATH": DEFAULT_PATH, "HOSTNAME": "0123456789ab"} == config.environment
    assert ("/", "", "0123456789ab", "none") == (
        config.working_dir,
        config.user,
        config.hostname,
        config.network,
    )
    assert (15, 10.0, 64 << 20) == (config.stop_signal, config.stop_grace_period, config.shm_size)
    assert ("private",) * 5 == (config.ipc, config.pid, config.uts, config.cgroup, config.userns_mode)
    assert (Resources(), RestartPolicy(), SecurityOptions()) == (
        config.resources,
        config.restart,
        config.security,
    )
    assert re.fullmatch(r"[a-z]+_[a-z]+", config.name)
    assert "0123456789ab" == config.short_id
    assert abs(config.created.timestamp() * 1e9 - config.created_ns) < 1e4


def test_every_option() -> None:
    """
    Each option ends in its field.
    """
    config = _build("run it", name="web", **FULL)

    assert ("/entry", "-x", "run", "it") == config.args
    assert ("/entry", "-x") == config.entrypoint
    assert ("run", "it") == config.command
    assert ("/app", "1000:44", ("audio", "5")) == (config.working_dir, config.user, config.group_add)
    assert ("web", "example.org") == (config.hostname, config.domainname)
    assert "xterm" == config.environment["TERM"]
    assert "web" == config.environment["HOSTNAME"]
    assert (2, "SIGINT", 90.0) == (config.stop_signal, config.stop_signal_name, config.stop_grace_period)
    assert LogConfig(max_size=1 << 20, max_files=3) == config.logging
    assert (
        Mount(source="/a", target="/in", read_only=True, propagation="rslave"),
        Mount(type="volume", source="data", target="/data"),
        Mount(type="tmpfs", target="/run", options=TMPFS_FLAGS, tmpfs_size=1 << 20, tmpfs_mode=0o700),
    ) == config.mounts
    assert (("other:ro",), 128 << 20) == (config.volumes_from, config.shm_size)
    assert (Device(source="/dev/fuse", permissions="r"),) == config.devices
    assert (("10.0.0.1",), ("a.example", "b.example"), ("ndots:2",)) == (
        config.dns,
        config.dns_search,
        config.dns_opt,
    )
    assert (("db", "10.0.0.2"),) == config.extra_hosts
    assert (
        Resources(
            mem_limit=512 << 20,
            cpus=1.5,
            blkio=BlkioConfig(weight=20, device_read_bps=(("/dev/sda", 1 << 20),)),
        )
        == config.resources
    )
    assert (Ulimit(name="nofile", soft=1, hard=2),) == config.ulimits
    assert (("CAP_NET_ADMIN",), ("ALL",), 500) == (config.cap_add, config.cap_drop, config.oom_score_adj)
    assert (
        SecurityOptions(no_new_privileges=True, seccomp="unconfined", label=("disable",)) == config.security
    )
    assert {"net.core.somaxconn": "1"} == config.sysctls
    assert ("shareable", "container:other", "/jobs") == (config.ipc, config.pid, config.cgroup_parent)
    assert RestartPolicy(name="on-failure", maximum=3) == config.restart
    assert Healthcheck(test=("CMD-SHELL", "ok"), interval=3) == config.healthcheck
    for name in ("tty", "stdin_open", "init", "read_only", "detach"):
        assert getattr(config, name) is True


@pytest.mark.parametrize(
    ("image", "entrypoint", "command", "expected"),
    [
        ({"Cmd": ["sh"]}, None, None, ("sh",)),
        ({"Cmd": ["sh"]}, None, "ls -l", ("ls", "-l")),
        ({"Cmd": ["sh"]}, None, [], ("sh",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, None, None, ("e", "c")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, None, ["x"], ("e", "x")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, "f g", None, ("f", "g")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, ["f"], ["x"], ("f", "x")),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, "", ["x"], ("x",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, [], ["x"], ("x",)),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, [""], ["x"], ("x",)),
        ({"Entrypoint": "e", "Cmd": None}, None, None, ("e",)),
        ({"config": {"Cmd": ["sh"]}, "rootfs": {}}, None, None, ("sh",)),
    ],
    ids=repr,
)
def test_entrypoint_and_command(image: Any, entrypoint: Any, command: Any, expected: tuple[str, ...]) -> None:
    """
    Entrypoint and command merge as `docker run` merges them.
    """
    assert expected == _build(command, image, entrypoint=entrypoint).args


@pytest.mark.parametrize(
    ("image", "entrypoint", "command"),
    [
        ({}, None, None),
        ({"Cmd": ["c"]}, "", None),
        ({"Entrypoint": ["e"], "Cmd": ["c"]}, [], ""),
        ({}, None, [""]),
    ],
    ids=repr,
)
def test_nothing_to_run(image: Any, entrypoint: Any, command: Any) -> None:
    """
    A container without a command is an error that names the image.
    """
    with pytest.raises(InvalidOption, match="command"):
        _build(command, image, entrypoint=entrypoint)


def test_values_of_variables_do_not_show() -> None:
    """
    What a configuration shows of itself has names of variables, not values.
    """
    config = _build(environment={"PASSWORD": "s3cr3t"})

    assert "PASSWORD" in repr(config)
    assert "s3cr3t" not in repr(config)


def test_environment_order(tmp_path: Any) -> None:
    """
    The caller's variables win over files, files over the image, None removes.
    """
    (tmp_path / "env").write_text("A=file\nB=file\n")
    image = {"Env": ["PATH=/image", "A=image", "B=image", "C=image", "D=image", "broken"]}

    config = _build(image=image, env_file=tmp_path / "env", environment={"A": "own", "D": None})

    assert {
        "PATH": "/image",
        "HOSTNAME": "0123456789ab",
        "A": "own",
        "B": "file",
        "C": "image",
    } == config.environment


def test_image_settings() -> None:
    """
    What the image says holds where the caller is silent.
    """
    image = {
        "WorkingDir": "srv",
        "User": "007",
        "StopSignal": "SIGQUIT",
        "Labels": {"a": "image", "b": "image"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/var/lib/x": {}, "/in/": {}},
        "Shell": ["/bin/ash", "-ec"],
        "Healthcheck": {"Test": ["CMD-SHELL", "probe"], "Interval": 10**9},
    }

    config = _build(image=image, labels={"a": "own"}, volumes={"/tmp": "/in"})

    assert ("/srv", "7", 3) == (config.working_dir, config.user, config.stop_signal)
    assert {"a": "own", "b": "image"} == config.labels
    assert (("80/tcp",), ("/in", "/var/lib/x")) == (config.exposed_ports, config.image_volumes)
    assert (Mount(source="/tmp", target="/in"), Mount(type="volume", target="/var/lib/x")) == config.mounts
    assert Healthcheck(test=("CMD", "/bin/ash", "-ec", "probe"), interval=1) == config.healthcheck
    own = _build(image=image, working_dir="/own", user=9, stop_signal="KILL")
    assert ("/own", "9", 9) == (own.working_dir, own.user, own.stop_signal)


@pytest.mark.parametrize(
    "image",
    [
        {"Volumes": {"/proc": {}}},
        {"Volumes": {"/proc/meminfo": {}}},
        {"Volumes": {"/x/../sys/fs": {}}},
        {"Volumes": {"/": {}}},
        {"Volumes": {"relative": {}}},
        {"Env": [1]},
        {"Env": ["A=\0"]},
        {"User": "4294967296"},
        {"User": "a\nb"},
        {"StopSignal": "SIGNOTHING"},
        {"Labels": ["a"]},
        {"Labels": {"a": 1}},
        {"Healthcheck": {"Test": ["RUN"]}},
        {"Healthcheck": "x"},
        {"Entrypoint": {"a": 1}},
        {"WorkingDir": "/a\0"},
        {"ExposedPorts": 3},
        {"config": "x"},
    ],
    ids=repr,
)
def test_bad_images(image: Any) -> None:
    """
    An image that cannot mean what it says is refused: it comes from strangers.
    """
    with pytest.raises(InvalidOption):
        _build(image=image)


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("restart", {"restart": "always", "auto_remove": True}),
        ("hostname", {"network": "container:x", "hostname": "web"}),
        ("dns", {"network": "container:x", "dns": "10.0.0.1"}),
        ("extra_hosts", {"network": "container:x", "extra_hosts": {"a": "10.0.0.1"}}),
        ("hostname", {"uts": "host", "hostname": "web"}),
        ("shm_size", {"ipc": "host", "shm_size": "1g"}),
        ("shm_size", {"ipc": "none", "shm_size": "1g"}),
        ("userns_mode", {"privileged": True, "userns_mode": "private"}),
        ("sysctls", {"network": "host", "sysctls": {"net.core.somaxconn": 1}}),
        ("sysctls", {"network": "host", "sysctls": {"net/core/somaxconn": 1}}),
        ("sysctls", {"network": "container:x", "sysctls": {"net.core.somaxconn": 1}}),
        ("sysctls", {"ipc": "host", "sysctls": {"kernel.shmmax": 1}}),
        ("volumes", {"volumes": ["/a:/x", "/b:/x/"]}),
        ("volumes", {"volumes": ["/a:/x"], "tmpfs": "/x"}),
        ("volumes", {"volumes": [Mount(source="/a", target="/proc")]}),
        ("oom_score_adj", {"oom_score_adj": -1001}),
        ("shm_size", {"shm_size": 0}),
        ("volumes_from", {"volumes_from": "x:wx"}),
        ("pull_policy", {"pull_policy": "often"}),
        ("network", {"network": "wan"}),
    ],
    ids=repr,
)
def test_conflicts(option: str, options: Any) -> None:
    """
    Options that contradict each other are refused, each under its name.
    """
    with pytest.raises(InvalidOption, match=option):
        _build(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"ports": {80: 8080}},
        {"publish_all_ports": True},
        {"networks": ["a"]},
        {"network_aliases": ["db"]},
        {"mac_address": "02:00:00:00:00:01"},
        {"ip": "10.0.0.2"},
        {"network": "bridge"},
    ],
    ids=repr,
)
def test_networks_are_not_there_yet(options: Any) -> None:
    """
    What needs a network says so instead of being ignored.
    """
    with pytest.raises(NotSupported, match="network"):
        _build(**options)
    assert _build(ports={}, publish_all_ports=False, ip=None)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("enviroment", "environment"),
        ("remove", "auto_remove"),
        ("network_mode", "network"),
        ("memory", "mem_limit"),
    ],
)
def test_unknown_options(wrong: str, right: str) -> None:
    """
    An unknown option is a TypeError with the name that was probably meant.
    """
    with pytest.raises(TypeError, match=f"{wrong}.*{right}"):
        _build(**{wrong: "x"})


@pytest.mark.parametrize("option", sorted(OPTION_NAMES))
def test_every_option_is_looked_at(option: str) -> None:
    """
    No option takes a value of a type that makes no sense; None leaves it out.
    """
    with pytest.raises((TypeError, NotSupported), match=option):
        _build(**{option: object()})
    assert _build(**{option: None})


def test_host_names() -> None:
    """
    A container that shares the host's name knows it.
    """
    for options in ({"uts": "host"}, {"network": "host"}):
        config = _build(**options)
        assert os.uname().nodename == config.hostname == config.environment["HOSTNAME"]


def test_names() -> None:
    """
    The caller's name is used; without one each container gets another.
    """
    assert "web" == _build(name="web").name
    assert re.fullmatch(r"[a-z]+_[a-z]+[0-9]{1,3}", random_name(3))
    assert 50 < len({random_name() for _ in range(100)})


def test_json_round_trip() -> None:
    """
    A configuration is read back as it was written, byte by byte.
    """
    for config in (_build(), _build("run it", name="web", **FULL)):
        data = config.to_json()
        assert config == ContainerConfig.from_json(data)
        assert data == ContainerConfig.from_json(data).to_json()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":1}',
        b'{"version":99}',
        b"null",
        b'{"version":1,"args":3}',
        b"\xff",
        b"[" * 100000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_corrupt_json(data: bytes) -> None:
    """
    What is no configuration is CorruptState, whatever it is.
    """
    with pytest.raises(CorruptState):
        ContainerConfig.from_json(data)


_FULL_JSON = _build("run it", name="web", **FULL).to_json()


@given(st.data())
def test_damaged_json(data: st.DataObject) -> None:
    """
    A configuration cut or changed anywhere is read or refused as corrupt.
    """
    text = bytearray(_FULL_JSON)
    position = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        del text[position:]
    else:
        text[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptState):
        ContainerConfig.from_json(bytes(text))


def test_update() -> None:
    """
    An update changes limits and restart policy, and nothing else.
    """
    config = _build(mem_limit="512m", cpus=1)

    changed = update_config(config, {"mem_limit": "1g", "restart": "always"})

    assert Resources(mem_limit=1 << 30, cpus=1.0) == changed.resources
    assert RestartPolicy(name="always") == changed.restart
    assert config.args == changed.args
    with pytest.raises(TypeError, match="name"):
        update_config(config, {"name": "x"})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(InvalidOption, match="restart"):
        update_config(_build(auto_remove=True), {"restart": "always"})


def test_durations_of_options() -> None:
    """
    The grace period takes every form of a duration.
    """
    for value in (3, "3", "3s", timedelta(seconds=3)):
        assert 3.0 == _build(stop_grace_period=value).stop_grace_period
