"""From a URI as a user writes it to a store, and the arithmetic of such URIs.

Layer: `core.storage`, the only place that chooses a backend. Forms: `s3://bucket/prefix`, `file:///folder` (percent-
encoded, as file URIs are), a plain path, `memory://name`. Keys in s3 and memory URIs are verbatim: `#`, `%` and spaces
stand for themselves.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.keys import shown
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_core.storage.store import ObjectStore

if TYPE_CHECKING:
    from pagemill_core.storage.s3 import S3Store

_ADVICE = "write s3://bucket/prefix, file:///folder or a path"
_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def open_store(uri: str, settings: S3Settings | None = None) -> ObjectStore:
    """The store whose root is `uri`. Nothing is sent, read or created yet. `settings` matter for S3 alone.

    `s3://bucket/` reaches everything in the bucket; the same `memory://name` is the same store within the process.
    Raises: InvalidSpecError for a URI that is none of the forms.
    """
    scheme, rest = _parts(uri)
    if scheme == "s3":
        from pagemill_core.storage.s3 import S3Store  # here, since a folder needs no HTTP

        bucket, _, prefix = rest.partition("/")
        return S3Store(bucket, prefix, settings)
    if scheme == "memory":
        with _memory_lock:
            return _memory_stores.setdefault(rest, MemoryStore(rest))
    return FolderStore(_local_path(uri, scheme, rest))


class SharedStores:
    """Opens stores for a process that has a thousand of them: those in one bucket share connections and credentials.

    Each alone would hold a socket, the machine's certificates (half a mebibyte) and a token of its own. A bucket is
    forgotten when the last of its stores is. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: weakref.WeakValueDictionary[tuple[str, S3Settings], S3Store] = weakref.WeakValueDictionary()

    def open(self, uri: str, settings: S3Settings | None = None) -> ObjectStore:
        """As `open_store`."""
        scheme, rest = _parts(uri)
        if scheme != "s3":
            return open_store(uri, settings)
        from pagemill_core.storage.s3 import S3Store

        bucket, _, prefix = rest.partition("/")
        key = (bucket, settings or S3Settings())
        with self._lock:
            whole = self._buckets.get(key)
            if whole is None:
                whole = self._buckets[key] = S3Store(bucket, settings=settings)
        return whole.below(prefix)


def split_uri(uri: str) -> tuple[str, str]:
    """The root of the store that holds the object `uri`, and the object's key there.

    `s3://b/a/m.csv` is `("s3://b/", "a/m.csv")`; `memory://n/a` is `("memory://n", "a")`; a file's root is its folder.
    Raises: InvalidSpecError when `uri` names no object.
    """
    scheme, rest = _parts(uri)
    if scheme in ("s3", "memory"):
        name, _, key = rest.partition("/")
        root = f"s3://{name}/" if scheme == "s3" else f"memory://{name}"
    else:
        path = _local_path(uri, scheme, rest)
        root, key = str(path.parent), path.name
    if not key or not root or uri.endswith("/"):
        raise InvalidSpecError(f"{shown(uri)} names no object", advice="write the object's name after the last '/'")
    return root, key


def join_uri(root: str, *keys: str) -> str:
    """`root` and `keys` with exactly one "/" between them, keys verbatim (percent-encoded below a file URI)."""
    joined = root
    for key in keys:
        inner = quote(key) if root.startswith("file://") else key
        joined = f"{joined.rstrip('/')}/{inner.lstrip('/')}"
    return joined


def is_local(uri: str) -> bool:
    """Whether `uri` is a path or a file URI. Raises: InvalidSpecError for one that is no store's."""
    return _parts(uri)[0] in ("", "file")


def _parts(uri: str) -> tuple[str, str]:
    """Scheme (lower-case, "" for a path) and the rest."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if not uri:
            raise InvalidSpecError("an empty URI names no store", advice=_ADVICE)
        return "", uri
    scheme = scheme.lower()
    if scheme not in ("s3", "file", "memory"):
        raise InvalidSpecError(f"{shown(uri.split('?', maxsplit=1)[0])} is no store", advice=_ADVICE)
    if not rest.strip("/"):
        raise InvalidSpecError(f"{shown(uri)} names no bucket or folder", advice=_ADVICE)
    return scheme, rest


def _local_path(uri: str, scheme: str, rest: str) -> Path:
    if scheme == "file":
        host, separator, path = rest.partition("/")
        if host not in ("", "localhost") or not separator:
            raise InvalidSpecError(f"{shown(uri)} names another machine", advice="write file:///folder")
        rest = "/" + unquote(path)
    if "\0" in rest:
        raise InvalidSpecError(f"{shown(uri)} holds a NUL character", advice=_ADVICE)
    return Path(os.path.abspath(Path(rest).expanduser()))
