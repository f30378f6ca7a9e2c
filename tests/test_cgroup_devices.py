# SPDX-License-Identifier: Apache-2.0
"""
Device rules: their grammar, the program for version 2 and what kernels make of both.
"""

from __future__ import annotations

import ctypes
import os
import platform
import secrets
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import DeviceError, InvalidOption, NotSupported
from containerlib.runtime import cgroups
from containerlib.runtime.cgroups import DeviceRule, devices
from containerlib.types import Device, Resources

READ, WRITE, MKNOD = 2, 4, 1
BLOCK, CHARACTER = 1, 2


def interpret(program: bytes, context: bytes) -> int:
    """
    Run an eBPF program of the few instructions that device filters are made of.
    """
    registers = [0] * 11
    instructions = list(struct.iter_unpack("=BBhI", program))
    at = 0
    while True:
        code, operands, offset, value = instructions[at]
        target, source = operands & 15, operands >> 4
        at += 1
        match code:
            case 0x61:  # r = *(u32 *)(context + offset)
                assert 1 == source
                registers[target] = struct.unpack_from("=I", context, offset)[0]
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = value
            case 0x54:
                registers[target] = registers[target] & value & 0xFFFFFFFF
            case 0x74:
                registers[target] = (registers[target] & 0xFFFFFFFF) >> value
            case 0x56:
                if registers[target] & 0xFFFFFFFF != value:
                    at += offset
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {code:#x}")


def allowed(program: bytes, kind: int, major: int, minor: int, access: int) -> bool:
    """
    What *program* answers for one access.
    """
    answer = interpret(program, struct.pack("=III", access << 16 | kind, major, minor))
    assert answer in (0, 1)
    return bool(answer)


numbers = st.one_of(st.none(), st.sampled_from([0, 1, 3, 5, 10, 136, 2**31, 2**32 - 1]))
rules = st.builds(
    DeviceRule,
    type=st.sampled_from("abc"),
    major=numbers,
    minor=numbers,
    permissions=st.sets(st.sampled_from("rwm"), min_size=1).map(
        lambda s: "".join(x for x in "rwm" if x in s)
    ),
)


class TestRules:
    """
    The grammar of device_cgroup_rules, and devices of the host.
    """

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("c 1:3 rwm", DeviceRule(type="c", major=1, minor=3)),
            ("b *:* m", DeviceRule(type="b", permissions="m")),
            ("c 136:* wr", DeviceRule(type="c", major=136, permissions="rw")),
            ("a *:* rwm", DeviceRule(type="a")),
            ("a", DeviceRule(type="a")),
            (" c 10:229 r ", DeviceRule(type="c", major=10, minor=229, permissions="r")),
        ],
    )
    def test_parse(self, text, expected):
        """
        Rules are read as the kernel spells them.
        """
        assert expected == DeviceRule.parse(text)

    @pytest.mark.parametrize(
        "text", ["", "c", "d 1:3 r", "c 1:3 x", "c 1 r", "c -1:3 r", "c 4294967296:0 r", "c 1:3 r\n0"]
    )
    def test_bad_rules(self, text):
        """
        What is no rule is refused by the option's name.
        """
        with pytest.raises(InvalidOption, match="device_cgroup_rules"):
            DeviceRule.parse(text)

    @given(rules)
    def test_round_trip(self, rule):
        """
        A rule's text is the rule.
        """
        assert rule == DeviceRule.parse(str(rule))

    @given(st.text())
    def test_any_text(self, text):
        """
        Any text is a rule or refused.
        """
        try:
            DeviceRule.parse(text)
        except InvalidOption:
            pass

    def test_device_of_the_host(self):
        """
        A device is known by its numbers, whatever its name inside.
        """
        device = Device(source="/dev/null", target="/dev/x", permissions="rw")

        assert [DeviceRule(type="c", major=1, minor=3, permissions="rw")] == devices.device_rules([device])

    def test_directory_of_devices(self, tmp_path):
        """
        A directory stands for the devices below it, links and other files left out.
        """
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "link").symlink_to("/dev/zero")
        (tmp_path / "text").write_text("")

        assert ["c 1:5 rwm"] == list(map(str, devices.device_rules([Device(source=str(tmp_path))])))

    def test_no_device(self, tmp_path):
        """
        What is missing or no device is an error with its path.
        """
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(DeviceError, match=str(path)):
                devices.device_rules([Device(source=str(path))])

    def test_permissions_are_joined(self):
        """
        Reading allowed by one rule and writing by another is both at once.
        """
        joined = devices.merge(
            [DeviceRule.parse("c 1:3 r"), DeviceRule.parse("c 1:5 r"), DeviceRule.parse("c 1:3 w")]
        )

        assert ["c 1:3 rw", "c 1:5 r"] == list(map(str, joined))


class TestProgram:
    """
    The compiled filter, run by an interpreter.
    """

    @pytest.mark.parametrize(
        ("kind", "major", "minor", "access", "expected"),
        [
            (CHARACTER, 1, 3, READ | WRITE, True),
            (CHARACTER, 1, 9, READ, True),
            (CHARACTER, 5, 2, READ | WRITE, True),
            (CHARACTER, 136, 77, READ | WRITE, True),
            (CHARACTER, 1, 1, READ, False),  # mem
            (CHARACTER, 1, 11, WRITE, False),  # kmsg
            (CHARACTER, 10, 229, READ | WRITE, False),  # fuse
            (BLOCK, 8, 0, READ, False),
            (BLOCK, 1, 3, READ, False),
            (BLOCK, 8, 0, MKNOD, True),
            (CHARACTER, 10, 229, MKNOD, True),
        ],
    )
    def test_defaults(self, kind, major, minor, access, expected):
        """
        The devices of every container can be used, others only made.
        """
        program = devices.compile_program(devices.DEFAULT_RULES)

        assert expected == allowed(program, kind, major, minor, access)

    @given(
        st.lists(rules, max_size=8),
        st.sampled_from([BLOCK, CHARACTER]),
        st.sampled_from([0, 1, 3, 5, 10, 136, 2**31, 2**32 - 1]),
        st.sampled_from([0, 1, 3, 5, 10, 136, 2**31, 2**32 - 1]),
        st.integers(1, 7),
    )
    def test_agrees_with_the_rules(self, chosen, kind, major, minor, access):
        """
        The program allows what one rule, joined with its equals, allows.
        """
        letters = {letter for letter, bit in (("m", MKNOD), ("r", READ), ("w", WRITE)) if access & bit}
        merged = devices.merge(chosen)
        expected = any(
            rule.type in ("a", "b" if kind == BLOCK else "c")
            and rule.major in (None, major)
            and rule.minor in (None, minor)
            and letters <= set(rule.permissions)
            for rule in merged
        )

        assert expected == allowed(devices.compile_program(chosen), kind, major, minor, access)


# ---- the kernel -------------------------------------------------------------

BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}


def _bpf(command: int, attributes: bytes) -> int:
    """
    bpf(2), which no library wraps.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes.ljust(144, b"\0"), 144)
    result = libc.syscall(BPF[platform.machine()], command, buffer, 144)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def load(program: bytes) -> int:
    """
    Let the kernel verify a device program; what it says against it is the error's text.
    """
    code = ctypes.create_string_buffer(program, len(program))
    text = ctypes.create_string_buffer(b"Apache-2.0")
    head = struct.pack("=IIQQ", 15, len(program) // 8, ctypes.addressof(code), ctypes.addressof(text))
    try:
        return _bpf(5, head)
    except OSError as error:
        log = ctypes.create_string_buffer(1 << 20)
        try:
            return _bpf(5, head + struct.pack("=IIQ", 1, len(log), ctypes.addressof(log)))
        except OSError:
            if not log.value:
                pytest.skip(f"the kernel loads no device programs: {error}")
            raise AssertionError(f"{error}: {log.value.decode()}") from None


def _try(path: str, how: str) -> str:
    """
    A shell command that opens *path* for reading or writing.
    """
    return f"if true {'<' if how == 'r' else '>>'} {path}; then echo yes; else echo no; fi 2>/dev/null"


@pytest.mark.root
@pytest.mark.cgroups
class TestKernel:
    """
    What the kernel lets a process do.
    """

    @pytest.mark.parametrize(
        "texts",
        [
            [],
            ["a"],
            ["a *:* r", "c 1:3 rwm"],
            ["c *:* rwm", "b *:* rwm", "a"],
            ["c 4294967295:4294967295 m"],
            [f"b {n}:* r" for n in range(300)],
        ],
    )
    def test_verifier(self, texts):
        """
        The kernel accepts the programs of simple, odd and many rules.
        """
        os.close(load(devices.compile_program([DeviceRule.parse(text) for text in texts])))

    def test_v2(self, tmp_path):
        """
        A process in a group of version 2 with the default program uses /dev/null and no other device.
        """
        unified = cgroups.detect().unified
        if unified is None or not unified.writable:
            pytest.skip("no cgroup v2 that can be written to")
        node = tmp_path / "mem"
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 1))
        program = load(devices.compile_program(devices.DEFAULT_RULES))
        group = Path(unified.parent, f"containerlib-{secrets.token_hex(12)}")
        group.mkdir()
        directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _bpf(8, struct.pack("=IIII", directory, program, 6, 2))
            answers = self.ask(f"echo 0 > {group}/cgroup.procs", str(node), str(tmp_path / "made"))
        finally:
            os.close(directory)
            os.close(program)
            cgroups.remove([cgroups.CgroupDirectory(2, 3, str(group))])

        assert ["yes", "yes", "no", "made"] == answers

    def test_v1(self, tmp_path):
        """
        A process in a devices group of version 1 with the default list uses /dev/null and no other device.
        """
        hierarchy = cgroups.detect().of("devices")
        if hierarchy is None or hierarchy.version != 1:
            pytest.skip("no devices hierarchy of version 1")
        node = tmp_path / "mem"
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 1))
        plan = cgroups.compile(Resources(), id=secrets.token_hex(12))
        at = next(i for i, directory in enumerate(plan.directories) if "devices" in directory.controllers)
        group = Path(plan.directories[at].path)
        group.mkdir()
        try:
            for index, file, value, _ in plan.writes:
                if index == at:
                    (group / file).write_text(value)
            answers = self.ask(f"echo 0 > {group}/tasks", str(node), str(tmp_path / "made"))
        finally:
            cgroups.remove([plan.directories[at]])

        assert ["yes", "yes", "no", "made"] == answers

    @staticmethod
    def ask(enter: str, other: str, made: str) -> list[str]:
        """
        Enter a group; read and write /dev/null, read *other*, make a node.
        """
        script = "\n".join(
            (
                enter,
                _try("/dev/null", "r"),
                _try("/dev/null", "w"),
                _try(other, "r"),
                f"mknod {made} b 8 0 && echo made",
            )
        )
        return subprocess.run(
            ["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True, timeout=60
        ).stdout.split()


class TestPlan:
    """
    Devices that were asked for, in a container's plan.
    """

    def test_more_devices(self):
        """
        Devices and rules of the options come on top, and may not fail to be set.
        """
        one = cgroups.Hierarchy(version=1, mount="/d", controllers=("devices",), own="/d", parent="/d")
        plan = cgroups.compile(
            Resources(),
            id="0" * 24,
            layout=cgroups.CgroupLayout(kind="v1", hierarchies=(one,)),
            devices=[Device(source="/dev/null", target="/dev/null", permissions="rwm")],
            rules=["c 10:229 rwm"],
        )

        assert (0, "devices.allow", "c 10:229 rwm", False) in plan.writes
        assert 1 == sum(value == "c 1:3 rwm" for _, _, value, _ in plan.writes)

    @pytest.mark.parametrize(
        "options",
        [{"rules": ["c 10:229 rwm"]}, {"devices": [Device(source="/dev/zero", permissions="r")]}],
    )
    def test_rootless_cannot_filter(self, options):
        """
        What only a device list could enforce is refused to a rootless container, all else is not.
        """
        one = cgroups.Hierarchy(version=2, mount="/d", controllers=(), own="/d", parent="/d")
        host = cgroups.CgroupLayout(kind="v2", hierarchies=(one,))

        with pytest.raises(NotSupported, match="run as root"):
            cgroups.compile(Resources(), id="0" * 24, layout=host, rootless=True, **options)
        cgroups.compile(
            Resources(), id="0" * 24, layout=host, rootless=True, devices=[Device(source="/dev/zero")]
        )

    def test_rules_without_devices_groups(self):
        """
        Rules that nothing on the host can enforce are an error.
        """
        with pytest.raises(NotSupported, match="device_cgroup_rules"):
            cgroups.compile(
                Resources(), id="0" * 24, layout=cgroups.CgroupLayout(kind="none"), rules=["c 10:229 rwm"]
            )
