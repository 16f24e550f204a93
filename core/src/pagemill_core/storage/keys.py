"""Which keys and metadata a store takes: one rule for every backend, so that what works on one works on all.

Layer: `core.storage`, pure; imports only `errors` and `ids`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from pagemill_core.errors import UnsafeId
from pagemill_core.ids import MAX_KEY_BYTES

# Nearly every key is plain ASCII; one match is ten times cheaper than looking at each character's category.
_PLAIN_KEY = re.compile(r"\.?[A-Za-z0-9_=-][A-Za-z0-9_=.-]*(?:/\.?[A-Za-z0-9_=-][A-Za-z0-9_=.-]*)*")
_META_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_META_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
_SHOWN_CHARS = 120
_MAX_META_BYTES = 2048  # the limit of S3 for names and values together


def check_key(key: str) -> None:
    """Refuse a key that could leave the root or cannot be written on every backend.

    Raises: UnsafeId for an empty one, over 1024 bytes, a leading "/", a segment that is empty, "." or "..", or
        a control character.
    """
    if len(key) <= MAX_KEY_BYTES and _PLAIN_KEY.fullmatch(key):
        return
    problem = _reading_problem(key)
    if not problem and "" in key.replace("\\", "/").split("/"):
        problem = "has an empty path segment"
    if not problem and any(unicodedata.category(char) == "Cc" for char in key):
        problem = "holds a control character"
    _refuse(key, problem)


def check_reading_key(key: str) -> None:
    """Refuse a key that could leave the root; less strict than `check_key`, for objects that others named.

    Raises: UnsafeId.
    """
    if len(key) <= MAX_KEY_BYTES and _PLAIN_KEY.fullmatch(key):
        return
    _refuse(key, _reading_problem(key))


def check_prefix(prefix: str) -> None:
    """Refuse a listing prefix that could leave the root. The empty prefix means everything. Raises: UnsafeId."""
    if prefix:
        _refuse(prefix, _reading_problem(prefix))


def check_meta(meta: Mapping[str, str] | None) -> dict[str, str]:
    """`meta` as a dict of its own.

    Raises: ValueError for names other than lower-case ASCII letters, digits and "-", values that are not printable
    ASCII without outer spaces, or more than 2048 bytes together: no store could give them back unchanged.
    """
    if not meta:
        return {}
    for name, value in meta.items():
        if not _META_NAME.fullmatch(name) or not _META_VALUE.fullmatch(value):
            raise ValueError(f"metadata {name!r} cannot be stored unchanged")
    if sum(len(name) + len(value) for name, value in meta.items()) > _MAX_META_BYTES:
        raise ValueError(f"metadata of more than {_MAX_META_BYTES} bytes")
    return dict(meta)


def _reading_problem(key: str) -> str:
    if not key:
        return "is empty"
    if key.startswith("/"):
        return "starts with '/'"
    # Servers exist that take a backslash for a slash, so "..\\x" must not pass either.
    if any(segment in (".", "..") for segment in key.replace("\\", "/").split("/")):
        return "has a path segment '.' or '..'"
    if "\0" in key:
        return "holds a NUL character"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return f"has more than {MAX_KEY_BYTES} bytes" if size > MAX_KEY_BYTES else ""


def _refuse(key: str, problem: str) -> None:
    if problem:
        raise UnsafeId(f"the key {shown(key)} {problem}", advice="give the object another name")


def shown(key: str) -> str:
    """`key` for a message: quoted, ASCII, cut when long."""
    return ascii(key if len(key) <= _SHOWN_CHARS else key[: _SHOWN_CHARS - 3] + "...")
