# SPDX-License-Identifier: Apache-2.0
"""
Never run: mypy proves that options are checked by name and type.

A line that must fail carries an ignore, and mypy fails on an ignore without
an error.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Unpack, assert_type

from containerlib.types import (
    Completed,
    ContainerConfig,
    ContainerOptions,
    Device,
    Healthcheck,
    Mount,
    RestartPolicy,
    Stats,
    Ulimit,
    UpdateOptions,
    build_config,
    parse_bytes,
    parse_signal,
)


def run(**options: Unpack[ContainerOptions]) -> ContainerConfig:
    return build_config(
        id="0" * 64,
        name=None,
        image_reference="host",
        image_id="host",
        image_config={},
        command=["true"],
        options=options,
    )


def update(**options: Unpack[UpdateOptions]) -> None:
    """
    What Container.update takes.
    """


run()
run(name="a1", environment={"A": "1", "B": None, "C": 2, "D": Path("/x")}, env_file=Path(".env"))
run(environment=["A=1", "B"], labels=["a=b"], user=1000, working_dir=Path("/srv"))
run(
    volumes={"data": "/data", "/host": ("/in", "ro")},
    tmpfs="/run",
    devices=["/dev/fuse", Device(source="/dev/x")],
)
run(volumes=["data:/data", Mount(source="/a", target="/b"), {"type": "bind", "source": "/a", "target": "/c"}])
run(
    mem_limit="512m",
    memswap_limit=-1,
    cpus=1.5,
    cpuset="0-1",
    ulimits=["nofile=1", Ulimit(name="core", soft=0)],
)
run(
    restart="on-failure:3",
    healthcheck=Healthcheck(test=("CMD", "true")),
    stop_grace_period=timedelta(seconds=3),
)
run(restart=RestartPolicy(name="always"), healthcheck={"test": "true", "interval": "3s"}, detach=True)
run(cap_add=["NET_ADMIN"], security_opt=["no-new-privileges"], sysctls={"net.core.somaxconn": 1})
update(mem_limit="1g", restart="always")

run(enviroment={})  # type: ignore[call-arg]
run(name=1)  # type: ignore[arg-type]
run(volumes=3)  # type: ignore[arg-type]
run(tty="yes")  # type: ignore[arg-type]
update(name="other")  # type: ignore[call-arg]


def results(text: Completed[str], raw: Completed[bytes], stats: Stats) -> None:
    assert_type(text.stdout, str)
    assert_type(raw.stderr, bytes)
    assert_type(stats.memory_percent, float | None)
    assert_type(parse_bytes("1k"), int)
    assert_type(parse_signal("TERM"), int)
