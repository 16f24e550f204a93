"""From a job's `model` to files on this machine, before anything heavy is imported: found, told apart, digested.

Layer: `worker.embed`; imports no machine-learning package and asks no network. What is not here is refused with the
command that brings it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_worker.embed.catalogue import KnownModel, named_model
from pagemill_worker.embed.digest import WEIGHTS, check_digest
from pagemill_worker.embed.encoder import ModelSettings, Trust
from pagemill_worker.embed.files import read_json
from pagemill_worker.embed.plugins import plugin_names
from pagemill_worker.ocr import packages

LOADERS = ("openClip", "transformers", "sentenceTransformers", "modelImpl")
_UNSAFE = re.compile(r"[^0-9A-Za-z._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """A model's files, ready to load.

    `path` is its folder, or its only file (a checkpoint). `digest` is `sha256:…` over the files that count.
    `known` is its entry in the catalogue when it was asked for by name.
    """

    name: str
    path: Path
    loader: str
    digest: str
    trust: Trust = "none"
    known: KnownModel | None = None

    @property
    def folder(self) -> Path:
        return self.path.parent if self.path.is_file() else self.path

    def facts(self) -> dict[str, Any]:
        """What of it belongs into a fingerprint: what it is, not where it lies."""
        return {"name": self.known.name if self.known else "", "loader": self.loader, "digest": self.digest}


def resolve(model: ModelSettings) -> ResolvedModel:
    """Find a model's files, tell how they load, and check their digest.

    Raises: InvalidSpecError for an unknown name, address or loader; EngineUnavailableError when the files are not on
    this machine, saying how to get them; IntegrityError when they are not those that the digest names.
    """
    known = named_model(model.name) if model.name else None
    path = _known_path(known, model.cache) if known else uri_path(model)
    loader = known.loader if known else model.loader or _told_loader(path)
    if loader not in LOADERS and loader not in plugin_names():
        offered = ", ".join((*LOADERS, *plugin_names()))
        raise InvalidSpecError(f"model.loader: {loader} is unknown", advice=f"loaders here: {offered}")
    _check_trust(loader, model)
    digest = check_digest(path, known.digest if known else model.digest)
    return ResolvedModel(
        name=known.name if known else model.uri or "",
        path=path,
        loader=loader,
        digest=digest,
        trust=model.trust,
        known=known,
    )


def _check_trust(loader: str, model: ModelSettings) -> None:
    if loader == "modelImpl" and model.trust != "python":
        raise InvalidSpecError(
            "model.trust: a model.py runs as code, which this job does not allow",
            advice="read the code, then say `trust: python` and give the model's digest",
        )
    if model.trust != "none" and model.digest is None:
        raise InvalidSpecError(
            f"model.digest: trust: {model.trust} lets the model's files run code, so the digest is required",
            advice="`pagemill models verify PATH` prints it",
        )


def _known_path(known: KnownModel, cache: Path) -> Path:
    fetched = cache / known.name
    if fetched.is_dir():
        return fetched
    if known.package is not None:
        root = packages.package_dir(known.package.module)
        if root is not None and (root / known.package.folder).is_dir():
            return root / known.package.folder
    raise EngineUnavailableError(f"the model {known.name} is not on this machine", advice=known.how_to_get)


def uri_path(model: ModelSettings) -> Path:
    """Where the model that `model.uri` names lies here; s3:// and hf:// lie in the cache once they are fetched.

    Raises: InvalidSpecError, EngineUnavailableError.
    """
    uri = model.uri or ""
    if uri.startswith(("s3://", "hf://")):
        path = cached_path(uri, model.revision, model.cache)
        if not path.exists():
            asked = f"{uri} --revision {model.revision}" if model.revision else uri
            raise EngineUnavailableError(
                f"the model {uri} is not on this machine", advice=f"`pagemill models fetch {asked}` fetches it"
            )
        return path
    path = Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else Path(uri.removeprefix("local-dir:"))
    if not uri or not path.exists():
        raise EngineUnavailableError(
            f"the model {uri or '(none)'} is not on this machine", advice="name a folder or a file that is there"
        )
    return path


def cached_path(uri: str, revision: str | None, cache: Path) -> Path:
    """The cache's folder for a model from elsewhere: readable, and one for each revision."""
    scheme, _, rest = uri.partition("://")
    name = _UNSAFE.sub("--", rest.strip("/"))
    return cache / scheme / (f"{name}@{revision}" if revision else name)


def _told_loader(path: Path) -> str:
    """How the files look like they want to be loaded. Raises: InvalidSpecError when they look like nothing."""
    if path.is_file():
        if path.suffix in WEIGHTS:
            return "openClip"
        raise InvalidSpecError(f"{path} is no checkpoint", advice=f"checkpoints end in {', '.join(WEIGHTS)}")
    for file, loader in (("open_clip_config.json", "openClip"), ("modules.json", "sentenceTransformers")):
        if (path / file).is_file():
            return loader
    if (path / "model.py").is_file():
        return "modelImpl"
    if (path / "config.json").is_file() and "model_type" in read_json(path / "config.json"):
        return "transformers"
    raise InvalidSpecError(
        f"{path}: the files do not say how they are loaded",
        advice=f"set model.loader to one of {', '.join(LOADERS)}, or name the folder that holds the model's config",
    )


def weights_of(folder: Path, preferred: tuple[str, ...]) -> Path:
    """The one file of weights to load from a folder. Raises: InvalidSpecError when there is none, or no telling."""
    for name in preferred:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)
    safe = [file for file in found if file.suffix == ".safetensors"]
    if len(safe or found) == 1:
        return (safe or found)[0]
    if not found:
        raise InvalidSpecError(
            f"{folder} holds no weights; a model without them gives random numbers",
            advice=f"put the checkpoint ({', '.join(WEIGHTS)}) into the folder",
        )
    names = ", ".join(file.name for file in found)
    raise InvalidSpecError(f"{folder} holds several checkpoints: {names}", advice="leave the one that is meant")


def check_keys(model: str, missing: list[str], unexpected: list[str]) -> None:
    """Raises: IntegrityError when weights do not fill a model, or hold what it has no place for."""
    if not missing and not unexpected:
        return
    parts = [
        f"{len(keys)} {word} ({', '.join(sorted(keys)[:3])}{' …' if len(keys) > 3 else ''})"
        for word, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    raise IntegrityError(
        f"{model}: the weights do not belong to the model's config: {'; '.join(parts)}",
        advice="a model with missing weights gives random numbers; fetch config and weights of one revision",
    )
