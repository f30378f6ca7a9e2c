# SPDX-License-Identifier: Apache-2.0
"""
Image references: Docker's grammar, and what short names mean.
"""

from __future__ import annotations

import re

import attrs

from containerlib.errors import InvalidReference

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
NAME_MAX = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_DIGEST_SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}
_ID = re.compile(r"[0-9a-f]{64}")


@attrs.frozen(kw_only=True)
class Reference:
    """
    A normalised reference: registry, repository, and a tag, a digest or both.

    ``str()`` of it is the full form, ``familiar`` what people write.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """
        Read a reference as Docker does: ``redis`` is ``docker.io/library/redis``.

        A tag that is left out stays None; see `with_default_tag`.

        Raises:
            InvalidReference: *text* does not follow the grammar.
        """
        rest, digest = _split_digest(text)
        rest, tag = _split_tag(rest, text)
        if _ID.fullmatch(rest):
            raise _invalid(text, "64 hexadecimal digits are an id, not a name")
        domain, path = _split_domain(rest)
        if not _DOMAIN.fullmatch(domain):
            raise _invalid(text, f"{domain!r} is not a host name")
        if not path:
            raise _invalid(text, "it names no repository")
        if not _PATH.fullmatch(path):
            if path != path.lower():
                raise _invalid(text, "repository names are lower case")
            raise _invalid(
                text, f"in {path!r} only a-z, 0-9 and separators '.', '_', '__', '-' between them are allowed"
            )
        if len(domain) + 1 + len(path) > NAME_MAX:
            raise _invalid(text, f"the name is longer than {NAME_MAX} characters")
        return cls(domain=domain, path=path, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """
        Registry and repository, without tag and digest.
        """
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """
        The shortest text that means the same.
        """
        name = self.name
        if self.domain == DEFAULT_DOMAIN:
            name = self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path
            # Without its host, `a.b/c` or `localhost/c` would name another registry.
            if _looks_like_domain(name.partition("/")[0]) and "/" in name:
                name = self.name
        return name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def with_default_tag(self) -> Reference:
        """
        Return the reference with tag ``latest`` if it has no tag and no digest.
        """
        if self.tag is None and self.digest is None:
            return attrs.evolve(self, tag=DEFAULT_TAG)
        return self


def _invalid(text: str, reason: str) -> InvalidReference:
    return InvalidReference(f"{text!r} is not an image reference: {reason}", subject=text)


def _split_digest(text: str) -> tuple[str, str | None]:
    if not text:
        raise _invalid(text, "it is empty")
    rest, at, digest = text.partition("@")
    if not at:
        return rest, None
    algorithm, _, hexadecimal = digest.partition(":")
    size = _DIGEST_SIZES.get(algorithm)
    if (
        not _DIGEST.fullmatch(digest)
        or (size and len(hexadecimal) != size)
        or hexadecimal != hexadecimal.lower()
    ):
        raise _invalid(text, f"{digest!r} is not a digest")
    return rest, digest


def _split_tag(rest: str, text: str) -> tuple[str, str | None]:
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag or "]" in tag:
        return rest, None  # no colon, or that of a port or an IPv6 address
    if not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag!r} is not a tag")
    return name, tag


def _looks_like_domain(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not _looks_like_domain(first):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and path and "/" not in path:
        path = f"library/{path}"
    return domain, path
