"""Every picture below a folder or an s3:// prefix, in order, with what tells its version.

Layer: `worker.plan`. Lists; opens nothing. Never a page: hidden files and folders, `._*` and `Thumbs.db`, directories,
and whatever this job itself writes when its output lies inside its input.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pagemill_core.errors import SourceError, UnsafeId
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.fetch.fetched import local_version
from pagemill_worker.plan.request import DatasetRequest, ImagesRequest, TextsRequest
from pagemill_worker.plan.rows import BATCH_ROWS, Candidates
from pagemill_worker.plan.sorting import Entry, Sorter
from pagemill_worker.plan.source_bytes import StoreOpener, local_path, split_object

# Stars and question marks never cross a "/"; "**/" does.
_TOKEN = re.compile(r"\*\*/|\*+|\?|\[!?\]?[^\]]+\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_JUNK = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Which names of a listing are wanted. Names are relative to its root, with "/"."""

    included: re.Pattern[str]
    excluded: re.Pattern[str]
    recursive: bool
    own: tuple[str, ...]

    @classmethod
    def of(cls, request: ImagesRequest) -> Selection:
        return cls.matching(request.include, own_places(request), exclude=request.exclude, recursive=request.recursive)

    @classmethod
    def matching(
        cls, include: Iterable[str], own: tuple[str, ...] = (), *, exclude: Iterable[str] = (), recursive: bool = True
    ) -> Selection:
        """Names that a glob of `include` matches and none of `exclude`, nothing that starts with one of `own`."""
        return cls(_compiled(include), _compiled(exclude), recursive, own)

    def wants(self, name: str) -> bool:
        base = name[name.rfind("/") + 1 :]
        if not base or base.lower() in _JUNK or name.startswith(".") or "/." in name:
            return False
        if (base != name and not self.recursive) or name.startswith(self.own):
            return False
        return self.included.match(name) is not None and not self.excluded.match(name)

    def enters(self, folder: str) -> bool:
        """Whether anything below `folder`, a relative name, could be wanted."""
        hidden = posixpath.basename(folder).startswith(".")
        return self.recursive and not hidden and not f"{folder}/".startswith(self.own)


def own_places(request: ImagesRequest | DatasetRequest | TextsRequest) -> tuple[str, ...]:
    """Prefixes of relative names that are this job's own output; empty when the output lies elsewhere."""
    if not request.own_output_uri:
        return ()
    root, own = _comparable(request.uri), _comparable(request.own_output_uri)
    if own == root:
        names = (prefix.strip("/") for prefix in request.own_prefixes)
        # A name with a suffix is a table's: one file, or a folder of parts.
        return tuple(name if "." in name else f"{name}/" for name in names if name)
    return (f"{own.removeprefix(root)}",) if own.startswith(root) else ()


def list_images(request: ImagesRequest, open_store: StoreOpener, scratch: Path) -> Iterator[Candidates]:
    """Batches of all wanted files, sorted by their names; ids are names without their last suffix.

    "Lines" are places in the listing, from 1. Raises: SourceError when there is no such folder; the store's errors.
    """
    root, entries = sorted_files(request.uri, Selection.of(request), Sorter(request.order, scratch), open_store)
    yield from _batches(entries, root)


def sorted_files(
    uri: str, selection: Selection, sorter: Sorter, open_store: StoreOpener
) -> tuple[str, Iterable[Entry]]:
    """The place that names are relative to, ending in "/", and the wanted files below `uri` in the sorter's order.

    Raises: SourceError when there is no such folder; the store's errors.
    """
    root, entries = listed_files(uri, selection, open_store)
    for entry in entries:
        sorter.add(entry)
    return root, sorter


def listed_files(uri: str, selection: Selection, open_store: StoreOpener) -> tuple[str, Iterator[Entry]]:
    """As `sorted_files`, in no order and without memory of what was given."""
    place = split_object(uri)
    if place:
        store, prefix = open_store(place[0]), _folder(place[1])
        return f"{place[0].rstrip('/')}/{prefix}", _store_entries(store, prefix, selection)
    folder = local_path(uri)
    if folder is None:
        raise SourceError(f"{uri} is neither a local folder nor an s3:// prefix")
    return f"{str(folder).rstrip('/')}/", _local_entries(folder, selection)


def _batches(entries: Iterable[Entry], root: str) -> Iterator[Candidates]:
    batch = _empty()
    for line, entry in enumerate(entries, 1):
        batch.lines.append(line)
        batch.ids.append(posixpath.splitext(entry.name)[0])
        batch.uris.append(root + entry.name)
        batch.sizes.append(entry.size_bytes if entry.version else None)
        batch.versions.append(entry.version or None)
        if len(batch) >= BATCH_ROWS:
            yield _filled(batch)
            batch = _empty()
    if len(batch):
        yield _filled(batch)


def _empty() -> Candidates:
    return Candidates([], [], [], [], [], [], [])


def _filled(batch: Candidates) -> Candidates:
    batch.pages = [None] * len(batch)
    batch.columns = [None] * len(batch)
    return batch


def _store_entries(store: ObjectStore, prefix: str, selection: Selection) -> Iterator[Entry]:
    try:
        for info in store.list(prefix):
            name = info.key.removeprefix(prefix)
            if selection.wants(name):
                yield Entry(name, info.size, info.token)
    except UnsafeId as error:
        raise SourceError(f"the source's prefix cannot be listed: {error.message}") from error


def _local_entries(folder: Path, selection: Selection) -> Iterator[Entry]:
    """Files below `folder`; links are followed, each real folder entered once."""
    if not folder.is_dir():
        raise SourceError(
            f"{folder} is not a folder", advice="name an existing folder, or use source.manifest for a table of pages"
        )
    entered = {_folder_identity(folder)}
    waiting = [""]
    while waiting:
        above = waiting.pop()
        for found in _scan(folder / above):
            name = f"{above}/{found.name}" if above else found.name
            if found.is_dir():
                if selection.enters(name) and _folder_identity(found) not in entered:
                    entered.add(_folder_identity(found))
                    waiting.append(name)
            elif selection.wants(name):
                yield _local_entry(name, found)


def _local_entry(name: str, found: os.DirEntry[str]) -> Entry:
    try:
        seen = found.stat()
    except OSError:
        # A dangling link, or gone since it was listed: it stays in the plan, and fails by name when it is read.
        return Entry(name, 0, "")
    return Entry(name, seen.st_size, local_version(seen))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error


def _folder_identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    seen = folder.stat()
    return seen.st_dev, seen.st_ino


def _compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    """One expression for all of them; it matches nothing when there are none."""
    return re.compile("|".join(map(_glob, patterns)) or "(?!)", re.IGNORECASE)


def _glob(pattern: str) -> str:
    """A glob as a regular expression over the relative name: without "/" it is about the file's own name alone."""
    anywhere = "" if "/" in pattern else "(?:.*/)?"
    return anywhere + "".join(map(_translate, _TOKEN.findall(pattern.lstrip("/")))) + r"\Z"


def _translate(token: str) -> str:
    if token in _WILD:
        return _WILD[token]
    if token.startswith("[") and len(token) > 2:
        inside = token[1:-1].replace("\\", r"\\")
        return f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside.replace('^', chr(92) + '^')}]"
    return re.escape(token)


def _folder(prefix: str) -> str:
    return f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""


def _comparable(uri: str) -> str:
    """A place as a string that ends in "/", so that one place inside another is a prefix of it."""
    local = local_path(uri)
    return f"{(os.path.realpath(local) if local else uri).rstrip('/')}/"
