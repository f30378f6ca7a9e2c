# SPDX-License-Identifier: Apache-2.0
"""
Control groups: what is compiled for each kind of host, without touching one.
"""

from __future__ import annotations

import math
import os

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidOption, NotSupported
from containerlib.runtime import cgroups
from containerlib.runtime.cgroups import CgroupLayout, CgroupPlan, Hierarchy, convert, layout
from containerlib.shim import CgroupKind
from containerlib.types import BlkioConfig, Resources

MIB = 1 << 20
ID = "0123456789abcdef01234567"

V1_NAMES = ("cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")


def _v1(**changes: str) -> CgroupLayout:
    """
    A host with every hierarchy of version 1, at paths that are not there.
    """
    return CgroupLayout(
        kind="v1",
        hierarchies=tuple(
            Hierarchy(
                version=1,
                mount=f"/none/{names}",
                controllers=tuple(names.split(",")),
                own=f"/none/{names}",
                parent=f"/none/{names}",
                **({"writable": False, "reason": changes[names]} if names in changes else {}),
            )
            for names in V1_NAMES
        ),
    )


def _v2(
    *controllers: str,
    blocked: str = "",
    enabled: tuple[str, ...] = (),
    writable: bool = True,
    reason: str = "",
) -> CgroupLayout:
    """
    A host with version 2 only, at a path that is not there.
    """
    return CgroupLayout(
        kind="v2",
        hierarchies=(
            Hierarchy(
                version=2,
                mount="/none",
                controllers=controllers,
                own="/none/me",
                parent="/none/me",
                enabled=enabled,
                blocked=blocked,
                writable=writable,
                reason=reason,
            ),
        ),
    )


ALL_V2 = _v2("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def _values(plan: CgroupPlan) -> dict[str, str]:
    """
    File and value of each write, the devices' aside.
    """
    return {file: value for _, file, value, _ in plan.writes if not file.startswith("devices.")}


# ---- the layout -------------------------------------------------------------


class TestLayout:
    """
    What the two files of /proc say.
    """

    def test_mountinfo(self):
        """
        Control group mounts are found among others, octal escapes and optional fields included.
        """
        text = (
            "23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
            "31 23 0:28 / /sys/fs/cgroup rw shared:2 master:3 - tmpfs tmpfs rw,mode=755\n"
            "32 31 0:29 /docker/ab /mnt/a\\040b rw shared:4 - cgroup cgroup rw,cpu,cpuacct\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        )

        assert [
            ("/docker/ab", "/mnt/a b", "cgroup", "rw,cpu,cpuacct"),
            ("/", "/sys/fs/cgroup/unified", "cgroup2", "rw,nsdelegate"),
        ] == layout.parse_mountinfo(text)

    def test_membership(self):
        """
        Groups are known by controller, version 2 by the empty name; a path may have colons.
        """
        assert {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b:c", "": "/"} == layout.parse_membership(
            "4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/\n"
        )

    @pytest.mark.parametrize(
        ("root", "path", "expected"),
        [
            ("/", "/", "/m"),
            ("/", "/a/b", "/m/a/b"),
            ("/docker/x", "/docker/x", "/m"),
            ("/docker/x", "/docker/x/y", "/m/y"),
            ("/docker/x", "/docker/xy", "/m"),
            ("/docker/x", "/elsewhere", "/m"),
            ("/", "/../outside", "/m"),
        ],
    )
    def test_own_directory(self, root, path, expected):
        """
        A group's directory takes away what the mount hides.
        """
        assert expected == layout.directory("/m", root, path)

    @given(st.text())
    def test_parsers_take_anything(self, text):
        """
        No text makes the parsers fail.
        """
        layout.parse_membership(text)
        for _, mount, kind, _ in layout.parse_mountinfo(text):
            assert kind in ("cgroup", "cgroup2")
            assert isinstance(mount, str)

    def test_this_host(self):
        """
        The layout is read once; each of its mounts is there.
        """
        found = cgroups.detect()

        assert found is cgroups.detect()
        assert found.kind in ("v1", "v2", "hybrid", "none")
        for hierarchy in found.hierarchies:
            assert os.path.isdir(hierarchy.mount)

    def test_v1_before_v2(self):
        """
        On a hybrid host a controller is taken from version 1, the rest from version 2.
        """
        two = Hierarchy(version=2, mount="/u", controllers=("hugetlb",), own="/u", parent="/u")
        hybrid = CgroupLayout(kind="hybrid", hierarchies=(*_v1().hierarchies, two))

        assert 1 == hybrid.of("memory").version
        assert 1 == hybrid.of("devices").version
        assert two == hybrid.of("hugetlb")
        assert "/none/blkio" == hybrid.of("io").mount

    def test_read_only_mounts(self):
        """
        Hierarchies that cannot be written to are known, with the reason.
        """
        found = layout.read_layout("1 0 0:1 / /proc/self rw - cgroup cgroup rw,memory\n", "1:memory:/\n")

        assert not found.hierarchies[0].writable
        assert "run as root" in found.hierarchies[0].reason

    @pytest.mark.user
    @pytest.mark.parametrize(
        ("groups", "chosen", "blocked"),
        [
            # One's own group, with nobody but us in it.
            ({"": None, "/a": {"cgroup.procs": "{me}"}}, "/a", False),
            # Others are in there too.
            ({"": None, "/a": {"cgroup.procs": "{me}\n1\n"}}, "/a", True),
            # A slice of ours has controllers below it already.
            (
                {"": None, "/a": {"cgroup.subtree_control": "pids"}, "/a/b": {"cgroup.procs": "1\n"}},
                "/a",
                False,
            ),
            # Threads apart: nothing can be put below.
            ({"": None, "/a": {}, "/a/b": {"cgroup.type": "domain threaded"}}, "/a", False),
        ],
    )
    def test_delegated(self, tmp_path, groups, chosen, blocked):
        """
        A user gets the nearest group of their own that may have controllers below it.
        """
        for name, files in groups.items():
            group = tmp_path / name.lstrip("/")
            group.mkdir(exist_ok=True)
            if files is None:
                continue
            defaults = {"cgroup.controllers": "pids", "cgroup.subtree_control": "", "cgroup.type": "domain"}
            for file, text in {**defaults, "cgroup.procs": "", **files}.items():
                (group / file).write_text(text.format(me=os.getpid()))
        own = list(groups)[-1]

        found = layout.read_layout(f"1 0 0:1 / {tmp_path} rw - cgroup2 cgroup2 rw\n", f"0::{own}\n")

        assert "v2" == found.kind
        assert str(tmp_path) + chosen == found.unified.parent
        assert blocked == bool(found.unified.blocked)

    @pytest.mark.user
    def test_not_delegated(self):
        """
        A user without a group of their own is told how to get one.
        """
        found = layout.read_layout("1 0 0:1 / /proc rw - cgroup2 cgroup2 rw\n", "0::/\n")

        assert not found.unified.writable
        with pytest.raises(NotSupported, match="pids_limit.*systemd-run"):
            cgroups.compile(
                Resources(pids_limit=7),
                id=ID,
                layout=attrs.evolve(found, hierarchies=(attrs.evolve(found.unified, controllers=("pids",)),)),
            )


# ---- conversions ------------------------------------------------------------


class TestConvert:
    """
    From options to the kernel's units.
    """

    @pytest.mark.parametrize(
        ("shares", "weight"),
        [(0, 1), (2, 1), (3, 2), (512, 59), (1024, 100), (2000, 170), (262144, 10000), (1 << 40, 10000)],
    )
    def test_cpu_weight(self, shares, weight):
        """
        The ends and the defaults of both ranges meet.
        """
        assert weight == convert.cpu_weight(shares)

    @given(st.integers(2, 262144), st.integers(2, 262144))
    def test_cpu_weight_keeps_order(self, one, other):
        """
        More shares are never less weight, and every weight is in the kernel's range.
        """
        low, high = sorted((one, other))

        assert 1 <= convert.cpu_weight(low) <= convert.cpu_weight(high) <= 10000

    @given(st.integers(10, 1000))
    def test_io_weight_in_range(self, weight):
        """
        Every weight of version 1 is one of version 2.
        """
        assert 1 <= convert.io_weight(weight) <= 10000
        assert (1, 10000) == (convert.io_weight(10), convert.io_weight(1000))

    @given(st.floats(0.01, 4096))
    def test_quota(self, cpus):
        """
        A quota is the number of processors in thousandths of a percent of the period.
        """
        assert math.isclose(cpus * 100_000, convert.cpu_quota(cpus), abs_tol=0.5)

    @pytest.mark.parametrize("cpus", [0.001, -1.0, 0.0, math.inf, math.nan])
    def test_bad_quota(self, cpus):
        """
        Less than a hundredth of a processor is refused by name.
        """
        with pytest.raises(InvalidOption, match="cpus"):
            convert.cpu_quota(cpus)

    @given(st.sets(st.integers(0, 400), min_size=1))
    def test_sets_round_trip(self, numbers):
        """
        A list of numbers and ranges is read as the kernel reads it.
        """
        text = ",".join(f"{n}-{n}" if n % 2 else str(n) for n in numbers)

        assert numbers == convert.parse_set(text)

    @pytest.mark.parametrize(
        "text", ["", "a", "1-", "-1", "3-1", "1,,2", "1;2", "1 2", "9" * 50, "0-99999999"]
    )
    def test_bad_sets(self, text):
        """
        What is no list is refused by name.
        """
        with pytest.raises(InvalidOption, match="cpuset"):
            convert.parse_set(text)

    @pytest.mark.parametrize(
        ("memory", "both", "expected"), [(10, 10, "0"), (10, 30, "20"), (10, -1, "max"), (None, -1, "max")]
    )
    def test_swap(self, memory, both, expected):
        """
        Version 2 counts swap without the memory.
        """
        assert expected == convert.swap_max(memory, both)

    @pytest.mark.parametrize(("memory", "both"), [(None, 10), (20, 10)])
    def test_bad_swap(self, memory, both):
        """
        Memory and swap together cannot be less than memory.
        """
        with pytest.raises(InvalidOption, match="memswap_limit.*mem_limit"):
            convert.swap_max(memory, both)

    def test_not_a_block_device(self, tmp_path):
        """
        Rates are for disks: a file, a character device and nothing are refused by path.
        """
        for path in (str(tmp_path), "/dev/null", "/dev/nothing"):
            with pytest.raises(InvalidOption, match=path):
                convert.block_device(path)


# ---- plans ------------------------------------------------------------------


class TestPlan:
    """
    What is compiled for a container, on hosts of each kind.
    """

    def test_v1_without_limits(self):
        """
        Each container gets a group in the hierarchies that count and pause, and none of its own in cpuset.
        """
        plan = cgroups.compile(Resources(), id=ID, layout=_v1())

        assert [
            f"/none/{names}/containerlib-{ID}"
            for names in ("memory", "pids", "cpu,cpuacct", "blkio", "freezer", "devices")
        ] == [directory.path for directory in plan.directories]
        assert {} == _values(plan)
        assert (5, "devices.deny", "a", False) == plan.writes[0]
        assert CgroupKind.MEMORY == plan.directories[0].kind
        assert CgroupKind.FREEZER == plan.directories[4].kind
        assert ((), (), None) == (plan.parents, plan.enable, plan.bpf)

    def test_v1_with_limits(self):
        """
        Limits go to version 1's files, memory before memory and swap.
        """
        plan = cgroups.compile(
            Resources(
                mem_limit=64 * MIB, mem_reservation=MIB, cpu_shares=512, pids_limit=7, oom_kill_disable=True
            ),
            id=ID,
            layout=_v1(),
        )

        assert {
            "memory.limit_in_bytes": "67108864",
            "memory.memsw.limit_in_bytes": "134217728",
            "memory.soft_limit_in_bytes": "1048576",
            "memory.oom_control": "1",
            "cpu.shares": "512",
            "pids.max": "7",
        } == _values(plan)
        files = [file for _, file, _, _ in plan.writes]
        assert files.index("memory.limit_in_bytes") < files.index("memory.memsw.limit_in_bytes")
        assert all(
            file.partition(".")[0] in plan.directories[index].controllers for index, file, _, _ in plan.writes
        )

    def test_v2_without_limits(self):
        """
        Version 2 has one group, a device program, and controllers enabled where that costs nothing.
        """
        plan = cgroups.compile(Resources(), id=ID, layout=ALL_V2)

        assert [f"/none/me/containerlib-{ID}"] == [directory.path for directory in plan.directories]
        assert CgroupKind.UNIFIED == plan.directories[0].kind
        assert () == plan.writes
        assert 0 == plan.bpf_index
        assert (("/none/me", (), ("cpu", "io", "memory", "pids")),) == plan.enable

    def test_v2_with_limits(self):
        """
        Limits go to version 2's files in its units.
        """
        plan = cgroups.compile(
            Resources(
                mem_limit=64 * MIB,
                memswap_limit=96 * MIB,
                mem_reservation=MIB,
                cpus=1.5,
                cpu_shares=1024,
                cpuset="0",
                cpuset_mems="0",
                pids_limit=7,
            ),
            id=ID,
            layout=ALL_V2,
        )

        assert {
            "memory.max": "67108864",
            "memory.swap.max": "33554432",
            "memory.low": "1048576",
            "cpu.max": "150000 100000",
            "cpu.weight": "100",
            "cpuset.cpus": "0",
            "cpuset.mems": "0",
            "pids.max": "7",
        } == _values(plan)
        assert (("/none/me", ("memory", "cpu", "cpuset", "pids"), ("io",)),) == plan.enable

    def test_unlimited(self):
        """
        Limits that mean none write nothing.
        """
        for host in (_v1(), ALL_V2):
            assert {} == _values(cgroups.compile(Resources(pids_limit=-1), id=ID, layout=host))

    def test_named_parent(self):
        """
        A named parent is made in each hierarchy, and offers the controllers all the way down.
        """
        plan = cgroups.compile(Resources(pids_limit=7), id=ID, layout=ALL_V2, parent="/a/b")

        assert f"/none/me/a/b/containerlib-{ID}" == plan.directories[0].path
        assert ("/none/me/a", "/none/me/a/b") == plan.parents
        assert ["/none/me", "/none/me/a", "/none/me/a/b"] == [path for path, _, _ in plan.enable]

    @pytest.mark.parametrize("parent", ["../x", "a/../../b", "a/./b", "a\0b"])
    def test_bad_parent(self, parent):
        """
        A parent cannot lead out of the tree.
        """
        with pytest.raises(InvalidOption, match="cgroup_parent"):
            cgroups.compile(Resources(), id=ID, layout=_v1(), parent=parent)

    @pytest.mark.parametrize("identity", ["", "a/b", "..", ".a", "a\0"])
    def test_bad_id(self, identity):
        """
        An id that is no file name is refused.
        """
        with pytest.raises(InvalidOption, match="id"):
            cgroups.compile(Resources(), id=identity, layout=_v1())

    def test_privileged_and_rootless(self):
        """
        Neither a privileged nor a rootless container has a device list.
        """
        for host in (_v1(), ALL_V2):
            for options in ({"privileged": True}, {"rootless": True}):
                plan = cgroups.compile(Resources(), id=ID, layout=host, **options)

                assert (None, ()) == (plan.bpf, plan.writes)
                assert not any("devices" in directory.controllers for directory in plan.directories)

    def test_hybrid_with_devices_in_v2(self):
        """
        Where version 1 has no devices, version 2's group is made for the device program.
        """
        two = Hierarchy(version=2, mount="/u", controllers=(), own="/u", parent="/u")
        ones = tuple(one for one in _v1().hierarchies if "devices" not in one.controllers)
        plan = cgroups.compile(
            Resources(), id=ID, layout=CgroupLayout(kind="hybrid", hierarchies=(*ones, two))
        )

        assert 2 == plan.directories[plan.bpf_index].version
        assert plan.bpf is not None

    def test_no_cgroups(self):
        """
        Without any control group a container without limits has none.
        """
        assert CgroupPlan() == cgroups.compile(
            Resources(), id=ID, layout=CgroupLayout(kind="none"), rootless=True
        )

    @pytest.mark.parametrize(
        ("host", "resources", "words"),
        [
            (CgroupLayout(kind="none"), Resources(mem_limit=MIB), ["mem_limit", "'memory'"]),
            (_v2("cpu"), Resources(pids_limit=7), ["pids_limit", "'pids'"]),
            (_v1(memory="it is locked: ask"), Resources(mem_limit=MIB), ["mem_limit", "it is locked"]),
            (
                _v2("memory", blocked="full: move out"),
                Resources(mem_limit=MIB),
                ["mem_limit", "full: move out"],
            ),
            (
                _v2("memory", writable=False, reason="not ours: ask"),
                Resources(mem_limit=MIB),
                ["mem_limit", "not ours"],
            ),
            (ALL_V2, Resources(oom_kill_disable=True), ["oom_kill_disable", "v2"]),
            (_v1(), Resources(cpus=1.0), ["cpus", "CFS_BANDWIDTH"]),
            (_v1(), Resources(mem_limit=MIB, memswap_limit=MIB), ["memswap_limit", "swapaccount"]),
            (_v1(), Resources(blkio=BlkioConfig(weight=100)), ["blkio_config", "BFQ"]),
        ],
    )
    def test_what_cannot_be_enforced(self, host, resources, words):
        """
        A limit that the host cannot enforce is an error that names option, controller and remedy.
        """
        with pytest.raises(NotSupported) as caught:
            cgroups.compile(resources, id=ID, layout=host)

        for word in words:
            assert word in str(caught.value)
        assert caught.value.subject == words[0]

    def test_blocked_but_enabled(self):
        """
        Controllers that are enabled already can be used in a group that can enable no more.
        """
        host = _v2("cpu", "memory", blocked="full: move out", enabled=("memory",))

        assert "memory.max" in _values(cgroups.compile(Resources(mem_limit=MIB), id=ID, layout=host))
        with pytest.raises(NotSupported, match="cpu"):
            cgroups.compile(Resources(cpu_shares=2), id=ID, layout=host)

    def test_features_name_each_limit(self):
        """
        What a host lacks is data, each with a reason.
        """
        missing = {feature.name: feature for feature in cgroups.features(CgroupLayout(kind="none"))}

        assert {
            "mem_limit",
            "memswap_limit",
            "cpus",
            "cpu_shares",
            "cpuset",
            "pids_limit",
            "blkio_config.weight",
            "device_cgroup_rules",
            "pause",
        } == set(missing)
        for feature in missing.values():
            assert not feature.available
            assert feature.reason
            assert feature.remedy
