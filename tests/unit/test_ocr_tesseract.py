"""Tesseract's adapter around a stub of its API: data discovery, table, order, resolution, cleaning up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pagemill_core.errors import EngineFailed, EngineUnavailableError
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr.engine import EngineSettings
from pagemill_worker.ocr.settings import OcrSettings
from pagemill_worker.ocr.tessdata import debian_package, find_tessdata, installed_codes
from pagemill_worker.ocr.tesseract import TesseractAdapter, TesseractEngine, TesseractOptions

# Two blocks whose words a sparse page returns in no useful order.
TABLE = "\n".join(
    [
        "1\t1\t0\t0\t0\t0\t0\t0\t400\t300\t-1\t",
        "5\t1\t1\t1\t1\t1\t10\t200\t80\t20\t91.5\tlower",
        "5\t1\t1\t1\t1\t2\t100\t200\t60\t20\t-1\t ",
        "5\t1\t1\t1\t1\t3\t100\t200\t60\t20\t42\tline",
        "5\t1\t2\t1\t1\t1\t10\t40\t80\t20\t96\tupper",
    ]
)


class StubApi:
    """Answers with `TABLE` and records the calls."""

    def __init__(self, *, recognised: bool = True) -> None:
        self.calls: list[str] = []
        self._recognised = recognised

    def SetImageBytes(  # noqa: N802
        self, imagedata: bytes, width: int, height: int, bytes_per_pixel: int, bytes_per_line: int
    ) -> None:
        assert len(imagedata) == height * bytes_per_line == height * width * bytes_per_pixel
        self.calls.append("image")

    def SetSourceResolution(self, ppi: int) -> None:  # noqa: N802
        self.calls.append(f"dpi={ppi}")

    def Recognize(self, timeout: int = 0) -> bool:  # noqa: N802
        self.calls.append("recognise")
        return self._recognised

    def GetTSVText(self, page_number: int) -> str:  # noqa: N802
        return TABLE

    def Clear(self) -> None:  # noqa: N802
        self.calls.append("clear")

    def End(self) -> None:  # noqa: N802
        self.calls.append("end")


def make_page(dpi: float | None = None) -> PageImage:
    return PageImage(np.zeros((300, 400, 3), np.uint8), dpi=dpi)


def make_tessdata(folder: Path, *codes: str) -> Path:
    for code in codes:
        file = folder / f"{code}.traineddata"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(code.encode())
    return folder


def make_options(**options: object) -> TesseractOptions:
    return TesseractOptions.model_validate(options)


def test_tesseract_table_gives_words_with_boxes_and_confidence_from_0_to_1() -> None:
    regions = TesseractEngine(StubApi(), make_options()).recognise(make_page()).regions
    assert [(region.text, region.confidence, region.bbox) for region in regions] == [
        ("lower", 0.915, (10.0, 200.0, 80.0, 20.0)),
        ("line", 0.42, (100.0, 200.0, 60.0, 20.0)),
        ("upper", 0.96, (10.0, 40.0, 80.0, 20.0)),
    ]
    assert dict(regions[2].metadata) == {"block": 2, "paragraph": 1, "line": 1}


def test_tesseract_sparse_text_is_put_into_reading_order() -> None:
    regions = TesseractEngine(StubApi(), make_options(psm=12)).recognise(make_page()).regions
    assert [region.text for region in regions] == ["upper", "lower", "line"]


def test_tesseract_doubtful_words_are_left_out_on_request() -> None:
    regions = TesseractEngine(StubApi(), make_options(minConfidence=0.9)).recognise(make_page()).regions
    assert [region.text for region in regions] == ["lower", "upper"]


@pytest.mark.parametrize(
    ("dpi", "want_calls"),
    [
        (None, ["image", "recognise", "clear"]),
        (72.0, ["image", "recognise", "clear"]),
        (299.99, ["image", "dpi=300", "recognise", "clear"]),
        (1e6, ["image", "recognise", "clear"]),
    ],
)
def test_tesseract_only_a_credible_resolution_is_handed_on(dpi: float | None, want_calls: list[str]) -> None:
    api = StubApi()
    TesseractEngine(api, make_options()).recognise(make_page(dpi))
    assert api.calls == want_calls


def test_tesseract_giving_up_fails_the_page_and_clears() -> None:
    api = StubApi(recognised=False)
    with pytest.raises(EngineFailed):
        TesseractEngine(api, make_options()).recognise(make_page())
    assert api.calls[-1] == "clear"


def test_tesseract_close_ends_the_api() -> None:
    api = StubApi()
    TesseractEngine(api, make_options()).close()
    assert api.calls == ["end"]


def test_find_tessdata_configured_folder_or_its_tessdata_is_taken(tmp_path: Path) -> None:
    below = make_tessdata(tmp_path / "share" / "tessdata", "eng")
    assert find_tessdata(tmp_path / "share") == below
    assert find_tessdata(below) == below


def test_find_tessdata_configured_folder_without_data_is_refused_not_replaced(tmp_path: Path) -> None:
    make_tessdata(tmp_path / "system" / "tessdata", "eng")
    with pytest.raises(EngineUnavailableError, match=r"no \*\.traineddata file in .*empty"):
        find_tessdata(tmp_path / "empty", roots=[tmp_path / "system"])


def test_find_tessdata_newest_of_the_system_is_taken(tmp_path: Path) -> None:
    make_tessdata(tmp_path / "4.00" / "tessdata", "eng")
    newest = make_tessdata(tmp_path / "5" / "tessdata", "eng")
    assert find_tessdata(None, roots=[tmp_path]) == newest


def test_find_tessdata_nothing_installed_says_which_package(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        find_tessdata(None, roots=[tmp_path])
    assert caught.value.advice == "apt-get install tesseract-ocr-eng"


def test_installed_codes_scripts_are_named_with_their_folder(tmp_path: Path) -> None:
    assert installed_codes(make_tessdata(tmp_path, "eng", "script/Latin")) == {"eng", "script/Latin"}


@pytest.mark.parametrize(
    ("code", "want_package"),
    [
        ("fra", "tesseract-ocr-fra"),
        ("chi_sim", "tesseract-ocr-chi-sim"),
        ("script/Latin", "tesseract-ocr-script-latin"),
    ],
)
def test_debian_package_is_named_as_debian_does(code: str, want_package: str) -> None:
    assert debian_package(code) == want_package


def make_adapter(tessdata: Path) -> TesseractAdapter:
    return TesseractAdapter(OcrSettings(tessdata_dir=tessdata))


def test_tesseract_language_without_data_names_the_exact_package(tmp_path: Path) -> None:
    adapter = make_adapter(make_tessdata(tmp_path, "eng"))
    with pytest.raises(EngineUnavailableError, match="tesseract reads here: en$") as caught:
        adapter.check(EngineSettings("tesseract", languages=("zh-Hans",)))
    assert caught.value.advice == "apt-get install tesseract-ocr-chi-sim"


def test_tesseract_sparse_mode_with_orientation_needs_its_data(tmp_path: Path) -> None:
    adapter = make_adapter(make_tessdata(tmp_path, "eng"))
    with pytest.raises(EngineUnavailableError, match=r"mode 12 needs osd\.traineddata") as caught:
        adapter.check(EngineSettings("tesseract", options={"psm": 12}))
    assert caught.value.advice == "apt-get install tesseract-ocr-osd"
    make_tessdata(tmp_path, "osd")
    adapter.check(EngineSettings("tesseract", options={"psm": 12}))


def test_tesseract_orientation_data_is_no_language(tmp_path: Path) -> None:
    adapter = make_adapter(make_tessdata(tmp_path, "eng", "osd"))
    with pytest.raises(EngineUnavailableError, match="no language code"):
        adapter.check(EngineSettings("tesseract", languages=("osd",)))


def test_tesseract_fingerprint_covers_each_data_file_and_keeps_the_languages_order(tmp_path: Path) -> None:
    adapter = make_adapter(make_tessdata(tmp_path, "eng", "fra", "osd"))
    first = adapter.fingerprint(EngineSettings("tesseract", languages=("fr,en",), options={"psm": 12}))
    assert (first["languages"], sorted(first["models"])) == (["fra", "eng"], ["eng", "fra", "osd"])
    assert first != adapter.fingerprint(EngineSettings("tesseract", languages=("en,fr",), options={"psm": 12}))


def test_tesseract_status_without_data_says_what_to_install(tmp_path: Path) -> None:
    status = make_adapter(tmp_path / "none").status()
    assert not status.ready
    assert "PAGEMILL_OCR_TESSDATA_DIR" in status.missing
