"""The digest of a model: one number for all files that decide its rows.

Layer: `worker.embed`. Files that no loader reads (a README, another framework's weights) do not count, so that a
folder fetched with fewer of them is the same model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pagemill_core.errors import EngineUnavailableError, IntegrityError
from pagemill_worker.ocr.fingerprint import file_digest

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
COUNTED = frozenset({*WEIGHTS, ".json", ".txt", ".model", ".py", ".jinja", ".yaml", ".tiktoken"})
NOTE = "pagemill-model.json"


def model_files(path: Path) -> list[Path]:
    """The files of a model that count, sorted by their path; `path` is its folder, or its only file.

    Raises: EngineUnavailableError when there is nothing.
    """
    if path.is_file():
        return [path]
    found = sorted(_counted(path), key=lambda file: file.relative_to(path).as_posix())
    if not found:
        raise EngineUnavailableError(f"{path} holds no model", advice="name the folder that holds the model's config")
    return found


def _counted(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if file.suffix in COUNTED and file.name != NOTE and not hidden and file.is_file():
            yield file


def file_digests(path: Path) -> dict[str, str]:
    """SHA-256 of each counted file, by its path below the model's folder."""
    root = path.parent if path.is_file() else path
    return {file.relative_to(root).as_posix(): file_digest(file) for file in model_files(path)}


def digest_of(digests: dict[str, str]) -> str:
    """`sha256:` and the digest over names and digests, in the order of the names.

    One file's digest is that file's own, as every other tool prints it.
    """
    if len(digests) == 1:
        return f"sha256:{next(iter(digests.values()))}"
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def check_digest(path: Path, want: str | None) -> str:
    """The model's digest. Raises: IntegrityError when it is not `want`."""
    digest = digest_of(file_digests(path))
    if want is not None and digest != want.lower():
        raise IntegrityError(
            f"the model in {path} has the digest {digest}, not {want.lower()}",
            advice="fetch it again, or name the digest of the files you mean; `pagemill models verify` prints it",
        )
    return digest
