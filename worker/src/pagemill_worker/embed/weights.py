"""Single files that a job names (a checkpoint, its sizes, a tensor model) on this machine's disk.

Layer: `worker.embed`; no machine-learning package. A file of a store is copied once for each of its versions, by
whichever process is first; local files are used where they are.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pagemill_core.errors import EngineUnavailableError, IntegrityError
from pagemill_core.ids import digest
from pagemill_core.storage.open import split_uri
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.fetching import copy_object
from pagemill_worker.ocr.fingerprint import file_digest

_FOLDER = "files"


def local_file(uri: str, cache: Path, open_store: Callable[[str], ObjectStore]) -> Path:
    """The file at `uri`, an absolute local path or an s3:// address, as a path of this machine.

    Raises: EngineUnavailableError when it is not there; the store's errors.
    """
    if "://" not in uri or uri.startswith("file://"):
        path = Path(uri.removeprefix("file://"))
        if not path.is_file():
            raise EngineUnavailableError(f"{uri} is no file", advice="check the path in the job's file")
        return path
    root, key = split_uri(uri)
    store = open_store(root)
    info = store.head(key)
    if info is None:
        raise EngineUnavailableError(f"{uri} is not there", advice="check the address in the job's file")
    path = cache / _FOLDER / digest([uri, info.token])[:32] / key.rpartition("/")[2]
    if not path.is_file():
        _copy(store, key, info.token, path)
    return path


def checked_digest(path: Path, want: str | None) -> str:
    """`sha256:…` of a file. Raises: IntegrityError when it is not `want`."""
    found = f"sha256:{file_digest(path)}"
    if want is not None and found != want.lower():
        raise IntegrityError(
            f"{path.name} has the digest {found}, not {want.lower()}", advice="name the digest of the file you mean"
        )
    return found


def _copy(store: ObjectStore, key: str, token: str, path: Path) -> None:
    """Copy under another name, then rename, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent)
    try:
        os.close(handle)
        copy_object(store, key, token, Path(draft))
        Path(draft).rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()
        raise
