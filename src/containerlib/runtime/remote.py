# SPDX-License-Identifier: Apache-2.0
"""
Calling a Python function inside a container.

:func:`prepare` packs the function with whatever of the caller's program it
refers to; the container's ``python3`` gets that on standard input.
:meth:`RemoteCall.interpret` reads the answer.

The container is not trusted.  What it answers is read as JSON with a fixed
list of types, never unpickled: code inside that was taken over cannot run
anything here.  ``trusted=True`` lifts that for results, and is for images
that one would run outside of a container as well.
"""

from __future__ import annotations

import base64
import builtins
import collections
import json
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from importlib.util import MAGIC_NUMBER
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import attrs

from containerlib.errors import RemoteError
from containerlib.runtime.remote_pack import Packer

ANSWER = b"\x00containerlib\x00"
_HEADER = len(ANSWER) + 9
_START = (
    "import sys; exec(compile(sys.stdin.buffer.read({size}), '<containerlib>', 'exec')); "
    "main(sys.stdin.buffer)"
)
_FACTORIES: dict[str | None, Any] = {
    None: None,
    **{factory.__name__: factory for factory in (list, dict, set, int, str, float, bool, tuple)},
}
_source: bytes | None = None


@attrs.frozen
class RemoteCall:
    """
    A call that is ready to be sent: run *argv* inside with *stdin*, and give
    its standard output to :meth:`interpret`.

    What the function prints comes on standard error.
    """

    argv: tuple[str, ...]
    stdin: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    name: str
    trusted: bool
    classes: Mapping[tuple[str, str], type] = attrs.field(repr=False)

    def interpret(self, output: bytes, *, exit_code: int | None = None, stderr: bytes | str = b"") -> Any:
        """
        The function's value.

        Raises:
            Exception: What the function raised, with the traceback from
                inside as a note.
            RemoteError: It raised what cannot be raised here, or gave no
                answer; *exit_code* and *stderr* help to say why.
        """
        size = int.from_bytes(output[_HEADER - 8 : _HEADER], "big")
        kind, data = output[_HEADER - 9 : _HEADER - 8], output[_HEADER:]
        if not output.startswith(ANSWER) or len(output) < _HEADER or len(data) != size:
            raise self._no_answer(exit_code, stderr)
        if kind == b"P" and self.trusted:
            return pickle.loads(data)  # noqa: S301  # the caller said that the container is trusted
        try:
            answer = json.loads(data)
            if kind == b"V":
                return decode(answer)
            if kind != b"E":
                raise ValueError(f"answer of kind {kind!r}")
            error = self._error(answer)
        except (
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            RecursionError,
            AttributeError,
        ) as problem:
            raise RemoteError(
                f"{self.name}: the container's answer cannot be understood", subject=self.name
            ) from problem
        raise error

    def _no_answer(self, exit_code: int | None, stderr: bytes | str) -> RemoteError:
        how = "" if exit_code is None else f" with exit code {exit_code}"
        error = RemoteError(
            f"{self.name}: Python in the container ended{how} without an answer", subject=self.name
        )
        text = stderr if isinstance(stderr, str) else stderr.decode(errors="replace")
        if text.strip():
            error.add_note("it printed:\n" + "\n".join(text.rstrip().splitlines()[-30:]))
        return error

    def _error(self, answer: dict[str, Any]) -> BaseException:
        """
        The exception that an answer describes.
        """
        module, name, text = (str(answer[key]) for key in ("module", "name", "text"))
        kind = self._find_class(module, name)
        args = None if answer["args"] is None else decode(answer["args"])
        error: BaseException | None = None
        if kind is not None and isinstance(args, tuple):
            error = _make_exception(kind, args, {k: decode(v) for k, v in answer["attributes"].items()})
        if error is None:
            shown = name if module == "builtins" else f"{module}.{name}"
            error = RemoteError(f"{self.name}: {shown}: {text}", subject=self.name)
        for note in answer["notes"]:
            error.add_note(str(note))
        error.add_note("in the container:\n" + str(answer["traceback"]).rstrip())
        return error

    def _find_class(self, module: str, name: str) -> type[Exception] | None:
        """
        An exception class that a container may make us raise: one that was
        sent there with this call, or one of Python's own.

        Never one that would end the program, and nothing is imported.
        """
        kind: Any = self.classes.get((module, name))
        if kind is None and module.partition(".")[0] in sys.stdlib_module_names and "." not in name:
            kind = vars(sys.modules[module]).get(name) if module in sys.modules else None
        return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _make_exception(
    kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]
) -> Exception | None:
    """
    An exception without running Python code of its class.
    """
    native = next(base for base in kind.__mro__ if base.__module__ == builtins.__name__)
    try:
        if kind is native:
            error: Any = kind(*args)
        else:
            error = native.__new__(kind, *args)
            error.args = args[:2] if issubclass(native, OSError) and len(args) == 5 else args
    except Exception:
        return None
    if isinstance(error, ImportError):
        name = attributes.pop("name", None)
        error.name = name if isinstance(name, str) else None
    error.__dict__.update(attributes)
    return error  # type: ignore[no-any-return]


def prepare(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    trusted: bool = False,
    python: str = "python3",
) -> RemoteCall:
    """
    Pack a call of *function* for the Python in a container.

    The function may be nested, a lambda, a bound method or a partial.  What it
    refers to goes along: functions and classes of the caller's program by
    their code, modules and what is installed by name, other values pickled.
    Changes that it makes to them stay inside.

    Raises:
        TypeError: Something that it needs cannot be sent; the message names it.
    """
    name = getattr(function, "__qualname__", None) or repr(function)
    packer = Packer()
    call = packer.pack((function, tuple(args), dict(kwargs or {})), f"{name}: the call")
    payload = {
        "magic": MAGIC_NUMBER,
        "trusted": trusted,
        "table": packer.entries(),
        "call": call,
    }
    source = _remote_source()
    return RemoteCall(
        argv=(python, "-c", _START.format(size=len(source))),
        stdin=source + pickle.dumps(payload, 4),
        name=name,
        trusted=trusted,
        classes=packer.classes,
    )


def _remote_source() -> bytes:
    """
    The program that runs inside, as text.
    """
    global _source  # read once
    if _source is None:
        _source = resources.files(__package__).joinpath("remote_main.py").read_bytes()
    return _source


def decode(value: Any) -> Any:
    """
    The plain data that an answer stands for.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {key: decode(item) for key, item in value.items()}
    return _DECODERS[kind](value)


def _items(value: dict[str, Any]) -> list[Any]:
    return [decode(item) for item in value["v"]]


def _pairs(value: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(decode(key), decode(item)) for key, item in value["v"]]


def _zoned(kind: type[datetime | time], value: dict[str, Any]) -> Any:
    moment = kind.fromisoformat(value["v"]).replace(fold=int(value["fold"]))
    if value["zone"] is None:
        return moment
    from zoneinfo import ZoneInfo  # rarely needed

    return moment.replace(tzinfo=ZoneInfo(str(value["zone"])))


_DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "int": lambda v: int(v["v"], 16),
    "dict": lambda v: dict(_pairs(v)),
    "tuple": lambda v: tuple(_items(v)),
    "set": lambda v: set(_items(v)),
    "frozenset": lambda v: frozenset(_items(v)),
    "bytes": lambda v: base64.b64decode(v["v"], validate=True),
    "bytearray": lambda v: bytearray(base64.b64decode(v["v"], validate=True)),
    "complex": lambda v: complex(*v["v"]),
    "range": lambda v: range(*_items(v)),
    "slice": lambda v: slice(*_items(v)),
    "ellipsis": lambda _: ...,
    "datetime": lambda v: _zoned(datetime, v),
    "time": lambda v: _zoned(time, v),
    "date": lambda v: date.fromisoformat(v["v"]),
    "timedelta": lambda v: timedelta(*v["v"]),
    "Decimal": lambda v: Decimal(v["v"]),
    "Fraction": lambda v: Fraction(*_items(v)),
    "UUID": lambda v: UUID(hex=v["v"]),
    "PosixPath": lambda v: PosixPath(v["v"]),
    "PurePosixPath": lambda v: PurePosixPath(v["v"]),
    "PureWindowsPath": lambda v: PureWindowsPath(v["v"]),
    "OrderedDict": lambda v: collections.OrderedDict(_pairs(v)),
    "Counter": lambda v: collections.Counter(dict(_pairs(v))),
    "deque": lambda v: collections.deque(_items(v), v["maxlen"]),
    "defaultdict": lambda v: collections.defaultdict(_FACTORIES[v["factory"]], _pairs(v)),
}
