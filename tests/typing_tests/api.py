# SPDX-License-Identifier: Apache-2.0
"""
Never run: what type checkers know about a program that uses containerlib.
"""

from __future__ import annotations

from typing import assert_type

import containerlib as cl


def run() -> None:
    assert_type(cl.run("host", ["true"]).stdout, str)
    assert_type(cl.run("host", ["true"], encoding=None).stdout, bytes)
    assert_type(cl.run("host", "true", check=False).exit_code, int)
    cl.run("host", "true", mem_limit="512m", cpus=1.5, cap_drop=["ALL"], environment={"A": "1"})
    cl.run("host", "true", memory="512m")  # type: ignore[call-overload]


def container() -> None:
    with cl.Container.run("host", ["sleep", "9"], network="none") as box:
        assert_type(box, cl.Container)
        assert_type(box.pid, int | None)
        assert_type(box.wait(timeout=1), int)
        assert_type(box.exec("true").stdout, str)
        assert_type(box.exec("true", encoding=None).stderr, bytes)
        assert_type(box.popen(["cat"]), cl.Process)
        assert_type(box.logs(tail=1), str)
    assert_type(cl.Container.list(all=True), list[cl.Container])
    assert_type(cl.Container.get("web"), cl.Container)


def image() -> None:
    made = cl.Image.from_rootfs("/tmp/rootfs", tag="mine")
    assert_type(made, cl.Image)
    assert_type(cl.Image.host(hide=["/root"]), cl.Image)
    assert_type(made.tags, tuple[str, ...])


def engine() -> None:
    with cl.Engine("/tmp/engine") as own:
        assert_type(own, cl.Engine)
        assert_type(own.info(), cl.HostInfo)
