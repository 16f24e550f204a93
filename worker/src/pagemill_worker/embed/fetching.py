"""Brings a model's files to this machine, once: from a hub at a pinned revision, from a store, or from a folder.

Layer: `worker.embed`, for `pagemill models` and for pods that start with an empty folder of models. A model is seen
whole or not at all, beside it a note with the digest of every file. Only files of allowed kinds are taken; of two
formats of the same weights, only safetensors.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError, SourceError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.embed.catalogue import KnownModel, named_model
from pagemill_worker.embed.digest import COUNTED, NOTE, digest_of, file_digests
from pagemill_worker.embed.encoder import ModelSettings
from pagemill_worker.embed.files import read_json
from pagemill_worker.embed.registry import cached_path

OpenStore = Callable[[str], ObjectStore]
State = Literal["Intact", "Damaged"]
_BLOCK_BYTES = 8 << 20
# Of a hub, no code and no picture of a model card is ever wanted.
_HUB_SUFFIXES = COUNTED - {".py", ".pt", ".pth", ".yaml"}
_OLD_WEIGHTS = (".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model on this machine. `is_new` is False when it was there already; `files` maps names to SHA-256."""

    name: str
    path: Path
    uri: str
    digest: str
    files: Mapping[str, str]
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch: files matching `patterns` (empty: all of allowed kinds) below `uri`, into the folder `path`."""

    name: str
    uri: str
    revision: str | None
    path: Path
    patterns: tuple[str, ...] = ()
    digest: str | None = None


def wanted(asked: str, cache: Path, *, revision: str | None = None, source: str = "") -> Wanted:
    """What a user means by a name of the catalogue or a URI. Raises: InvalidSpecError."""
    if "://" in asked:
        if source or not asked.startswith(("hf://", "s3://")):
            raise InvalidSpecError(
                f"{asked} needs no fetching", advice="fetch a name of the catalogue, or an s3:// or hf:// URI"
            )
        return _checked(Wanted(asked, asked, revision, cached_path(asked, revision, cache)))
    known = named_model(asked)
    uri = source or (f"hf://{known.hub}" if known.hub else "")
    if not uri:
        raise InvalidSpecError(f"{known.name} is not fetched: {known.how_to_get}")
    pinned = revision or (known.revision if uri.startswith("hf://") else None)
    patterns = known.files if uri == f"hf://{known.hub}" else ()
    return _checked(Wanted(known.name, uri, pinned, cache / known.name, patterns, known.digest))


def _checked(model: Wanted) -> Wanted:
    if model.uri.startswith("hf://") and not model.revision:
        raise InvalidSpecError(
            f"{model.name} has no pinned revision", advice="add --revision and the commit, 40 hexadecimal digits"
        )
    return model


def fetch_model(model: Wanted, open_store: OpenStore) -> FetchedModel:
    """Fetch a model unless it is there, intact.

    Raises: SourceError when the source holds no model; IntegrityError; AccessDeniedError, StoreUnavailableError;
    InvalidSpecError when the folder cannot be written.
    """
    if (found := read_note(model.path)) is not None and found.uri == _origin(model):
        return found
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=model.path.parent, prefix=f".{model.path.name}-"))
    except OSError as error:
        raise InvalidSpecError(
            f"{model.path.parent} cannot be written: {error.strerror}", advice="set PAGEMILL_MODELS_DIR to a folder"
        ) from error
    try:
        _download(model, draft, open_store)
        fetched = _noted(model, draft)
        draft.chmod(0o755)
        _replace(draft, model.path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return fetched


def ensure_model(model: ModelSettings, open_store: OpenStore) -> None:
    """Fetch a job's model when it is not on this machine and has an address to be fetched from; else do nothing.

    What is missing then is `resolve`'s to say. Raises: as `fetch_model`.
    """
    if model.name is not None:
        known = named_model(model.name)
        has_files = (model.cache / known.name).is_dir() or known.package is not None
        if not has_files and known.hub and known.revision:
            fetch_model(wanted(model.name, model.cache), open_store)
    elif (model.uri or "").startswith(("hf://", "s3://")):
        fetch_model(wanted(model.uri or "", model.cache, revision=model.revision), open_store)


def fetched_models(cache: Path) -> list[FetchedModel]:
    """Every model below `cache` that has a note, in the order of their folders."""
    notes = sorted(cache.rglob(NOTE)) if cache.is_dir() else []
    return [found for note in notes if (found := read_note(note.parent)) is not None]


def read_note(folder: Path) -> FetchedModel | None:
    """What was noted when the model was fetched; None when there is no note, or none that can be read."""
    if not (folder / NOTE).is_file():
        return None
    try:
        note = read_json(folder / NOTE)
        files = {str(name): str(digest) for name, digest in dict(note["files"]).items()}
        return FetchedModel(str(note["name"]), folder, str(note["uri"]), str(note["digest"]), files, is_new=False)
    except (InvalidSpecError, KeyError, TypeError, ValueError):
        return None


def verify_model(model: FetchedModel) -> tuple[State, list[str]]:
    """Hash every file again. Returns: the state, and the names of files that changed, are gone, or came along."""
    try:
        now = file_digests(model.path)
    except EngineUnavailableError:
        now = {}
    odd = sorted(name for name in now.keys() | model.files.keys() if now.get(name) != model.files.get(name))
    return ("Damaged" if odd else "Intact"), odd


def place_of(known: KnownModel, cache: Path) -> str:
    """Where a named model is, for people: `fetched`, the package that carries it, or how to get it."""
    if (cache / known.name).is_dir():
        return str(cache / known.name)
    if known.package is not None:
        return f"package {known.package.distribution} {known.package.version}"
    return known.how_to_get


def _origin(model: Wanted) -> str:
    return f"{model.uri}@{model.revision}" if model.revision else model.uri


def _download(model: Wanted, draft: Path, open_store: OpenStore) -> None:
    if model.uri.startswith("hf://"):
        from pagemill_worker.embed.hub import download

        download(model.uri.removeprefix("hf://"), model.revision or "", lambda names: chosen(names, model), draft)
        return
    store = open_store(model.uri)
    sizes = {info.key: info for info in store.list("")}
    for key in chosen(list(sizes), model):
        copy_object(store, key, sizes[key].token, draft / key)


def chosen(names: list[str], model: Wanted) -> list[str]:
    """The files to take. Raises: SourceError when a model cannot be made of them."""
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise SourceError(f"{model.uri} holds the name {name!r}, which is no path below it")
    allowed = _HUB_SUFFIXES if model.uri.startswith("hf://") else COUNTED
    found = [
        name
        for name in sorted(names)
        if PurePosixPath(name).suffix in allowed
        and not any(part.startswith(".") for part in PurePosixPath(name).parts)
        and (not model.patterns or any(fnmatch(name, pattern) for pattern in model.patterns))
    ]
    if not model.patterns:  # other frameworks' exports lie in folders of their own beside the model
        found = [name for name in found if not name.startswith(("onnx/", "openvino/", "coreml/"))]
    if any(name.endswith(".safetensors") and "/" not in name for name in found):
        found = [name for name in found if not (name.endswith(_OLD_WEIGHTS) and "/" not in name)]
    if not found:
        raise SourceError(f"{model.uri} holds no model", advice="name the folder that holds the model's config")
    return found


def copy_object(store: ObjectStore, key: str, token: str, path: Path) -> None:
    """Write one version of an object into a file, block by block. Raises: the store's errors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        at = 0
        while block := store.get_range(key, at, _BLOCK_BYTES, if_match=token):
            file.write(block)
            at += len(block)


def _noted(model: Wanted, draft: Path) -> FetchedModel:
    files = file_digests(draft)
    digest = digest_of(files)
    if model.digest is not None and digest != model.digest:
        raise IntegrityError(
            f"{model.uri} has the digest {digest}, the catalogue says {model.digest}",
            advice="fetch it from its publisher, at the pinned revision",
        )
    note = {"name": model.name, "uri": _origin(model), "digest": digest, "files": files}
    (draft / NOTE).write_text(json.dumps(note, indent=1) + "\n", "utf-8")
    return FetchedModel(model.name, model.path, _origin(model), digest, files)


def _replace(draft: Path, path: Path) -> None:
    """Put the folder in place; what was there goes only when the new one is whole."""
    if path.exists():
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
        os.replace(path, old / path.name)
        os.replace(draft, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(draft, path)
