"""Where Tesseract's language data lies on this machine, and what is in it.

Layer: `worker.ocr`. The Python wheel brings the engine without data; the data comes from the distribution
(`tesseract-ocr-<language>`) or from a folder of the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pagemill_core.errors import EngineUnavailableError

_SUFFIX = ".traineddata"
OSD = "osd"  # orientation and script detection: data, but no language
_SYSTEM_ROOTS = (
    Path("/usr/share/tesseract-ocr"),
    Path("/usr/share"),
    Path("/usr/local/share"),
    Path("/opt/homebrew/share"),
)


def find_tessdata(configured: Path | None, roots: Sequence[Path] = _SYSTEM_ROOTS) -> Path:
    """The folder that holds *.traineddata: the configured one or its `tessdata`, else the newest of the system's.

    Raises: EngineUnavailableError when there is none, or when the configured one holds no data (another one is not
    taken in its place: the user meant this one).
    """
    if configured is not None:
        for folder in (configured, configured / "tessdata"):
            if installed_codes(folder):
                return folder
        raise EngineUnavailableError(
            f"there is no *{_SUFFIX} file in {configured} or in its folder tessdata",
            advice="set PAGEMILL_OCR_TESSDATA_DIR (or TESSDATA_PREFIX) to the folder that holds them, or unset it",
        )
    for root in roots:
        for folder in (root / "tessdata", *sorted(root.glob("[0-9]*/tessdata"), reverse=True)):
            if installed_codes(folder):
                return folder
    raise EngineUnavailableError(
        "Tesseract's language data is not installed", advice=f"apt-get install {debian_package('eng')}"
    )


def installed_codes(tessdata: Path) -> frozenset[str]:
    """Tesseract's codes of the data files in `tessdata`, `script/…` ones included; empty when it is no folder."""
    files = (*tessdata.glob(f"*{_SUFFIX}"), *tessdata.glob(f"script/*{_SUFFIX}"))
    return frozenset(file.relative_to(tessdata).as_posix().removesuffix(_SUFFIX) for file in files)


def data_file(tessdata: Path, code: str) -> Path:
    """The data file of one code."""
    return tessdata / f"{code}{_SUFFIX}"


def debian_package(code: str) -> str:
    """The Debian and Ubuntu package that holds the data of `code`."""
    return f"tesseract-ocr-{code.lower().replace('/', '-').replace('_', '-')}"
