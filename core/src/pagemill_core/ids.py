"""Names that must be right everywhere: attempt ids, item ids as keys, digests of canonical JSON.

Layer: the bottom; imports only `errors`.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable
from typing import Any

from pagemill_core.errors import UnsafeId

MAX_SEGMENT_BYTES = 240  # file systems stop at 255; temporary names and suffixes need the rest
MAX_KEY_BYTES = 1024  # the limit of S3
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(unix_ms: int, random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A 26-character id that sorts by `unix_ms` and never repeats. Source: the ULID specification, Crockford base 32."""
    number = (unix_ms << 80) | int.from_bytes(random_bytes(10), "big")
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def canonical_json(value: Any) -> bytes:
    """`value` as JSON with sorted keys, no spaces and no escapes: equal values give equal bytes.

    Raises: ValueError for NaN and infinities, which JSON cannot say.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def digest(value: Any) -> str:
    """SHA-256 of `canonical_json(value)`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def check_item_id(item_id: str, *, prefix: str = "", suffix: str = "") -> None:
    """Refuse an id that could not be the key `prefix/id + suffix` on every store, verbatim.

    Ids are never changed: `#`, spaces, `%`, accents and Japanese are fine, and `/` nests.

    Raises: UnsafeId, whose message says which rule the id breaks.
    """
    problem = _problem(item_id, prefix, suffix)
    if problem:
        shown = item_id[:80].encode("unicode_escape").decode("ascii")
        raise UnsafeId(f"the id {shown!r} {problem}", advice="give the row another id")


def _problem(item_id: str, prefix: str, suffix: str) -> str:
    if not item_id:
        return "is empty"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in item_id):
        return "holds a control character or half of a surrogate pair"
    if item_id.startswith("/"):
        return "starts with '/'"
    segments = item_id.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return "has a path segment that is empty, '.' or '..'"
    if any(segment == ".." for segment in item_id.replace("\\", "/").split("/")):
        return "has a path segment '..' for stores that take a backslash for a slash"
    segments[-1] += suffix
    if any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        return f"has a path segment of more than {MAX_SEGMENT_BYTES} bytes"
    key = f"{prefix}/{item_id}{suffix}" if prefix else item_id + suffix
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"makes a key of more than {MAX_KEY_BYTES} bytes"
    if segments[0] == ".pagemill" and not prefix:
        return "would lie in Pagemill's own folder"
    return ""
