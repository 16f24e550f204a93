"""The guide to results says what the code does."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.ocr_json import render_ocr_json
from pagemill_worker.views.registry import VIEW_FORMATS
from pagemill_worker.views.report import MAX_PAGES
from pagemill_worker.views.report_page import LOW_CONFIDENCE
from pagemill_worker.views.row import OcrRow

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "results.md").read_text("utf-8")


def test_guide_names_every_format_with_its_suffix() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", GUIDE, re.MULTILINE))

    assert listed == {name: view.suffix for name, view in VIEW_FORMATS.items()}


def test_guide_example_is_what_a_page_renders_to() -> None:
    where = ((185.0, 132.0), (443.0, 132.0), (443.0, 174.0), (185.0, 174.0))
    row = OcrRow(
        id="comics/issue 1/page_001",
        source_uri="s3://library/pages/comics/issue 1/page_001.png",
        status="succeeded",
        engine_name="rapidocr",
        engine_version="3.10.0",
        finished_at=dt.datetime(2026, 11, 22, 9, 0, 0, 250_000, tzinfo=dt.UTC),
        regions=(
            Region("WHERE ARE WE?", 0.9953, (185.0, 132.0, 258.0, 42.0), where),
            Region("どこだ？", 0.9712, (1020.0, 210.0, 44.0, 180.0)),
        ),
        width_px=1200,
        height_px=1600,
        dpi=150.0,
        languages=("en", "ja"),
        seconds={"fetch": 0.0041, "decode": 0.0312, "recognise": 0.8127},
    )

    (example,) = re.findall(r"<!-- example: json -->\n```json\n(.*?\n)```", GUIDE, re.DOTALL)

    assert example == render_ocr_json(row).decode()


def test_guide_names_the_limits_of_the_report() -> None:
    assert f"first {MAX_PAGES} pages" in GUIDE
    assert f"(under {LOW_CONFIDENCE})" in GUIDE
