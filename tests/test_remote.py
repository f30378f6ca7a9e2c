# SPDX-License-Identifier: Apache-2.0
"""
Calls of functions in another Python: real interpreters, started as in a container.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import decimal
import enum
import fractions
import functools
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import time
import uuid
import zoneinfo
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.errors import RemoteError
from containerlib.runtime import remote_main
from containerlib.runtime.remote import ANSWER, RemoteCall, decode, prepare
from containerlib.runtime.remote_pack import function_source

# As a container has it: away from the tests, with nothing of theirs on the path.
PYTHONS = [sys.executable]
if (system := shutil.which("python3", path="/usr/bin")) is not None:
    PYTHONS.append(system)


def run(call: RemoteCall, *, forget_code: bool = False) -> Any:
    """
    Do a prepared call in an interpreter of its own.
    """
    stdin = call.stdin
    if forget_code:  # as a Python of another version would
        start = int(re.search(r"read\((\d+)\)", call.argv[2])[1])
        payload = pickle.loads(stdin[start:])
        payload["magic"] = b"????"
        stdin = stdin[:start] + pickle.dumps(payload, 4)
    done = subprocess.run(
        [sys.executable, "-I", *call.argv[1:]], input=stdin, capture_output=True, cwd="/", check=False
    )
    return call.interpret(done.stdout, exit_code=done.returncode, stderr=done.stderr)


def call(function, *args, **kwargs) -> Any:
    return run(prepare(function, args, kwargs))


FACTOR = 7
_lock = contextlib.nullcontext()


def multiply(number: Missing, factor: int = FACTOR) -> int:  # noqa: F821  # annotations are not looked at
    """
    Uses a default value and a global.
    """
    return number * factor * FACTOR


def helper(number):
    return other(number) + 1


def other(number):
    return multiply(number, factor=1)


def factorial(number):
    return number * factorial(number - 1) if number else 1


class NotEnough(Exception):
    """
    An exception of the caller's program.
    """

    def __init__(self, wanted, *, got) -> None:
        super().__init__(wanted)
        self.got = got


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = FACTOR

    def moved(self) -> Point:
        return Point(self.x + FACTOR, other(self.y))


def raise_not_enough():
    raise NotEnough(5, got={"a": 3})


@pytest.mark.parametrize("forget_code", [False, True])
@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (multiply, (2,), 98),
        (helper, (2,), 15),
        (factorial, (20,), 2432902008176640000),
        (lambda number: number + FACTOR, (1,), 8),
        (functools.partial(multiply, factor=1), (3,), 21),
        (os.path.basename, ("/a/b",), "b"),
        (Point(1, 2).moved, (), None),
    ],
)
def test_functions_run_elsewhere(function, args, expected, forget_code):
    """
    Functions with what they refer to run from their code, and from source under another version.
    """
    if expected is None:
        value = run(prepare(lambda: (function().x, function().y)), forget_code=forget_code)
        assert (8, 14) == value
    else:
        assert expected == run(prepare(function, args), forget_code=forget_code)


@pytest.mark.parametrize("forget_code", [False, True])
def test_closures(forget_code):
    """
    Outer variables, nested functions and recursion among them go along.
    """
    base = [10]

    def even(number: int) -> bool:
        return number == 0 or odd(number - 1)

    def odd(number: int) -> bool:
        return number != 0 and even(number - 1)

    def nested(*numbers, scale=2):
        def inner(number):
            return number * scale + base[0]

        return [inner(number) for number in numbers], even(10)

    assert ([12, 14], True) == run(prepare(nested, (1, 2)), forget_code=forget_code)


def test_decorated_function():
    """
    A decorator of the program's own goes along as what it made.
    """

    def twice(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) * 2

        return wrapper

    @twice
    def add(a, b):
        return a + b

    assert 6 == call(add, 1, 2)


def test_coroutine_function():
    """
    An async function is run to its end.
    """

    async def work():
        await asyncio.sleep(0)
        return "done"

    assert "done" == call(work)


def test_it_runs_elsewhere():
    """
    The function runs in another process, and changes nothing here.
    """
    seen: list[int] = []
    assert os.getpid() != call(os.getpid)
    assert [1] == call(lambda: seen.append(1) or seen)
    assert [] == seen


VALUES = [
    None,
    True,
    -5,
    10**4000,
    0.1,
    float("inf"),
    "grüße \ud800 \0",
    b"\0\xff",
    bytearray(b"x"),
    [1, [2, [3]]],
    (1, (2,)),
    {"a": 1},
    {1: "a", (2, 3): None},
    {"$": "dict", "v": []},
    {1, 2},
    frozenset("ab"),
    1 + 2j,
    range(1, 10, 3),
    slice(1, None),
    ...,
    dt.datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 12, fold=1),  # noqa: DTZ001
    dt.datetime(2024, 2, 29, tzinfo=zoneinfo.ZoneInfo("UTC")),
    dt.date(2024, 2, 29),
    dt.time(1, 2, 3),
    dt.timedelta(days=-1, microseconds=3),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=7),
    pathlib.Path("/a/b"),
    pathlib.PurePosixPath("c"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("abca"),
    collections.deque([1, 2], 3),
    collections.defaultdict(list, {"a": [1]}),
]


def test_values_come_back_as_they_were():
    """
    Plain data keeps its types, nested in any way.
    """
    found = call(lambda values: values, VALUES)
    assert VALUES == found
    assert [type(value) for value in VALUES] == [type(value) for value in found]
    assert found[-1].default_factory is list
    assert 3 == found[-2].maxlen


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.text(), inner)
        | st.lists(inner).map(collections.deque)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(PLAIN)
def test_encoding_is_exact(value):
    """
    What is encoded there is decoded here to an equal value of the same type.
    """
    found = decode(json.loads(remote_main.dump(remote_main.encode(value))))
    assert value == found
    assert repr(value) == repr(found)


def test_large_results():
    """
    A result may be as large as memory.
    """
    assert 30_000_000 == len(call(lambda: bytes(30_000_000)))


def test_prints_do_not_disturb_the_answer():
    """
    Whatever the function or its children print, by whatever way, is not the answer.
    """

    def noisy():
        print("printed")
        sys.stdout.write("written")
        os.write(1, ANSWER + b"V\0\0\0\0\0\0\0\x011")
        subprocess.run(["echo", "child"], check=True)
        return sys.stdin.read()

    done = prepare(noisy)
    result = subprocess.run(
        [sys.executable, *done.argv[1:]], input=done.stdin, capture_output=True, check=True
    )
    assert "" == done.interpret(result.stdout)
    for printed in (b"printed", b"written", b"child"):
        assert printed in result.stderr


# ---- exceptions ---------------------------------------------------------------


def test_exceptions_are_raised_here():
    """
    A built-in exception comes back as itself, with the traceback from inside.
    """
    with pytest.raises(ZeroDivisionError, match="division") as caught:
        call(lambda: 1 / 0)
    (note,) = caught.value.__notes__
    assert note.startswith("in the container:\nTraceback")
    assert "call(lambda: 1 / 0)" in note
    assert "containerlib>" not in note


def test_exceptions_of_the_system():
    """
    An OSError keeps errno and file name, and its class.
    """
    with pytest.raises(FileNotFoundError) as caught:
        call(open, "/none/such")
    assert (2, "/none/such") == (caught.value.errno, caught.value.filename)
    with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
        call(b"\xff".decode)
    with pytest.raises(ModuleNotFoundError) as missing:
        call(lambda: __import__("no_such_module"))
    assert "no_such_module" == missing.value.name
    with pytest.raises(subprocess.CalledProcessError) as failed:
        call(lambda: subprocess.run(["false"], check=True))
    assert 1 == failed.value.returncode
    with pytest.raises(json.JSONDecodeError):
        call(lambda: json.loads("{"))


def test_exceptions_of_the_program():
    """
    An exception class that was sent along is raised, with its attributes.
    """
    with pytest.raises(NotEnough) as caught:
        call(raise_not_enough)
    assert (5,) == caught.value.args
    assert {"a": 3} == caught.value.got


def test_notes_come_along():
    """
    Notes made inside stay with the exception.
    """

    def noted():
        error = ValueError("x")
        error.add_note("from inside")
        raise error

    with pytest.raises(ValueError, match="x") as caught:
        call(noted)
    assert "from inside" == caught.value.__notes__[0]


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_nothing_inside_ends_the_program(kind):
    """
    What would end the caller's program is a RemoteError instead.
    """
    with pytest.raises(RemoteError, match=kind):
        call(lambda: exec(f"raise {kind}(3)"))


def test_exceptions_that_are_unknown_here():
    """
    An exception of a class that is not known here is a RemoteError that names it.
    """

    def unknown():
        kind = type("Strange", (Exception,), {"__module__": "elsewhere"})
        raise kind("text")

    with pytest.raises(RemoteError, match=r"elsewhere.Strange: text"):
        call(unknown)


def test_exceptions_with_arguments_that_cannot_come():
    """
    An exception that holds something live is a RemoteError with its text.
    """
    with pytest.raises(RemoteError, match="ValueError: <object"):
        call(lambda: (_ for _ in ()).throw(ValueError(object())))


def test_death_inside():
    """
    An interpreter that dies is told apart, with what it printed.
    """

    def die():
        os.write(2, b"last words\n")
        os._exit(7)

    with pytest.raises(RemoteError, match="ended with exit code 7 without an answer") as caught:
        call(die)
    assert ["it printed:\nlast words"] == caught.value.__notes__


# ---- what cannot be sent --------------------------------------------------------


def test_argument_that_cannot_be_sent():
    """
    An argument that lives here is refused before anything starts.
    """
    with pytest.raises(TypeError, match=r"multiply: the call cannot be sent.*generator"):
        prepare(multiply, [(_ for _ in ())])


def test_variable_that_cannot_be_sent():
    """
    A variable that lives here is named.
    """
    reader, writer = os.pipe()
    with (
        open(reader, "rb") as pipe,
        open(writer, "wb"),
        pytest.raises(TypeError, match=r"its outer variable 'pipe' cannot be sent"),
    ):
        prepare(lambda: pipe.read(1))


def test_attribute_names_are_no_variables():
    """
    A global that only shares its name with an attribute is not sent.
    """
    assert "a" == call(lambda: pathlib.PurePath("a").name)


def test_result_that_is_no_plain_data():
    """
    A result of a class of its own needs trust; the error says so.
    """
    with pytest.raises(TypeError, match="Point cannot be returned.*trusted=True"):
        call(lambda: Point(1))


def test_trusted_results():
    """
    With trust, whatever can be pickled comes back, also of classes that went along.
    """
    assert Point(8, 49) == run(prepare(lambda: Point(1).moved(), trusted=True))
    assert Colour.RED is run(prepare(lambda: Colour("red"), trusted=True))


def test_arguments_of_the_programs_classes():
    """
    Arguments may be of classes of the caller's program.
    """
    assert 11 == call(lambda point: point.moved().x, Point(4))
    assert "red" == call(lambda colour: colour.value, Colour.RED)


# ---- what a hostile container may answer ----------------------------------------


def answer(kind: bytes, data: bytes) -> bytes:
    return ANSWER + kind + len(data).to_bytes(8, "big") + data


class Evil:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "output",
    [
        b"",
        ANSWER,
        b"hello",
        answer(b"V", b"1")[:-1],
        answer(b"V", b"1") + b"x",
        answer(b"P", pickle.dumps(Evil())),
        answer(b"V", pickle.dumps(Evil())),
        answer(b"X", b"1"),
        answer(b"V", b"[" * 100_000),
        answer(b"V", b'{"$":"unknown","v":1}'),
        answer(b"V", b'{"$":"Fraction","v":[1,0]}'),
        answer(b"V", b'{"$":"set","v":[[]]}'),
        answer(b"V", b'{"$":[]}'),
        answer(b"V", b'{"$":"datetime","v":"x","fold":0,"zone":null}'),
        answer(b"V", b'{"$":"time","v":"01:00:00","fold":0,"zone":"../../etc/passwd"}'),
        answer(b"V", b'{"$":"defaultdict","v":[],"factory":"eval"}'),
        answer(b"V", b"9" * 10_000),
        answer(b"E", b"[]"),
        answer(b"E", b"{}"),
    ],
)
def test_hostile_answers_are_errors(output):
    """
    Whatever is answered is a RemoteError; nothing of it runs here.
    """
    with pytest.raises(RemoteError):
        prepare(multiply, (1,)).interpret(output)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "SystemExit"),
        ("builtins", "eval"),
        ("os", "system"),
        ("subprocess", "Popen"),
        ("containerlib.errors", "ContainerTimeout"),
        ("not_imported_yet", "Error"),
        ("antigravity", "Error"),
    ],
)
def test_hostile_exceptions_are_remote_errors(module, name):
    """
    A container picks no class but an exception that Python has or that was sent to it.
    """
    before = set(sys.modules)
    described = {
        "module": module,
        "name": name,
        "args": {"$": "tuple", "v": ["touch /tmp/x"]},
        "text": "text",
        "attributes": {"__class__": "x"},
        "notes": [],
        "traceback": "",
    }
    with pytest.raises(RemoteError, match="text"):
        prepare(multiply, (1,)).interpret(answer(b"E", json.dumps(described).encode()))
    assert before == set(sys.modules)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | PLAIN.map(lambda v: remote_main.dump(remote_main.encode(v))))
def test_any_answer_is_a_value_or_an_error(data):
    """
    No answer raises anything but a RemoteError.
    """
    for kind in (b"V", b"E", b"P"):
        with contextlib.suppress(RemoteError):
            prepare(os.getpid).interpret(answer(kind, data))


# ---- sources --------------------------------------------------------------------


def test_sources_of_lambdas_are_told_apart():
    """
    Of two lambdas on one line each has its own source.
    """
    first, second = (lambda x: x + 1), (lambda x: x + 2)
    assert "x + 1" in function_source(first)
    assert "x + 2" in function_source(second)


def test_function_without_source():
    """
    A function made from text runs under the same version, and says why not under another.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def made(x):\n    return x + 1\n", space)
    assert 2 == call(space["made"], 1)
    with pytest.raises(RuntimeError, match="made: its source is not available"):
        run(prepare(space["made"], (1,)), forget_code=True)


@pytest.mark.parametrize("python", PYTHONS)
def test_call_is_quick(python):
    """
    Packing and answering add little to the start of an interpreter.
    """
    begin = time.perf_counter()
    prepared = prepare(multiply, (1,))
    done = subprocess.run([python, *prepared.argv[1:]], input=prepared.stdin, capture_output=True, check=True)
    assert 49 == prepared.interpret(done.stdout)
    assert 5 > time.perf_counter() - begin
