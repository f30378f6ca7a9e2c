# SPDX-License-Identifier: Apache-2.0
from importlib.metadata import version as _version

project = "containerlib"
release = version = _version("containerlib")
copyright = "the authors of containerlib"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_preserve_defaults = True
# An inventory of Python's own documentation would have to be fetched; the names below are its.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|pathlib|datetime|typing|types|os|io|contextlib|attrs?|attr)\..*"),
    ("py:mod", r"subprocess"),
    # Aliases of unions, and what is not public, stand as they are in signatures.
    ("py:class", r"[A-Z][A-Za-z]+|datetime|builtins\..*|containerlib\.(engine|images|runtime|shim)\..*"),
    ("py:class", r"(Path|Iterator|Mapping|Sequence|Self|Callable|Any|Literal|ContextManager)(\[.*)?"),
    ("py:(class|exc)", r"[A-Z][a-zA-Z]*(Error|Exception)|BaseException|optional"),
    ("py:class", r"(str|int|float|bool|bytes|dict|list|tuple|set|frozenset|object|type|None)(\[.*)?"),
]


def _hide_colon(app, what, name, obj, options, lines):
    """
    Before napoleon: it takes what stands before a colon in a property's first line for its type.
    """
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(":", "\0")


def _show_colon(app, what, name, obj, options, lines):
    lines[:] = [line.replace("\0", ":") for line in lines]


def setup(app):
    # napoleon's own has 500.
    app.connect("autodoc-process-docstring", _hide_colon, priority=400)
    app.connect("autodoc-process-docstring", _show_colon, priority=600)
