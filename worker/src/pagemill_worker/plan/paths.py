"""Where an item's file is, from what its manifest row says.

Layer: `worker.plan`; pure. Paths are kept verbatim: no percent decoding, no Unicode normalisation, no `..` folding. The
rules, first match wins:

1. `s3://`, `http://`, `https://` stay as they are; `file://` becomes its local path.
2. An absolute path stays as it is.
3. With a path prefix: prefix, exactly one "/", path. The result is taken by rules 1, 2 and 5.
4. With a bucket: `s3://<bucket>/<path>`; a path that already starts with `<bucket>/` loses that first.
5. Anything else is relative to the manifest itself: to its folder, or to its place in the bucket. A manifest can so be
   moved together with its pages, and means the same on a laptop and in a pod, which have different working folders.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.request import ManifestRequest
from pagemill_worker.plan.source_bytes import local_path

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SETTLED = ("s3://", "http://", "https://")  # nothing is done to paths that start so
_READABLE = (*SETTLED, "file://", "memory://")


@dataclass(frozen=True, slots=True)
class PathRules:
    """How to join the paths of one manifest. `prefix` (or "") and `base`, where relative paths start, end in "/"."""

    prefix: str
    bucket: str
    base: str

    @classmethod
    def of(cls, request: ManifestRequest) -> PathRules:
        prefix = request.path_prefix.rstrip("/") + "/" if request.path_prefix else ""
        return cls(prefix, request.bucket.strip("/"), base_of(request.uri))

    def resolve(self, path: str) -> str:
        """The URI or absolute local path that `path` means."""
        if not path or _is_settled(path):
            return _settle(path)
        if self.prefix:
            path = self.prefix + path
        elif self.bucket:
            return f"s3://{self.bucket}/{path.removeprefix(self.bucket + '/')}"
        return _settle(path) if _is_settled(path) else self.base + path


def check_uri(uri: str) -> ItemFailure | None:
    """Why nothing can ever be read at `uri`, or None."""
    if not uri:
        return ItemFailure("ImageMissing", "the row names no file: its path is empty")
    if "\0" in uri:
        return ItemFailure("ImageMissing", "the path holds a NUL, so no such file can exist")
    scheme = _SCHEME.match(uri)
    if scheme and scheme[0].lower() not in _READABLE:
        return ItemFailure("FetchFailed", f"{scheme[0]} is not a scheme that can be read here (s3, http, https, file)")
    return None


def base_of(manifest_uri: str) -> str:
    """The place of the manifest, ending in "/": where its relative paths start."""
    local = local_path(manifest_uri)
    return f"{posixpath.dirname(str(local)).rstrip('/')}/" if local else manifest_uri.rpartition("/")[0] + "/"


def _is_settled(path: str) -> bool:
    return path.startswith("/") or _SCHEME.match(path) is not None


def _settle(path: str) -> str:
    scheme = _SCHEME.match(path)
    if scheme is None:
        return path
    lowered = scheme[0].lower() + path[scheme.end() :]
    return str(local_path(lowered)) if lowered.startswith("file://") else lowered
