"""Every local engine, really run: one suite over all of them, on pages drawn here, whose text is therefore known.

Each engine is loaded once. EasyOCR and PaddleOCR take seconds for it, so pages are small.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pagemill_core.errors import EngineUnavailableError, ImageTooSmall, InvalidSpecError, ItemError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import Engine, EngineAdapter, EngineSettings, PageText
from pagemill_worker.ocr.registry import adapter
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.threads import engine_environment

LINES = (
    "The committee met on Monday and",
    "approved 42 of 57 proposals with a",
    "budget of 1,250 euros in total.",
    "Late reports are returned unread.",
)
BALLOONS = {
    (50, 40): ("WHERE ARE", "YOU GOING?"),
    (400, 60): ("TO THE", "MARKET!"),
    (210, 300): ("WAIT FOR", "ME THERE"),
}


@dataclass(frozen=True)
class Case:
    """An engine under test. `max_cer` is generous: it tells reading from not reading, it is no benchmark."""

    id: str
    name: str
    max_cer: float
    max_comic_cer: float = 0.15
    options: Mapping[str, object] = field(default_factory=dict)

    def settings(self, **changes: object) -> EngineSettings:
        return dataclasses.replace(EngineSettings(self.name, options=dict(self.options)), **changes)  # type: ignore[arg-type]


CASES = [
    Case("rapidocr", "rapidocr", 0.03),
    # A document's page segmentation takes balloons for pictures; mode 12 is for them.
    Case("tesseract", "tesseract", 0.03, max_comic_cer=1.0),
    Case("tesseract-psm12", "tesseract", 0.05, options={"psm": 12}),
    Case("paddleocr-small", "paddleocr", 0.03),
    Case("paddleocr-tiny", "paddleocr", 0.03, options={"model": "tiny"}),
    Case("easyocr", "easyocr", 0.12),
]


@dataclass(frozen=True)
class Loaded:
    case: Case
    adapter: EngineAdapter
    engine: Engine


def draw(size: tuple[int, int], texts: Mapping[tuple[int, int], str], font_px: int) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(font_px)
    for place, text in texts.items():
        pen.text(place, text, fill="black", font=font)
    return picture


def as_page(picture: Image.Image) -> PageImage:
    return PageImage(np.array(picture, dtype=np.uint8))


def document() -> PageImage:
    return as_page(draw((640, 260), {(40, 30 + 50 * row): text for row, text in enumerate(LINES)}, 30))


def comic() -> PageImage:
    picture = draw((640, 420), {}, 26)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(26)
    for (left, top), lines in BALLOONS.items():
        pen.ellipse((left - 40, top - 30, left + 190, top + 95), outline="black", width=3)
        for row, text in enumerate(lines):
            pen.text((left, top + 34 * row), text, fill="black", font=font)
    return as_page(picture)


def blank() -> PageImage:
    return as_page(Image.new("RGB", (320, 240), "white"))


def full_text(result: PageText) -> str:
    return " ".join(region.text for region in result.regions)


def as_bytes(result: PageText) -> bytes:
    return json.dumps(dataclasses.asdict(result), ensure_ascii=False, sort_keys=True).encode()


def character_error_rate(truth: str, read: str) -> float:
    previous = list(range(len(read) + 1))
    for row, wanted in enumerate(truth, 1):
        current = [row]
        for column, got in enumerate(read, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (wanted != got)))
        previous = current
    return previous[-1] / len(truth)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OcrSettings]:
    """The engines' own environment, as the supervisor sets it."""
    settings = OcrSettings(cache_dir=tmp_path_factory.mktemp("ocr-cache"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine_environment(settings).items():
            patch.setenv(name, value)
        yield settings


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.id)
def loaded(request: pytest.FixtureRequest, paths: OcrSettings) -> Iterator[Loaded]:
    case: Case = request.param
    engine_adapter = adapter(case.name, paths)
    engine = engine_adapter.load(case.settings())
    yield Loaded(case, engine_adapter, engine)
    engine.close()


@pytest.fixture(scope="module")
def document_read(loaded: Loaded) -> PageText:
    return loaded.engine.recognise(document())


def test_engine_clean_document_is_read(loaded: Loaded, document_read: PageText) -> None:
    truth = " ".join(LINES)
    assert character_error_rate(truth, full_text(document_read)) <= loaded.case.max_cer
    read_words = set(full_text(document_read).split())
    assert sum(word in read_words for word in truth.split()) >= 0.75 * len(truth.split())


def test_engine_regions_lie_inside_the_page_with_confidence_from_0_to_1(document_read: PageText) -> None:
    page = document()
    for region in document_read.regions:
        assert region.text == region.text.strip() != ""
        assert region.confidence is not None and 0 <= region.confidence <= 1
        assert region.bbox is not None
        x, y, width, height = region.bbox
        assert x >= 0 and y >= 0 and width > 0 and height > 0
        assert x + width <= page.width_px and y + height <= page.height_px
        assert (region.polygon is None) == (region.level == "word")


def test_engine_boxes_lie_on_their_text(document_read: PageText) -> None:
    first, last = document_read.regions[0].bbox, document_read.regions[-1].bbox
    assert first is not None and last is not None
    assert (first[0], first[1]) == pytest.approx((40, 34), abs=12)
    assert last[1] + last[3] == pytest.approx(213, abs=14)


def test_engine_same_page_after_another_gives_identical_bytes(loaded: Loaded, document_read: PageText) -> None:
    loaded.engine.recognise(blank())
    assert as_bytes(loaded.engine.recognise(document())) == as_bytes(document_read)


def test_engine_blank_page_is_a_success_without_regions(loaded: Loaded) -> None:
    assert loaded.engine.recognise(blank()).regions == ()


def test_engine_comic_page_is_read_balloon_by_balloon(loaded: Loaded) -> None:
    text = full_text(loaded.engine.recognise(comic())).upper()
    error_rate = character_error_rate("WHERE ARE YOU GOING? TO THE MARKET! WAIT FOR ME THERE", text)
    assert error_rate <= loaded.case.max_comic_cer


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (7, 7)])
def test_engine_page_of_a_few_pixels_is_too_small(loaded: Loaded, width: int, height: int) -> None:
    with pytest.raises(ImageTooSmall):
        loaded.engine.recognise(PageImage(np.zeros((height, width, 3), np.uint8)))


@pytest.mark.parametrize(("width", "height"), [(8, 8), (8, 500), (2000, 12)])
def test_engine_narrow_page_fails_by_name_or_has_no_text_and_the_next_is_read(
    loaded: Loaded, document_read: PageText, width: int, height: int
) -> None:
    try:
        result = loaded.engine.recognise(as_page(Image.new("RGB", (width, height), "white")))
    except ItemError as error:
        assert error.message
    else:
        assert result.regions == ()
    if (width, height) == (2000, 12):
        assert as_bytes(loaded.engine.recognise(document())) == as_bytes(document_read)


@pytest.mark.parametrize("code", ["en", "eng", "en-US", "EN"])
def test_engine_english_by_any_code_is_the_same_work(loaded: Loaded, code: str) -> None:
    settings = loaded.case.settings(languages=(code,))
    loaded.adapter.check(settings)
    assert loaded.adapter.fingerprint(settings) == loaded.adapter.fingerprint(loaded.case.settings())


def test_engine_fingerprint_is_json_and_names_every_model_file(loaded: Loaded) -> None:
    fingerprint = loaded.adapter.fingerprint(loaded.case.settings(api_key="sk-very-secret"))
    assert "secret" not in json.dumps(fingerprint)
    assert fingerprint["engine"] == loaded.case.name
    assert fingerprint["models"]
    assert all(digest.startswith("sha256:") for digest in fingerprint["models"].values())


def test_engine_unknown_language_is_refused_with_what_is_there(loaded: Loaded) -> None:
    with pytest.raises(EngineUnavailableError, match=r"'klingon' is no language code.*reads here: .*\ben\b"):
        loaded.adapter.check(loaded.case.settings(languages=("klingon",)))
    with pytest.raises(EngineUnavailableError):
        loaded.adapter.load(loaded.case.settings(languages=("klingon",)))


def test_engine_unknown_option_is_refused_with_the_known_ones(loaded: Loaded) -> None:
    settings = loaded.case.settings(options={**loaded.case.options, "speed": "ludicrous"})
    with pytest.raises(InvalidSpecError, match=r"engine\.options\.speed: .*known options: .*minConfidence"):
        loaded.adapter.check(settings)


def test_engine_status_is_ready_and_says_what_it_reads(loaded: Loaded) -> None:
    status = loaded.adapter.status()
    assert (status.name, status.ready, status.missing) == (loaded.case.name, True, "")
    assert "en" in status.languages
    assert "cpu" in status.devices
    assert status.version and status.models


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("rapidocr", "paddleocr")], ids=lambda c: c.id)
def test_engine_gpu_asked_of_a_build_without_one_is_refused(case: Case, paths: OcrSettings) -> None:
    with pytest.raises(EngineUnavailableError, match=r"engine\.device: .*built for CPUs"):
        adapter(case.name, paths).check(case.settings(device="gpu"))


def test_tesseract_gpu_is_refused(paths: OcrSettings) -> None:
    with pytest.raises(EngineUnavailableError, match="runs on CPUs only"):
        adapter("tesseract", paths).check(EngineSettings("tesseract", device="gpu"))


def test_easyocr_gpu_absent_is_refused_by_the_load(paths: OcrSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineUnavailableError, match="torch finds none"):
        adapter("easyocr", paths).load(EngineSettings("easyocr", device="gpu"))


def test_easyocr_language_without_a_model_names_the_file(paths: OcrSettings) -> None:
    with pytest.raises(EngineUnavailableError, match="no data for 'ja'") as caught:
        adapter("easyocr", paths).check(EngineSettings("easyocr", languages=("en", "ja")))
    assert "japanese_g2.pth" in caught.value.advice


def test_easyocr_languages_of_two_scripts_are_refused(tmp_path: Path) -> None:
    for name in ("craft_mlt_25k.pth", "japanese_g2.pth", "korean_g2.pth"):
        (tmp_path / name).touch()
    settings = OcrSettings(easyocr_models_dir=tmp_path)
    with pytest.raises(EngineUnavailableError, match=r"cannot read ja, ko together"):
        adapter("easyocr", settings).check(EngineSettings("easyocr", languages=("ja,ko",)))


def test_easyocr_weights_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    for name in ("craft_mlt_25k.pth", "english_g2.pth"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'exit 9'\ntR.")
    with pytest.raises(EngineUnavailableError, match="easyocr could not load: it raised UnpicklingError"):
        adapter("easyocr", OcrSettings(easyocr_models_dir=tmp_path)).load(EngineSettings("easyocr"))


@pytest.mark.parametrize("language", ["ja", "jpn", "japan"])
def test_paddleocr_tiny_refuses_japanese_that_small_reads(language: str, paths: OcrSettings) -> None:
    engine_adapter = adapter("paddleocr", paths)
    engine_adapter.check(EngineSettings("paddleocr", languages=(language,)))
    with pytest.raises(EngineUnavailableError, match=r"paddleocr \(tiny\) cannot read 'ja'"):
        engine_adapter.check(EngineSettings("paddleocr", languages=(language,), options={"model": "tiny"}))


@pytest.mark.parametrize("name", ["rapidocr", "paddleocr"])
def test_engine_of_latin_and_chinese_models_refuses_korean(name: str, paths: OcrSettings) -> None:
    with pytest.raises(EngineUnavailableError, match="cannot read 'ko'"):
        adapter(name, paths).check(EngineSettings(name, languages=("ko",)))
