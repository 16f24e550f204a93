"""The HTML report as a file: counts, limits, escaping, its policy. What a browser makes of it is tested in contract."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from PIL import Image

from pagemill_worker.items import ItemFailure
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.characters import legal_text
from pagemill_worker.views.report import MAX_FAILURES, write_report
from pagemill_worker.views.report_page import MAX_REGIONS, ReportPage, anchor
from pagemill_worker.views.row import OcrRow
from pagemill_worker.views.run import Cost, Counts, Link, RunInfo

FINISHED_AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def make_page(*regions: Region, **changes: Any) -> ReportPage:
    row: dict[str, Any] = {
        "id": "page_001",
        "source_uri": "s3://library/page_001.png",
        "status": "succeeded",
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "finished_at": FINISHED_AT,
        "regions": regions,
        "width_px": 800,
        "height_px": 1000,
    }
    return ReportPage(OcrRow(**{**row, **changes}))


def make_failed(item_id: str, error_class: str = "ImageTruncated", message: str = "ends early") -> ReportPage:
    return make_page(
        id=item_id, status="failed", failure=ItemFailure(error_class, message), width_px=None, height_px=None
    )


def make_run(succeeded: int, failed: int = 0, **changes: Any) -> RunInfo:
    run: dict[str, Any] = {
        "name": "comics",
        "run": "00000001-abcdef01",
        "source_uri": "s3://library/manifest.csv",
        "output_uri": "s3://library/out",
        "prefix": "ocr_results",
        "formats": ("json",),
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "languages": ("en",),
        "backend": "local",
        "workers": 2,
        "counts": Counts(total=succeeded + failed, succeeded=succeeded, failed=failed),
        "started_at": FINISHED_AT,
        "finished_at": FINISHED_AT,
        "seconds": 10.0,
        "failures_by_class": {"ImageTruncated": failed} if failed else {},
    }
    return RunInfo(**{**run, **changes})


def report_of(run: RunInfo, pages: Iterable[ReportPage], **options: Any) -> Any:
    out = io.BytesIO()
    write_report(out, run, pages, **options)
    return html.document_fromstring(out.getvalue().decode())


def select(root: Any, selector: str) -> list[Any]:
    """Elements by `tag`, `.class`, `#id`, `[attribute]` and white space for "inside of"."""
    path = ""
    for step in selector.split():
        match = re.fullmatch(r"(\w*)(?:\.(\w+))?(?:#(\w+))?(?:\[([\w-]+)\])?", step)
        assert match is not None, step
        tag, class_name, element_id, attribute = match.groups()
        path += f"//{tag or '*'}"
        path += f"[contains(concat(' ', @class, ' '), ' {class_name} ')]" if class_name else ""
        path += f"[@id='{element_id}']" if element_id else ""
        path += f"[@{attribute}]" if attribute else ""
    found: list[Any] = root.xpath(path)
    return found


def text_at(root: Any, selector: str) -> list[str]:
    return [" ".join(element.text_content().split()) for element in select(root, selector)]


def test_report_head_has_the_counts_rate_time_and_cost() -> None:
    cost = Cost(spent=Decimal("1234.50"), currency="USD", formula="a < b")

    root = report_of(make_run(1200, 34, seconds=617.0, cost=cost), [])

    assert dict(zip(text_at(root, ".tile dt"), text_at(root, ".tile dd"), strict=True)) == {
        "Pages read": "1,200 of 1,234",
        "Failed": "34",
        "Rate": "2 pages/s",
        "Time": "10 min 17 s 2 workers",
        "Cost": "1,234.50 USD",
    }
    assert [tile.get("title") for tile in select(root, ".tile[title]")] == ["a < b"]


@pytest.mark.parametrize(
    ("run", "want"),
    [
        (make_run(2), "Complete"),
        (make_run(1, 1), "Complete, 1 failed"),
        (make_run(1, counts=Counts(total=9, succeeded=1, failed=0)), "Stopped: 8 to do"),
    ],
    ids=["all-well", "failures", "stopped"],
)
def test_report_head_says_how_the_run_ended(run: RunInfo, want: str) -> None:
    assert text_at(report_of(run, []), ".badge") == [want]


@pytest.mark.parametrize(
    ("seconds", "want"), [(0.25, "0.2 s"), (59.7, "1 min 0 s"), (3599.0, "59 min 59 s"), (90_061.0, "25 h 1 min")]
)
def test_report_time_is_told_in_fitting_units(seconds: float, want: str) -> None:
    root = report_of(make_run(1, seconds=seconds), [])
    tiles = dict(zip(text_at(root, ".tile dt"), text_at(root, ".tile dd"), strict=True))

    assert tiles["Time"] == f"{want} 2 workers"


def test_report_shows_at_most_so_many_pages_and_reads_no_further() -> None:
    read: list[str] = []

    def pages() -> Iterator[ReportPage]:
        for number in range(1000):
            read.append(str(number))
            yield make_page(Region("a"), id=f"page {number}")

    root = report_of(make_run(1000), pages(), max_pages=3)

    assert [card.get("data-name") for card in select(root, ".card")] == ["page 0", "page 1", "page 2"]
    assert len(read) == 3
    assert text_at(root, "footer")[0].startswith("Shown: 3 of 1,000 pages")


def test_report_lists_failures_wherever_they_stand_and_counts_the_rest() -> None:
    pages = [make_page(id="good"), *(make_failed(f"bad {number}") for number in range(MAX_FAILURES + 5))]

    root = report_of(make_run(1, MAX_FAILURES + 5), pages)

    assert len(select(root, "#failures tbody tr")) == MAX_FAILURES
    assert text_at(root, "#failures .empty") == ["5 more are in the dataset and in the summary."]
    assert text_at(root, ".classes li") == [f"ImageTruncated {MAX_FAILURES + 5}"]


def test_report_of_a_run_without_failures_has_no_table_of_them() -> None:
    root = report_of(make_run(1), [make_page()])

    assert select(root, "#failures") == []
    assert [button.get("data-filter") for button in select(root, "[data-filter]")] == ["all", "low", "empty"]


@pytest.mark.parametrize(
    ("regions", "want"),
    [
        ((), "empty"),
        ((Region("  "),), "empty"),
        ((Region("a", 0.95),), "ok"),
        ((Region("a", 0.5),), "low"),
        ((Region("a long and certain text", 0.95), Region("?", 0.1)), "ok"),
        ((Region("a"),), "ok"),
        ((Region("a", 0.5, metadata={"confidence_is_default": True}),), "ok"),
    ],
    ids=["none", "blank", "good", "low", "by-length", "unknown", "stand-in"],
)
def test_report_page_state_follows_its_text_and_confidence(regions: tuple[Region, ...], want: str) -> None:
    assert make_page(*regions).state == want


def test_report_of_a_page_of_very_many_regions_says_what_it_leaves_out() -> None:
    page = make_page(*(Region("a", bbox=(1, 1, 2, 2)) for _ in range(MAX_REGIONS + 7)))

    root = report_of(make_run(1), [page])

    assert len(select(root, ".texts li")) == len(select(root, "rect")) == MAX_REGIONS
    assert text_at(root, ".record .empty") == ["7 further regions are not shown here."]


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters(), min_size=1))
def test_report_of_any_text_shows_it_and_stays_whole(text: str, name: str) -> None:
    pages = [make_page(Region(f"<{text}>"), id=name, source_uri=text), make_failed(name, message=text)]
    out = io.BytesIO()
    write_report(out, make_run(1, 1, name=name, source_uri=text), pages)
    root = html.document_fromstring(out.getvalue().decode())

    (shown,) = select(root, ".texts li span")

    assert shown.text_content() == legal_text(f"<{text}>")
    assert shown.getchildren() == []
    assert select(root, ".card")[0].get("data-name") == legal_text(name)
    assert len(select(root, "script")) == 1
    assert len(select(root, "#failures tbody td")) == 4


def test_report_policy_names_its_own_script_and_nothing_else() -> None:
    root = report_of(make_run(1), [make_page()])
    (script,) = select(root, "script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()

    (policy,) = [meta.get("content") for meta in select(root, "meta[http-equiv]")]

    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")


def test_report_is_the_same_bytes_each_time() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for out in (first, second):
        write_report(out, make_run(1), [make_page(Region("a", 0.5, (1, 2, 3, 4)))])

    assert first.getvalue() == second.getvalue()


def test_report_picture_is_embedded_with_its_own_type() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 10)).save(out, "WEBP")
    page = ReportPage(make_page().row, out.getvalue())

    (image,) = select(report_of(make_run(1), [page]), "img")

    assert image.get("src") == f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def test_report_picture_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="neither JPEG"):
        report_of(make_run(1), [ReportPage(make_page().row, b"<svg onload=alert(1)>")])


@pytest.mark.parametrize(
    ("href", "want"),
    [
        ("../ocr_results/nº 1 #2/a?b_ocr.json", '<a href="../ocr_results/n%C2%BA%201%20%232/a%3Fb_ocr.json">x</a>'),
        ("javascript:alert(1)", '<a href="./javascript%3Aalert%281%29">x</a>'),
        ("javascript://%0aalert(1)", "<span>x: javascript://%0aalert(1)</span>"),
        ("//elsewhere/a", "<span>x: //elsewhere/a</span>"),
        ("s3://library/out", "<span>x: s3://library/out</span>"),
        ('https://h/?a="<b>', '<a href="https://h/?a=&quot;&lt;b&gt;" rel="noreferrer">x</a>'),
        ("/out/a b.json", '<a href="/out/a%20b.json">x</a>'),
    ],
    ids=["key", "script", "script-with-slashes", "other-host", "s3", "https", "path"],
)
def test_report_link_leads_only_where_a_browser_may_go(href: str, want: str) -> None:
    assert anchor(Link("x", href)) == want
