"""The model files of the local engines: where they lie, who brought them, and what their digests should be.

Layer: `worker.ocr`, for `pagemill models`. Loads no engine and asks no network. Digests come from whoever brought a
file: a Python package's RECORD, a Debian package's md5sums, or the note that `fetch` wrote beside it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.fingerprint import file_digest
from pagemill_worker.ocr.paddle_models import Version, find_model, prepare
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.tessdata import data_file, find_tessdata, installed_codes

ENGINES = ("rapidocr", "tesseract", "paddleocr", "easyocr")
NOTE_SUFFIX = ".sha256"
_DPKG_INFO = Path("/var/lib/dpkg/info")
_PADDLE_VERSIONS: tuple[Version, ...] = ("small", "tiny")
State = Literal["Intact", "Damaged", "Unknown"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file an engine reads. `sha256` is what it has now, `origin` who brought it.

    `state`: Intact or Damaged by what the origin says of it; Unknown when nobody says anything.
    """

    engine: str
    name: str
    path: Path
    size_bytes: int
    sha256: str
    origin: str
    state: State


def model_files(engine: str, paths: OcrSettings) -> list[ModelFile]:
    """The model files of an engine. Raises: EngineUnavailableError when it has none, saying how to get them."""
    found = [_described(engine, name, path) for name, path in _paths(engine, paths)]
    if not found:
        raise EngineUnavailableError(f"the engine {engine} has no model on this machine")
    return found


def prepare_models(engine: str, paths: OcrSettings) -> list[Path]:
    """Make what an engine would make at its first load. Returns: the prepared folders; none for most engines.

    Raises: EngineUnavailableError.
    """
    if engine != "paddleocr":
        return []
    versions = [version for version in _PADDLE_VERSIONS if _is_there(version, paths)]
    models = [find_model(version, part, paths) for version in versions for part in ("det", "rec")]
    return [prepare(model, paths.cache_dir) for model in models]


def place_for(engine: str, paths: OcrSettings) -> tuple[Path, str]:
    """The folder for further model files of an engine, and the variable that must name it.

    Raises: InvalidSpecError for an engine that takes none.
    """
    places = {
        "tesseract": (paths.tessdata_dir, "tessdata", "PAGEMILL_OCR_TESSDATA_DIR"),
        "easyocr": (paths.easyocr_models_dir, "easyocr", "PAGEMILL_OCR_EASYOCR_MODELS_DIR"),
        "paddleocr": (paths.paddle_models_dir, "paddle", "PAGEMILL_OCR_PADDLE_MODELS_DIR"),
    }
    if engine not in places:
        raise InvalidSpecError(f"{engine} takes no model files of one's own", advice=f"engines: {', '.join(places)}")
    configured, name, variable = places[engine]
    return configured or paths.cache_dir / "models" / name, variable


def store_model(folder: Path, name: str, data: bytes, sha256: str = "") -> Path:
    """Put a fetched file in place, seen whole or not at all, with a note of its digest beside it.

    Raises: IntegrityError when its digest is not `sha256`; InvalidSpecError when it cannot be written there.
    """
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256.lower():
        raise IntegrityError(
            f"{name} has the SHA-256 {digest}, not {sha256.lower()}", advice="fetch it again, or mend --sha256"
        )
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for path, content in ((target, data), (target.with_name(target.name + NOTE_SUFFIX), digest.encode())):
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as draft:
                draft.write(content)
            os.replace(draft.name, path)
    except OSError as error:
        raise InvalidSpecError(f"{target} cannot be written: {error.strerror}") from error
    return target


def _is_there(version: Version, paths: OcrSettings) -> bool:
    try:
        find_model(version, "det", paths)
        find_model(version, "rec", paths)
    except EngineUnavailableError:
        return False
    return True


def _paths(engine: str, paths: OcrSettings) -> Iterator[tuple[str, Path]]:
    """Every file with its model's name."""
    match engine:
        case "tesseract":
            folder = find_tessdata(paths.tessdata_dir)
            yield from ((code, data_file(folder, code)) for code in sorted(installed_codes(folder)))
        case "rapidocr":
            packages.require("rapidocr", engine=engine, extra="ocr")
            yield from _in_package("rapidocr", "*.onnx")
        case "easyocr":
            configured = paths.easyocr_models_dir
            if configured is None:
                packages.require("easyocr_en_models", engine=engine, extra="easyocr")
            own = [(path.stem, path) for path in sorted(configured.glob("*.pth"))] if configured else None
            yield from _in_package("easyocr_en_models", "*.pth") if own is None else own
        case _:
            find_model("small", "det", paths)  # its refusal says how to get them
            for version in _PADDLE_VERSIONS:
                if _is_there(version, paths):
                    for part in ("det", "rec"):
                        yield from find_model(version, part, paths).files().items()
            yield from _prepared(paths.cache_dir)


def _in_package(module: str, pattern: str) -> list[tuple[str, Path]]:
    root = packages.package_dir(module)
    return [(path.stem, path) for path in sorted((root / "models").glob(pattern))] if root else []


def _prepared(cache_dir: Path) -> list[tuple[str, Path]]:
    found = sorted((cache_dir / "paddlex-models").glob("*/inference.*"))
    return [(f"{path.parent.name}/{path.name}", path) for path in found]


def _described(engine: str, name: str, path: Path) -> ModelFile:
    digest = file_digest(path)
    origin, state = _origin(path, digest)
    return ModelFile(engine, name, path, path.stat().st_size, digest, origin, state)


def _origin(path: Path, digest: str) -> tuple[str, State]:
    note = path.with_name(path.name + NOTE_SUFFIX)
    if note.is_file():
        return "fetched", _state(note.read_text("ascii", "replace").strip() == digest)
    manifest = path.parent / "digests.json"
    if manifest.is_file():
        return "prepared", _state(_manifest_digest(manifest, path.name) == digest)
    return _of_python_package(path, digest) or _of_debian_package(path) or (f"folder {path.parent}", "Unknown")


def _state(is_same: bool) -> State:
    return "Intact" if is_same else "Damaged"


def _manifest_digest(manifest: Path, name: str) -> str:
    try:
        return str(json.loads(manifest.read_text("utf-8")).get(name, ""))
    except ValueError:
        return ""


def _of_python_package(path: Path, digest: str) -> tuple[str, State] | None:
    """What the RECORD of the package that the file lies in says of it."""
    top = next((one for one in path.parents if one.parent.name in ("site-packages", "dist-packages")), None)
    if top is None:
        return None
    for name in importlib.metadata.packages_distributions().get(top.name, ()):
        distribution = importlib.metadata.distribution(name)
        for entry in distribution.files or ():
            if entry.name == path.name and Path(str(distribution.locate_file(entry))) == path and entry.hash:
                encoded = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()
                return f"package {name} {distribution.version}", _state(entry.hash.value == encoded)
    return None


def _of_debian_package(path: Path) -> tuple[str, State] | None:
    """What dpkg knows of the file. Its digests are MD5: enough against decay, not against an attacker with root."""
    wanted = str(path).lstrip("/")
    for sums in sorted(_DPKG_INFO.glob("tesseract-ocr*.md5sums")):
        for line in sums.read_text("utf-8", "replace").splitlines():
            digest, _, name = line.partition("  ")
            if name == wanted:
                found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                return f"Debian package {sums.stem.partition(':')[0]}", _state(found == digest)
    return None
