"""Objects as local files, for libraries that read nothing else.

Layer: the bottom of `worker.embed.search`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagemill_core.errors import IntegrityError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.search.manifest import IndexObject

_BLOCK_BYTES = 16 << 20


def copy_object(store: ObjectStore, entry: IndexObject, path: Path) -> None:
    """Copy an object to a file, a block in memory at a time. Raises: IntegrityError when it is shorter than said."""
    with path.open("wb") as file:
        for start in range(0, entry.size, _BLOCK_BYTES):
            file.write(store.get_range(entry.key, start, min(_BLOCK_BYTES, entry.size - start)))
    if path.stat().st_size != entry.size:
        raise IntegrityError(f"{entry.key} does not have its {entry.size} bytes", advice="build the index again")


@contextmanager
def local_file(store: ObjectStore, entry: IndexObject, cache: Path | None) -> Iterator[Path]:
    """The object as a file: itself in a folder, else a copy, kept in `cache` for the next search where one is given.

    Objects of an index never change, so a copy is good as long as it is whole.
    """
    if isinstance(store, FolderStore):
        yield store.root / entry.key
        return
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="pagemill-index-") as folder:
            path = Path(folder) / "index"
            copy_object(store, entry, path)
            yield path
        return
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{hashlib.sha256(f'{store.uri} {entry.key}'.encode()).hexdigest()[:32]}.faiss"
    if not path.is_file() or path.stat().st_size != entry.size:
        with tempfile.NamedTemporaryFile(dir=cache, delete=False) as partial:
            pass
        copy_object(store, entry, Path(partial.name))
        os.replace(partial.name, path)
    yield path
