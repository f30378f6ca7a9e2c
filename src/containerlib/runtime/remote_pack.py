# SPDX-License-Identifier: Apache-2.0
"""
Packing functions and classes of the caller's program for another Python.

What is installed is referred to by name.  What belongs to the caller's own
program is sent: functions as code, and as source for a Python of another
version; classes as source.
"""

from __future__ import annotations
import __future__

import ast
import dis
import inspect
import io
import marshal
import pickle
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

_INSTALLED = tuple(
    str(Path(path)) + "/" for name, path in sysconfig.get_paths().items() if name in ("purelib", "platlib")
)
_GLOBAL_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}


class Packer:
    """
    A pickler that notes which functions and classes must go along.
    """

    def __init__(self) -> None:
        self._objects: list[FunctionType | type] = []
        self._indices: dict[int, int] = {}
        self.classes: dict[tuple[str, str], type] = {}

    def pack(self, value: object, label: str) -> bytes:
        """
        Pickle *value*; *label* says what it is, for the error.
        """
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, self).dump(value)
        except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError) as error:
            raise TypeError(f"{label} cannot be sent to a container: {error}") from error
        return buffer.getvalue()

    def pack_names(self, values: dict[str, object], label: str) -> bytes:
        """
        The same for variables; the error names the one that is to blame.
        """
        try:
            return self.pack(values, label)
        except TypeError:
            for name, value in values.items():
                self.pack(value, f"{label} {name!r}")
            raise

    def entries(self) -> list[dict[str, object]]:
        """
        All that goes along, in the order of their indices.
        """
        found: list[dict[str, object]] = []
        while len(found) < len(self._objects):  # packing one may find more
            item = self._objects[len(found)]
            found.append(self._class(item) if isinstance(item, type) else self._function(item))
        return found

    def reference(self, value: object) -> tuple[str, ...] | tuple[str, int, str] | None:
        """
        How a pickle refers to *value*; None when it is pickled as usual.
        """
        if isinstance(value, ModuleType):
            return ("module", value.__name__)
        if isinstance(value, FunctionType):
            return ("object", self._index(value), "") if _is_own(value) else None
        if (
            isinstance(value, type) and value.__flags__ & 1 << 9 and _is_own(value)
        ):  # made by a class statement
            outer, _, rest = value.__qualname__.partition(".")
            owner = getattr(sys.modules.get(value.__module__), outer, None) if rest else value
            self.classes[value.__module__, value.__qualname__] = value
            return ("object", self._index(owner if isinstance(owner, type) else value), rest)
        return None

    def _index(self, value: FunctionType | type) -> int:
        if id(value) not in self._indices:
            self._indices[id(value)] = len(self._objects)
            self._objects.append(value)
        return self._indices[id(value)]

    def _function(self, function: FunctionType) -> dict[str, object]:
        code = function.__code__
        cells = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:  # not yet assigned
                continue
        used = {name for part in _codes(code) for name in _global_names(part)}
        known = function.__globals__
        label = f"{function.__qualname__}: its"
        values = {
            "globals": {name: known[name] for name in sorted(used) if name in known},
            "cells": cells,
            "dict": {k: v for k, v in vars(function).items() if k != "__wrapped__"},
        }
        for part, names in values.items():
            what = {"globals": "global variable", "cells": "outer variable", "dict": "attribute"}[part]
            self.pack_names(names, f"{label} {what}")
        everything = {**values, "defaults": function.__defaults__, "kwdefaults": function.__kwdefaults__}
        return {
            "kind": "function",
            "name": function.__name__,
            "qualname": function.__qualname__,
            "module": function.__module__ or "__main__",
            "code": marshal.dumps(code),
            "source": function_source(function),
            "lines": _source_lines(code),
            "first": code.co_firstlineno,
            "filename": code.co_filename,
            "free": code.co_freevars,
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "values": self.pack(everything, f"{label} default values"),
        }

    def _class(self, kind: type) -> dict[str, object]:
        try:
            source = textwrap.dedent(inspect.getsource(kind))
        except (OSError, TypeError) as error:
            raise TypeError(
                f"class {kind.__qualname__} cannot be sent to a container: its source is not available"
            ) from error
        known = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
        if known.get("annotations") is __future__.annotations:
            source = "from __future__ import annotations\n" + source
        code = compile(source, "<class>", "exec", dont_inherit=True)
        eager: set[str] = set()
        lazy: set[str] = set()
        for part in _codes(code):
            names = lazy if part.co_flags & inspect.CO_OPTIMIZED else eager
            names.update(_global_names(part))
        lazy -= eager
        label = f"class {kind.__qualname__}: its global variable"

        def values(names: set[str]) -> dict[str, object]:
            return {
                n: known[n] for n in sorted(names) if n in known and n not in (kind.__name__, "annotations")
            }

        return {
            "kind": "class",
            "name": kind.__name__,
            "module": kind.__module__,
            "source": source,
            "eager": self.pack_names(values(eager), label),
            "lazy": self.pack_names(values(lazy), label),
        }


class _Pickler(pickle.Pickler):
    """
    Pickles by reference what the packer sends apart.
    """

    def __init__(self, file: io.BytesIO, packer: Packer) -> None:
        super().__init__(file, 4)
        self._packer = packer

    def persistent_id(self, value: object) -> object:
        """
        The reference, or None.
        """
        return self._packer.reference(value)


def _is_own(value: FunctionType | type) -> bool:
    """
    Whether something belongs to the caller's program, not to what is installed.
    """
    module = value.__module__
    if module is None or module == "__main__" or "<" in value.__qualname__:
        return True
    if module.partition(".")[0] in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not str(file).startswith(_INSTALLED)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """
    A code object and those within it.
    """
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _global_names(code: CodeType) -> Iterator[str]:
    """
    The global variables that a code object reads, imports of submodules left out.
    """
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_LOADS:
            yield instruction.argval


def _source_lines(code: CodeType) -> str:
    """
    The lines of the file, for tracebacks; "" when there are none.
    """
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return ""


def function_source(function: FunctionType) -> str | None:
    """
    The text of a program that makes the function; None when that cannot be had.

    Calling ``__factory__`` of it with a value for each free variable returns
    the function, without decorators, annotations and default values.
    """
    code = function.__code__
    try:
        tree = _parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return None
    node = _find(tree, code)
    if node is None:
        return None
    arguments = node.args
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    nothing = ast.Constant(None)
    arguments.defaults = [nothing for _ in arguments.defaults]
    arguments.kw_defaults = [None if value is None else nothing for value in arguments.kw_defaults]
    body: list[ast.stmt]
    if isinstance(node, ast.Lambda):
        body = [ast.Return(node)]
    else:
        node.decorator_list = []
        node.returns = None
        body = [node, ast.Return(ast.Name(node.name, ast.Load()))]
    factory = ast.parse("def __factory__(): pass").body[0]
    assert isinstance(factory, ast.FunctionDef)
    factory.args.args = [ast.arg(name) for name in code.co_freevars]
    factory.body = body
    return ast.unparse(ast.fix_missing_locations(ast.Module([factory], [])))


def _parse(source: str) -> ast.Module:
    """
    Parse source that may be a part of an expression: a lambda's lines.
    """
    try:
        return ast.parse(source)
    except SyntaxError:
        if "lambda" not in source:
            raise
        start = source.index("lambda")
        for end in range(len(source), start, -1):
            try:
                return ast.parse(f"({source[start:end]})")
            except SyntaxError:
                continue
        raise


def _find(tree: ast.Module, code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
    """
    The node that *code* was compiled from.
    """
    if code.co_name != "<lambda>":
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
                return node
        return None
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    if len(lambdas) == 1:
        return lambdas[0]
    names = code.co_varnames[: code.co_argcount]
    for node in lambdas:
        compiled = compile(ast.Expression(node), "<lambda>", "eval", dont_inherit=True)
        inner = next(part for part in compiled.co_consts if isinstance(part, CodeType))
        if inner.co_code == code.co_code and inner.co_consts == code.co_consts and names == inner.co_varnames:
            return node
    return None
