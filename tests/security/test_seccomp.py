# SPDX-License-Identifier: Apache-2.0
"""
What the kernel makes of compiled filters, and the holes that the default one closes.

Row of the threat list: AF_ALG and AF_VSOCK, io_uring, keyrings, bpf,
userfaultfd, and namespaces without CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from containerlib.runtime import seccomp
from containerlib.runtime.capabilities import DEFAULT, NAMES

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="numbers and machine code here are x86_64's"
)

ADMIN = DEFAULT | {"CAP_SYS_ADMIN"}
ALLOWED = 1234  # an errno that the kernel never returns
MAGIC = 0x434C5345

LOADER = """
import ctypes, json, mmap, os, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

def load(code, flags=0):
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    program = Program(len(code) // 8, code)
    # SECCOMP_SET_MODE_FILTER
    return ctypes.get_errno() if libc.syscall(317, 1, flags, ctypes.byref(program)) else 0

def answer(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg % 2**64) for arg in args])
    return ctypes.get_errno() if result == -1 else 0
"""


def run(statements: str, program: bytes = b"", **data: Any) -> Any:
    """
    Run *statements* after LOADER in a process of its own, with *program* and *data*; return what it prints.
    """
    done = subprocess.run(
        [sys.executable, "-c", LOADER + statements, json.dumps(data)], input=program, capture_output=True
    )
    assert 0 == done.returncode, done.stderr.decode()
    return json.loads(done.stdout)


def judging(program: bytes) -> bytes:
    """
    Return *program* such that it judges calls with MAGIC as sixth argument alone, and lets none through.

    An allowed call fails with ALLOWED: so the kernel's verdict on any call
    can be had without the call's effects.
    """
    blocked = b"".join(
        struct.pack("<HBBI", 0x06, 0, 0, 0x50000 | ALLOWED)
        if instruction == (0x06, 0, 0, 0x7FFF0000)
        else struct.pack("<HBBI", *instruction)
        for instruction in struct.iter_unpack("<HBBI", program)
    )
    prefix = [(0x20, 0, 0, 16 + 5 * 8), (0x15, 1, 0, MAGIC), (0x06, 0, 0, 0x7FFF0000)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in prefix) + blocked


ASK = """
data = json.loads(sys.argv[1])
assert load(sys.stdin.buffer.read()) == 0
print(json.dumps([answer(number, *[-1] * 5, data["magic"]) for number in data["numbers"]]))
"""


def recorded() -> dict[str, tuple[int, str, str]]:
    path = Path(__file__).parent.parent / "data" / "seccomp_default_x86_64.txt"
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: (int(number), default, admin) for name, number, default, admin in lines}


@pytest.mark.parametrize(("caps", "column"), [(DEFAULT, 1), (ADMIN, 2)])
def test_the_kernel_answers_as_docker_s_profile(caps: frozenset[str], column: int) -> None:
    """
    The kernel, running the default filter, gives each call the verdict that Docker's profile has for it.
    """
    # The kernel lets uretprobe and uprobe past any filter, and raises SIGILL when they come from elsewhere.
    table = {name: row for name, row in recorded().items() if name not in ("uretprobe", "uprobe")}
    numbers = [row[0] for row in table.values()]
    words = {ALLOWED: "allow", errno.EPERM: "EPERM", errno.ENOSYS: "ENOSYS"}
    answers = run(ASK, judging(seccomp.compile_profile(caps=caps)), numbers=numbers, magic=MAGIC)

    expected = {name: row[column] for name, row in table.items()}
    assert expected == {name: words[answer] for name, answer in zip(table, answers, strict=True)}


def test_numbers_that_nobody_knows_are_enosys() -> None:
    """
    Calls newer than the profile, and what a tracer sets to skip one, are answered with ENOSYS.
    """
    numbers = [467, 500, 1023, 0x3FFFFFFF, 0x40000000 | 470, -1]
    answers = run(ASK, judging(seccomp.compile_profile(caps=DEFAULT)), numbers=numbers, magic=MAGIC)
    assert [errno.ENOSYS] * 6 == answers


def test_x32_has_the_same_rules() -> None:
    """
    The bit that marks a call as x32 opens nothing.
    """
    # read, mount, keyctl, unshare, io_uring_setup; execve and kexec_load by x32's own numbers
    numbers = [bit | 0x40000000 for bit in (0, 165, 250, 272, 425, 520, 528)]
    answers = run(ASK, judging(seccomp.compile_profile(caps=DEFAULT)), numbers=numbers, magic=MAGIC)
    assert [ALLOWED, *[errno.EPERM] * 4, ALLOWED, errno.EPERM] == answers


ASK_I386 = """
data = json.loads(sys.argv[1])
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# push rbx; push rbp; mov eax, edi; mov ebx, esi; mov ebp, edx; xor ecx, ecx; xor edx, edx; int 0x80;
# pop rbp; pop rbx; ret
page.write(bytes.fromhex("53 55 89f8 89f3 89d5 31c9 31d2 cd80 5d 5b c3"))
enter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)(
    ctypes.addressof(ctypes.c_char.from_buffer(page))
)
pid = os.fork()
if pid == 0:
    enter(20, 0, 0)  # getpid: a fault where the kernel has no i386
    os._exit(0)
if os.waitpid(pid, 0)[1]:
    print("null")
    sys.exit()
assert load(sys.stdin.buffer.read()) == 0
print(json.dumps([-enter(number, first, data["magic"]) for number, first in data["calls"]]), flush=True)
os._exit(0)
"""


def test_i386_has_the_same_rules() -> None:
    """
    A 64-bit process that enters by int 0x80 is judged by the table of i386.
    """
    # read, openat, mount, keyctl, unshare, bpf, io_uring_setup, clone3,
    # clone, clone(CLONE_NEWUSER), socket(AF_INET), socket(AF_ALG), and one that is newer
    calls = [(3, 0), (295, 0), (21, 0), (288, 0), (310, 0), (357, 0), (425, 0), (435, 0)]
    calls += [(120, 17), (120, 0x10000000), (359, 2), (359, 38), (468, 0)]
    answers = run(ASK_I386, judging(seccomp.compile_profile(caps=DEFAULT)), calls=calls, magic=MAGIC)
    if answers is None:
        pytest.skip("this kernel has no i386 entry")

    refused, unknown = errno.EPERM, errno.ENOSYS
    expected = [ALLOWED, ALLOWED, *[refused] * 5, unknown, ALLOWED, refused, ALLOWED, refused, unknown]
    assert expected == answers


REAL = """
assert load(sys.stdin.buffer.read(), 4) == 0
calls = {
    "AF_INET": (41, 2, 2, 0), "AF_ALG": (41, 38, 5, 0), "AF_ALG, upper bits": (41, 1 << 32 | 38, 5, 0),
    "AF_VSOCK": (41, 40, 1, 0), "io_uring_setup": (425, 1, 0), "keyctl": (250, 0, -3, 0),
    "bpf": (321, 0, 0, 0),
    "userfaultfd": (323, 1), "unshare": (272, 0x10000000), "mount": (165, 0, 0, 0, 0, 0),
    "setns": (308, -1, 0),
    "clone": (56, 0x10000011, 0, 0, 0, 0), "clone3": (435, 0, 0), "open_tree_attr": (467, -1, 0, 0, 0, 0),
    "personality": (135, 0xffffffff), "ADDR_NO_RANDOMIZE": (135, 0x40000),
}
result = {name: answer(*call) for name, call in calls.items()}
result["a program"] = os.waitstatus_to_exitcode(os.system("true"))
print(json.dumps(result))
"""


def test_the_default_closes_the_known_doors() -> None:
    """
    Under the default filter no door of the list opens, hidden upper bits or not, and programs run.
    """
    answers = run(REAL, seccomp.compile_profile(caps=DEFAULT))

    open_doors = {"AF_INET": 0, "personality": 0, "a program": 0}
    unknown = {"clone3": errno.ENOSYS, "open_tree_attr": errno.ENOSYS}
    assert dict.fromkeys(answers, errno.EPERM) | open_doors | unknown == answers


LOAD_ALL = """
import struct
results = []
while size := sys.stdin.buffer.read(4):
    code = sys.stdin.buffer.read(struct.unpack("<I", size)[0])
    pid = os.fork()
    if pid == 0:
        os._exit(load(code))
    results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(results))
"""

PROFILES = [
    {"defaultAction": "SCMP_ACT_ALLOW"},
    {"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_KILL_PROCESS"}]},
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["keyctl", "bpf"],
                "action": "SCMP_ACT_TRAP",
                "args": [{"index": index, "value": 1 << 40 | index, "op": f"SCMP_CMP_{operator}"}],
            }
            for index in range(6)
            for operator in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
        ],
    },
]


def test_the_kernel_takes_every_program() -> None:
    """
    The default profile with each capability, all and none, and profiles of other shapes can be loaded.
    """
    sets = [frozenset(), DEFAULT, frozenset(NAMES), *(DEFAULT | {name} for name in NAMES)]
    programs = [seccomp.compile_profile(caps=caps) for caps in sets]
    profiles = [seccomp.load_profile(json.dumps(profile)) for profile in PROFILES]
    programs += [seccomp.compile_profile(profile, caps=DEFAULT) for profile in profiles]
    stream = b"".join(struct.pack("<I", len(program)) + program for program in programs)

    assert [0] * len(programs) == run(LOAD_ALL, stream)
