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
    ("py:class", r"(Path|Iterator|Mapping|Sequence|Self|Callable|Any|Literal|ContextManager)(\[.*)?"),
    ("py:(class|exc)", r"[A-Z][a-zA-Z]*(Error|Exception)|BaseException|optional"),
    ("py:class", r"(str|int|float|bool|bytes|dict|list|tuple|set|frozenset|object|type|None)(\[.*)?"),
]
