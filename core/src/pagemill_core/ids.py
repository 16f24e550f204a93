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
    """A 26-character id that sorts by `unix_ms` and never repeats. Source: the ULID specification."""
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
    """The first rule that the id breaks, "" when it breaks none."""
    segments = item_id.split("/")
    key = f"{prefix}/{item_id}{suffix}" if prefix else item_id + suffix
    longest = max(len(segment.encode("utf-8", "surrogatepass")) for segment in (*segments[:-1], segments[-1] + suffix))
    rules = (
        (not item_id, "is empty"),
        (
            any(unicodedata.category(char) in ("Cc", "Cs") for char in item_id),
            "holds a control character or half of a surrogate pair",
        ),
        (item_id.startswith("/"), "starts with '/'"),
        (any(segment in ("", ".", "..") for segment in segments), "has a path segment that is empty, '.' or '..'"),
        (
            ".." in item_id.replace("\\", "/").split("/"),
            "has a path segment '..' for stores that take a backslash for a slash",
        ),
        (longest > MAX_SEGMENT_BYTES, f"has a path segment of more than {MAX_SEGMENT_BYTES} bytes"),
        (
            len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES,
            f"makes a key of more than {MAX_KEY_BYTES} bytes",
        ),
        (segments[0] == ".pagemill" and not prefix, "would lie in Pagemill's own folder"),
    )
    return next((text for broken, text in rules if broken), "")
