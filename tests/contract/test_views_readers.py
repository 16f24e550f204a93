"""Views as other people's programs read them: hocr-spec, alto-tools, the ALTO schema and poppler."""

from __future__ import annotations

import datetime as dt
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from PIL import Image

from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.alto import render_alto
from pagemill_worker.views.hocr import render_hocr
from pagemill_worker.views.pdf import render_pdf
from pagemill_worker.views.row import OcrRow

SCHEMA = Path(__file__).parent.parent / "data" / "alto-4.4-used.xsd"
WIDTH, HEIGHT, DPI = 800, 1000, 144.0
HOSTILE = 'x </span> <script>alert(1)</script> & " \x00 \ud800 \u202e 日本 ]]>'


def make_row(*regions: Region, **changes: Any) -> OcrRow:
    row: dict[str, Any] = {
        "id": "book/page 1",
        "source_uri": 's3://library/a "b"; c.png',
        "status": "succeeded",
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "finished_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "regions": regions,
        "width_px": WIDTH,
        "height_px": HEIGHT,
        "dpi": DPI,
        "languages": ("en",),
    }
    return OcrRow(**{**row, **changes})


def word(text: str, x: float, y: float) -> Region:
    return Region(text, 0.9, (x, y, 60, 20), level="word")


ROWS = {
    "empty": make_row(),
    "lines": make_row(
        Region("Hello world", 0.98, (10, 20, 400, 40), ((10, 20), (410, 25), (409, 60), (9, 55))),
        Region("日本語の文章", 0.7, (700, 100, 40, 300)),
    ),
    "words": make_row(word("one", 10, 10), word("two", 78, 12), word("three", 10, 50)),
    "blocks": make_row(
        Region("two\nlines", 0.5, (10, 20, 400, 80), level="block"), Region("after", 1.0, (10, 200, 90, 30))
    ),
    "placeless": make_row(
        Region("a b"), Region("c", 0.9), confidence_is_default=True, languages=("chi_sim",), dpi=None
    ),
    "hostile": make_row(Region(HOSTILE, 2.0, (-5, -5, 9999, 40)), id=HOSTILE, source_uri=HOSTILE, page=3),
}


@pytest.fixture(params=ROWS.values(), ids=ROWS.keys())
def row(request: pytest.FixtureRequest) -> OcrRow:
    found: OcrRow = request.param
    return found


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_hocr_of_any_page_passes_the_hocr_validator(row: OcrRow, tmp_path: Path) -> None:
    path = tmp_path / "page.hocr"
    path.write_bytes(render_hocr(row))

    report = run(sys.executable, "-W", "ignore", "-m", "hocr_spec.cli", "--format", "text", str(path))

    assert "Document is valid" in report
    assert not re.search("ERROR|FATAL|WARN", report)


def test_alto_of_any_page_is_valid(row: OcrRow) -> None:
    schema = etree.XMLSchema(etree.parse(SCHEMA))

    schema.assertValid(etree.fromstring(render_alto(row)))


def test_alto_read_by_alto_tools_gives_lines_and_confidence(tmp_path: Path) -> None:
    path = tmp_path / "page.xml"
    path.write_bytes(render_alto(ROWS["words"]))

    text = run(sys.executable, "-m", "alto_tools.alto_tools", "-t", str(path))
    confidence = run(sys.executable, "-m", "alto_tools.alto_tools", "-c", str(path))

    assert [line.strip() for line in text.strip().splitlines()] == ["one two", "three"]
    assert "90" in confidence


def test_pdf_read_by_poppler_has_every_word_in_its_box(tmp_path: Path) -> None:
    row = make_row(
        *ROWS["words"].regions, Region("日本語の文章", 0.7, (700, 100, 40, 300)), Region("שלום", 0.9, (10, 300, 90, 30))
    )
    picture = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(picture, "JPEG")
    path = tmp_path / "page.pdf"
    path.write_bytes(render_pdf(row, picture.getvalue()))

    listing = run("pdftotext", "-bbox", str(path), "-")
    number = r'"([\d.]+)"'
    pattern = f"<word xMin={number} yMin={number} xMax={number} yMax={number}>(.*?)</word>"
    found = {text: tuple(float(side) * DPI / 72 for side in box) for *box, text in re.findall(pattern, listing)}

    assert found["one"] == pytest.approx((10, 10, 70, 30), abs=0.5)
    assert found["two"] == pytest.approx((78, 12, 138, 32), abs=0.5)
    assert found["three"] == pytest.approx((10, 50, 70, 70), abs=0.5)
    assert found["日本語の文章"] == pytest.approx((700, 100, 740, 400), abs=0.5)
    assert found["שלום"[::-1]] == pytest.approx((10, 300, 100, 330), abs=0.5)
    plain = run("pdftotext", str(path), "-")
    assert "one two" in plain
    assert "שלום" in plain


def test_pdf_opened_by_poppler_has_no_complaints_and_an_embedded_font(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT), "white").save(picture, "JPEG")
    path = tmp_path / "page.pdf"
    path.write_bytes(render_pdf(ROWS["hostile"], picture.getvalue()))

    done = subprocess.run(["pdffonts", str(path)], capture_output=True, text=True, check=True, timeout=60)

    assert done.stderr == ""
    assert re.search(r"CID TrueType\s+Identity-H\s+yes", done.stdout)
