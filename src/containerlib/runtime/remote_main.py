# SPDX-License-Identifier: Apache-2.0
"""
What runs inside a container for ``Container.call``.

This file is sent there as text and is never imported here: it knows nothing
of containerlib and keeps to what Python 3.6 has.  The answer goes out by a
descriptor of its own; whatever is printed goes to standard error.
"""

# ruff: noqa: B905, RUF005, UP031  # what Python 3.6 lacks, or took another way
# ruff: noqa: S102, S110, S301, S302  # the caller is trusted here, with everything

import base64
import collections
import datetime as dt
import decimal
import fractions
import importlib
import importlib.util
import io
import json
import linecache
import marshal
import os
import pathlib
import pickle
import sys
import traceback
import types
import uuid
from typing import Any

ANSWER = b"\x00containerlib\x00"
FACTORIES = {f.__name__: f for f in (list, dict, set, int, str, float, bool, tuple)}


class Loader(pickle.Unpickler):
    """
    Unpickles what refers to a world.
    """

    def __init__(self, world: Any, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.world = world

    def persistent_load(self, pid: Any) -> Any:
        """
        What a reference stands for.
        """
        return self.world.find(pid)


class World:
    """
    The functions, classes and modules that came along.
    """

    def __init__(self, table: Any, same_version: Any) -> None:
        self.table = table
        self.same_version = same_version
        self.built = {}  # type: dict[int, Any]
        self.namespaces = {}  # type: dict[str, dict[str, Any]]
        self.later = []  # type: list[Any]

    def namespace(self, name: Any) -> Any:
        """
        The globals of a module that was not installed but sent.
        """
        if name not in self.namespaces:
            module = types.ModuleType(name)
            self.namespaces[name] = module.__dict__
            module.__dict__["__builtins__"] = __builtins__
            # Pickle and dataclasses look here; a module that is installed stays.
            if name == "__main__" or name not in sys.modules:
                sys.modules[name] = module
                make_parents(name)
        return self.namespaces[name]

    def loads(self, data: Any) -> Any:
        """
        Unpickle what may refer to what came along.
        """
        return Loader(self, data).load()

    def find(self, reference: Any) -> Any:
        """
        The module, function or class that a pickle refers to.
        """
        if reference[0] == "module":
            return importlib.import_module(reference[1])
        value = self.build(reference[1])
        for name in reference[2].split(".") if reference[2] else ():
            value = getattr(value, name)
        return value

    def build(self, index: Any) -> Any:
        """
        Make a function or a class on first use.
        """
        if index in self.built:
            return self.built[index]
        entry = self.table[index]
        if entry["kind"] == "class":
            return self.build_class(index, entry)
        return self.build_function(index, entry)

    def build_function(self, index: Any, entry: Any) -> Any:
        """
        From its code, or from its source under another version of Python.
        """
        space = self.namespace(entry["module"])
        remember_lines(entry["filename"], entry["first"], entry["lines"])
        if self.same_version:
            cells = tuple(types.CellType() for _ in entry["free"]) if entry["free"] else None
            function = types.FunctionType(marshal.loads(entry["code"]), space, entry["name"], None, cells)
        elif entry["source"] is None:
            raise RuntimeError(
                "%s: its source is not available, and its code is for Python %s, not %d.%d"
                % ((entry["name"], entry["python"]) + sys.version_info[:2])
            )
        else:
            filename = "<%s>" % entry["name"]
            remember_lines(filename, 1, entry["source"])
            made = {}  # type: dict[str, Any]
            exec(compile(entry["source"], filename, "exec", 0, True), space, made)
            function = made["__factory__"](*[None] * len(entry["free"]))
        self.built[index] = function  # before its values: it may be one of them
        function.__qualname__ = entry["qualname"]
        function.__module__ = entry["module"]
        values = self.loads(entry["values"])
        space.update(values["globals"])
        function.__defaults__ = values["defaults"]
        function.__kwdefaults__ = values["kwdefaults"]
        function.__dict__.update(values["dict"])
        outer = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
        for name, value in values["cells"].items():
            if name in outer:
                outer[name].cell_contents = value
        return function

    def build_class(self, index: Any, entry: Any) -> Any:
        """
        From its source, in the namespace of its module.
        """
        space = self.namespace(entry["module"])
        remember_lines("<%s>" % entry["name"], 1, entry["source"])
        for name, value in self.loads(entry["eager"]).items():
            space[name] = value
        exec(compile(entry["source"], "<%s>" % entry["name"], "exec", 0, True), space)
        self.built[index] = space[entry["name"]]
        self.later.append((space, entry["lazy"]))
        return self.built[index]

    def finish(self) -> None:
        """
        Load what methods refer to; classes may refer to each other.
        """
        while self.later:
            space, lazy = self.later.pop()
            for name, value in self.loads(lazy).items():
                space[name] = value


def make_parents(name: Any) -> None:
    """
    Let a module that was sent be found by its dotted name.
    """
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        make_parents(parent)
        try:
            importlib.import_module(parent)
        except ImportError:
            package = types.ModuleType(parent)
            package.__path__ = []
            sys.modules[parent] = package


def remember_lines(filename: Any, first: Any, text: Any) -> None:
    """
    Let tracebacks show lines of files that are not here.
    """
    if not text or os.path.exists(filename):
        return
    known = linecache.cache.get(filename, ())  # type: Any
    lines = list(known[2]) if len(known) == 4 else []
    fresh = text.splitlines(True)
    lines += ["\n"] * (first - 1 + len(fresh) - len(lines))
    lines[first - 1 : first - 1 + len(fresh)] = fresh
    linecache.cache[filename] = (len(lines), None, lines, filename)


def encode(value: Any) -> Any:
    """
    Plain data as JSON; what JSON lacks as an object with a "$".
    """
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        # Decimal digits of longer ones are refused by the reader.
        return value if value.bit_length() < 10000 else {"$": "int", "v": hex(value)}
    if kind is list:
        return [encode(item) for item in value]
    if kind is dict:
        if all(type(key) is str for key in value) and "$" not in value:
            return {key: encode(item) for key, item in value.items()}
        return {"$": "dict", "v": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind in (tuple, set, frozenset):
        return {"$": kind.__name__, "v": [encode(item) for item in value]}
    if kind in (bytes, bytearray):
        return {"$": kind.__name__, "v": base64.b64encode(value).decode("ascii")}
    return encode_more(kind, value)


def encode_more(kind: Any, value: Any) -> Any:
    """
    The less common types.
    """
    name = kind.__name__
    if kind is complex:
        return {"$": name, "v": [value.real, value.imag]}
    if kind in (range, slice):
        return {"$": name, "v": [encode(value.start), encode(value.stop), encode(value.step)]}
    if value is Ellipsis:
        return {"$": "ellipsis"}
    if kind in (dt.datetime, dt.time):
        zone = getattr(value.tzinfo, "key", None)
        return {"$": name, "v": value.isoformat(), "fold": value.fold, "zone": zone}
    if kind is dt.date:
        return {"$": name, "v": value.isoformat()}
    if kind is dt.timedelta:
        return {"$": name, "v": [value.days, value.seconds, value.microseconds]}
    if kind is decimal.Decimal:
        return {"$": name, "v": str(value)}
    if kind is fractions.Fraction:
        return {"$": name, "v": [encode(value.numerator), encode(value.denominator)]}
    if kind is uuid.UUID:
        return {"$": name, "v": value.hex}
    if isinstance(value, pathlib.PurePath) and kind.__module__.split(".")[0] == "pathlib":
        return {"$": name, "v": str(value)}
    if kind in (collections.OrderedDict, collections.Counter):
        return {"$": name, "v": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind is collections.deque:
        return {"$": name, "v": [encode(item) for item in value], "maxlen": value.maxlen}
    if kind is collections.defaultdict:
        factory = value.default_factory
        if factory is None or FACTORIES.get(getattr(factory, "__name__", "")) is factory:
            items = [[encode(key), encode(item)] for key, item in value.items()]
            return {"$": name, "v": items, "factory": factory and factory.__name__}
    raise TypeError(
        "a value of type %s.%s cannot be returned from a container that is not trusted: "
        "return plain data, or pass trusted=True" % (kind.__module__, kind.__qualname__)
    )


def encode_or_none(value: Any) -> Any:
    """
    Encode what is a bonus only.
    """
    try:
        return encode(value)
    except Exception:
        return None


def describe(error: Any) -> Any:
    """
    An exception as plain data.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals is globals():
        trace = trace.tb_next
    kind = type(error)
    args = error.args
    if isinstance(error, OSError) and error.filename is not None:
        args = (error.errno, error.strerror, error.filename, None, error.filename2)
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    attributes = {key: encode_or_none(item) for key, item in vars(error).items() if key != "__notes__"}
    if isinstance(error, ImportError):
        attributes["name"] = encode_or_none(error.name)
    return {
        "module": kind.__module__,
        "name": kind.__qualname__,
        "args": encode_or_none(tuple(args)),
        "text": text,
        "attributes": attributes,
        "notes": [str(note) for note in getattr(error, "__notes__", ())],
        "traceback": "".join(traceback.format_exception(kind, error, trace)),
    }


def run(payload: Any) -> Any:
    """
    Call the function; the kind of answer and the answer.
    """
    world = World(payload["table"], payload["magic"] == importlib.util.MAGIC_NUMBER)
    function, args, kwargs = world.loads(payload["call"])
    world.finish()
    value = function(*args, **kwargs)
    if isinstance(value, types.CoroutineType):
        import asyncio

        value = asyncio.run(value)
    if payload["trusted"]:
        return b"P", pickle.dumps(value, 4)
    return b"V", dump(encode(value))


def dump(value: Any) -> bytes:
    """
    JSON, as bytes.
    """
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def main(source: Any) -> None:
    """
    Take the call from standard input, give the answer on standard output.
    """
    payload = pickle.loads(source.read())
    answer = os.dup(1)  # no child inherits it
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        kind, data = run(payload)
    except BaseException as error:
        kind, data = b"E", dump(describe(error))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    with os.fdopen(answer, "wb") as file:
        file.write(ANSWER + kind + len(data).to_bytes(8, "big") + data)
