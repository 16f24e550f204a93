"""Tesseract through tesserocr: the fastest engine for clean documents, words with boxes.

Layer: `worker.ocr`. One API object per process, cleared after every page. Differs from the other engines in that its
regions are words, in that page segmentation gives the order (except for sparse text, which has none of its own), and
in that a page's resolution changes what it reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from pydantic import Field

from pagemill_core.errors import EngineFailed, EngineUnavailableError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr import packages
from pagemill_worker.ocr.engine import Engine, EngineAdapter, EngineSettings, EngineStatus, PageText, Region
from pagemill_worker.ocr.fingerprint import engine_fingerprint
from pagemill_worker.ocr.guard import GuardedEngine, load_boundary
from pagemill_worker.ocr.languages import LANGUAGES, LanguageOffer, resolve_languages
from pagemill_worker.ocr.options import EngineOptions, parse_options
from pagemill_worker.ocr.reading_order import reading_order
from pagemill_worker.ocr.regions import rectangle, word_region
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.tessdata import OSD, data_file, debian_package, find_tessdata, installed_codes

NAME = "tesseract"
_EXTRA = "ocr"
_OEM_LSTM_ONLY = 1  # the older recogniser adapts to earlier pages, so its result would depend on their order
_SPARSE = (11, 12)
_NEEDS_OSD = (1, 12)
# Files that no scanner made claim a screen's 72 or 96; Tesseract's own estimate is better than that.
_MIN_CREDIBLE_DPI = 100
_MAX_CREDIBLE_DPI = 2400
_TSV_WORD_LEVEL = "5"
_TSV_COLUMNS = 12


class TesseractOptions(EngineOptions):
    """Tesseract's options."""

    # 0 and 2 read no text; they are no modes of an OCR engine.
    psm: Literal[1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13] = Field(
        default=3, description="Page segmentation mode: 3 for documents, 12 for comics and scattered text."
    )


class _Api(Protocol):
    def SetImageBytes(  # noqa: N802, PLR0913 - the package's own signature
        self, imagedata: bytes, width: int, height: int, bytes_per_pixel: int, bytes_per_line: int
    ) -> None: ...
    def SetSourceResolution(self, ppi: int) -> None: ...  # noqa: N802
    def Recognize(self, timeout: int = 0) -> bool: ...  # noqa: N802
    def GetTSVText(self, page_number: int) -> str: ...  # noqa: N802
    def Clear(self) -> None: ...  # noqa: N802
    def End(self) -> None: ...  # noqa: N802


@dataclass(frozen=True, slots=True)
class _Word:
    """One row of Tesseract's table. `line` names its line: (block, paragraph, line), counted from 1."""

    text: str
    confidence: float
    box: tuple[float, float, float, float]
    line: tuple[int, int, int]


class TesseractEngine:
    """One API object."""

    def __init__(self, api: _Api, options: TesseractOptions) -> None:
        self._api = api
        self._options = options

    def recognise(self, page: PageImage) -> PageText:
        try:
            words = self._words(page)
        finally:
            self._api.Clear()
        if self._options.psm in _SPARSE or self._options.reading_order == "right-to-left":
            words = _by_reading_order(words, self._options)
        regions = (_region(word, page) for word in words)
        return PageText(regions=tuple(r for r in regions if (r.confidence or 0.0) >= self._options.min_confidence))

    def close(self) -> None:
        self._api.End()

    def _words(self, page: PageImage) -> list[_Word]:
        width, height = page.width_px, page.height_px
        self._api.SetImageBytes(page.pixels.tobytes(), width, height, 3, width * 3)
        if page.dpi is not None and _MIN_CREDIBLE_DPI <= page.dpi <= _MAX_CREDIBLE_DPI:
            self._api.SetSourceResolution(round(page.dpi))
        if not self._api.Recognize():
            raise EngineFailed("tesseract gave up on the page without saying why")
        return list(_parse_tsv(self._api.GetTSVText(0)))


class TesseractAdapter:
    """See the contract in `engine.py`."""

    name = NAME
    recipe_version = 1

    def __init__(self, paths: OcrSettings) -> None:
        self._paths = paths

    def check(self, settings: EngineSettings) -> None:
        options = parse_options(TesseractOptions, settings)
        packages.require("tesserocr", engine=NAME, extra=_EXTRA)
        tessdata = self._tessdata()
        resolve_languages(settings.languages, _offer(tessdata))
        if options.psm in _NEEDS_OSD and OSD not in installed_codes(tessdata):
            raise EngineUnavailableError(
                f"engine.options.psm: mode {options.psm} needs {OSD}.traineddata, which is not in {tessdata}",
                advice=f"apt-get install {debian_package(OSD)}",
            )
        if settings.device == "gpu":
            raise EngineUnavailableError(
                "engine.device: tesseract runs on CPUs only", advice="set engine.device to auto or cpu"
            )

    def fingerprint(self, settings: EngineSettings) -> dict[str, Any]:
        options = parse_options(TesseractOptions, settings)
        tessdata = self._tessdata()
        codes = resolve_languages(settings.languages, _offer(tessdata))
        data = (*codes, OSD) if options.psm in _NEEDS_OSD else codes
        models = {code: data_file(tessdata, code) for code in data}
        return engine_fingerprint(NAME, self.recipe_version, models=models, languages=codes, options=options)

    def load(self, settings: EngineSettings) -> Engine:
        self.check(settings)
        options = parse_options(TesseractOptions, settings)
        tessdata = self._tessdata()
        codes = resolve_languages(settings.languages, _offer(tessdata))
        with load_boundary(NAME):
            package = packages.load("tesserocr", engine=NAME, extra=_EXTRA)
            api = package.PyTessBaseAPI(
                path=f"{tessdata}/",  # without the slash the last part is cut off
                lang="+".join(codes),
                psm=options.psm,
                oem=_OEM_LSTM_ONLY,
                variables={"debug_file": "/dev/null", "tessedit_enable_doc_dict": "0"},
            )
        return GuardedEngine(NAME, TesseractEngine(cast(_Api, api), options))

    def status(self) -> EngineStatus:
        missing = packages.first_fault(lambda: packages.require("tesserocr", engine=NAME, extra=_EXTRA), self._tessdata)
        offer = None if missing else _offer(self._tessdata())
        return EngineStatus(
            name=NAME,
            ready=offer is not None,
            version=packages.version("tesserocr"),
            languages=offer.available() if offer else (),
            models=tuple(sorted(offer.present)) if offer else (),
            devices=("cpu",),
            missing=missing,
        )

    def _tessdata(self) -> Path:
        return find_tessdata(self._paths.tessdata_dir)


def make_adapter(_name: str, paths: OcrSettings) -> EngineAdapter:
    """The adapter, by the name the registry knows it."""
    return TesseractAdapter(paths)


def _offer(tessdata: Path) -> LanguageOffer:
    return LanguageOffer(
        engine=NAME,
        codes={tag: language.tesseract for tag, language in LANGUAGES.items() if language.tesseract is not None},
        present=installed_codes(tessdata) - {OSD},
        advice=lambda code: f"apt-get install {debian_package(code)}",
    )


def _parse_tsv(table: str) -> Iterator[_Word]:
    """The words of Tesseract's table.

    Its columns: level, page, block, paragraph, line, word, left, top, width, height, confidence, text.
    """
    for row in table.splitlines():
        cells = row.split("\t", _TSV_COLUMNS - 1)
        if len(cells) < _TSV_COLUMNS or cells[0] != _TSV_WORD_LEVEL or not cells[11].strip():
            continue
        left, top, width, height = (float(cell) for cell in cells[6:10])
        block, paragraph, line = (int(cell) for cell in cells[2:5])
        yield _Word(
            text=cells[11].strip(),
            confidence=float(cells[10]) / 100,
            box=(left, top, left + width, top + height),
            line=(block, paragraph, line),
        )


def _by_reading_order(words: Sequence[_Word], options: TesseractOptions) -> list[_Word]:
    """Lines in our reading order; words keep Tesseract's order within their line."""
    lines = [list(group) for _, group in itertools.groupby(words, key=lambda word: word.line)]
    boxes = [
        rectangle(
            min(word.box[0] for word in line),
            min(word.box[1] for word in line),
            max(word.box[2] for word in line),
            max(word.box[3] for word in line),
        )
        for line in lines
    ]
    return [word for index in reading_order(boxes, options.reading_order) for word in lines[index]]


def _region(word: _Word, page: PageImage) -> Region:
    block, paragraph, line = word.line
    metadata = {"block": block, "paragraph": paragraph, "line": line}
    return word_region(word.text, word.confidence, word.box, page, metadata)
