"""The HTML report in a real, headless Chromium, opened by its path: geometry, filters, hostile text, both schemes."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from pagemill_worker.images.page import PageImage
from pagemill_worker.images.thumbnail import thumbnail_jpeg
from pagemill_worker.items import ItemFailure
from pagemill_worker.ocr.engine import Region
from pagemill_worker.views.report import write_report
from pagemill_worker.views.report_page import ReportPage
from pagemill_worker.views.row import OcrRow
from pagemill_worker.views.run import Counts, Link, RunInfo

FINISHED_AT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
WIDTH, HEIGHT = 800, 1000
BOX = (100.0, 200.0, 300.0, 50.0)
SLANTED = ((100.0, 640.0), (500.0, 600.0), (505.0, 650.0), (105.0, 690.0))
HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script></style></title><img src=x onerror=\"document.title='owned'\">",
    "& &amp; &lt;b&gt; \"'",
    "\u202egnp.exe \u2067right to left",
    "null \x00 bell \x07 half \ud800",
    "W" * 10_000,
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run")


@dataclass
class Visit:
    """An open report, with everything the browser complained about or asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def one(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def shown(self) -> list[str]:
        names: list[str] = self.page.eval_on_selector_all(
            ".card", "cards => cards.filter(card => card.offsetParent).map(card => card.dataset.name)"
        )
        return names


def make_row(item_id: str, *regions: Region, **changes: Any) -> OcrRow:
    row: dict[str, Any] = {
        "id": item_id,
        "source_uri": f"s3://library/{item_id}.png",
        "status": "succeeded",
        "engine_name": "rapidocr",
        "engine_version": "3.10.0",
        "finished_at": FINISHED_AT,
        "regions": regions,
        "width_px": WIDTH,
        "height_px": HEIGHT,
    }
    return OcrRow(**{**row, **changes})


def make_picture(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """White, with a red block exactly where BOX is."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    x, y, w, h = (int(side) for side in BOX)
    pixels[y : y + h, x : x + w] = (255, 0, 0)
    return thumbnail_jpeg(PageImage(pixels), 500)


def make_pages() -> list[ReportPage]:
    failure = ItemFailure("ImageTruncated", HOSTILE[1])
    wide = make_row("wide", Region("wide", 0.95, (1000, 20, 500, 40)), width_px=3000, height_px=300)
    return [
        ReportPage(
            make_row("good", Region("first", 0.95, BOX), Region("slanted", 0.8, (100, 600, 405, 90), SLANTED)),
            make_picture(),
            (Link("JSON", "../ocr_results/good_ocr.json"),),
        ),
        ReportPage(make_row("low", Region("doubtful words", 0.3, BOX)), make_picture()),
        ReportPage(make_row("empty"), make_picture()),
        ReportPage(make_row(HOSTILE[0], *(Region(text, 0.95, BOX) for text in HOSTILE)), make_picture()),
        ReportPage(make_row("bad", status="failed", failure=failure, width_px=None, height_px=None)),
        ReportPage(wide, make_picture(3000, 300)),
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    run = RunInfo(
        name="comics <b>",
        run="00000001-abcdef01",
        source_uri="s3://library/manifest.csv",
        output_uri="s3://library/out",
        prefix="ocr_results",
        formats=("json",),
        engine_name="rapidocr",
        engine_version="3.10.0",
        languages=("en",),
        backend="local",
        workers=2,
        counts=Counts(total=6, succeeded=5, failed=1),
        started_at=FINISHED_AT,
        finished_at=FINISHED_AT,
        seconds=3.0,
        failures_by_class={"ImageTruncated": 1},
    )
    with path.open("wb") as out:
        write_report(out, run, make_pages())
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path is not None, f"install one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        # Without its own sandbox, because test machines are often containers that allow none; it opens our file only.
        opened = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS), chromium_sandbox=False)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> dict[str, BrowserContext]:
    """Contexts by their options: making one takes longer than most tests."""
    return {}


@pytest.fixture
def visit(
    browser: Browser, contexts: dict[str, BrowserContext], report: Path, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    """The report, opened; options of the browser context come by indirect parameters."""
    options = {"viewport": {"width": 1400, "height": 1000}, **getattr(request, "param", {})}
    if str(options) not in contexts:
        contexts[str(options)] = browser.new_context(**options)
    visit = Visit(contexts[str(options)].new_page())
    visit.page.on("console", lambda message: visit.complaints.append(message.text))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("requestfailed", lambda failed: visit.complaints.append(failed.url[:100]))
    visit.page.on("request", lambda asked: visit.requests.append(asked.url))
    visit.page.goto(report.as_uri())
    yield visit
    visit.page.close()


def sides(locator: Locator) -> tuple[float, float, float, float]:
    box = locator.bounding_box()
    assert box is not None
    return box["x"], box["y"], box["width"], box["height"]


def outline(locator: Locator) -> list[float]:
    """Left, top, width and height of a drawn shape on the screen, the width of its line left out."""
    found: list[float] = locator.evaluate(
        """shape => {
            const {x, y, width, height} = shape.getBBox(), to = shape.getScreenCTM();
            const corner = new DOMPoint(x, y).matrixTransform(to);
            return [corner.x, corner.y, width * to.a, height * to.d];
        }"""
    )
    return found


def expected(frame: tuple[float, float, float, float], box: tuple[float, ...]) -> tuple[float, ...]:
    """Where `box` of a WIDTH x HEIGHT page must be on a screen that shows the page in `frame`."""
    x, y, width, height = frame
    across, down = width / WIDTH, height / HEIGHT
    return x + box[0] * across, y + box[1] * down, box[2] * across, box[3] * down


def contrast(page: Page, selector: str) -> float:
    """The WCAG contrast of an element's text with the nearest ground that is painted."""
    ratio: float = page.eval_on_selector(
        selector,
        """element => {
            const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
            const paint = (color) => { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); };
            const level = () => {
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                return .2126 * r + .7152 * g + .0722 * b;
            };
            const grounds = [];
            for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
            grounds.forEach(paint);
            const ground = level();
            paint(getComputedStyle(element).color);
            const [low, high] = [ground, level()].sort((a, b) => a - b);
            return (high + .05) / (low + .05);
        }""",
    )
    return ratio


def test_report_opens_without_a_complaint_or_a_request(visit: Visit) -> None:
    for card in visit.page.locator(".thumb").all():
        card.click()

    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in visit.requests if url.startswith("file:")]) == 1
    loaded = visit.page.eval_on_selector_all("img", "all => all.every(image => image.complete && image.naturalWidth)")
    assert loaded


def test_report_forbids_requests_even_to_its_own_script(visit: Visit) -> None:
    outcome = visit.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)")

    assert outcome == "TypeError"
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)
    assert [url for url in visit.requests if url.startswith("http")] == []


@pytest.mark.parametrize("pane", [".stage", ".card[data-name=good]"], ids=["page", "thumbnail"])
def test_report_boxes_lie_where_the_picture_has_them(visit: Visit, pane: str) -> None:
    frame = sides(visit.one(f"{pane} img"))
    rectangle = visit.one(f"{pane} rect[data-region='0']")
    polygon = visit.one(f"{pane} polygon[data-region='1']")

    assert frame[2] / frame[3] == pytest.approx(WIDTH / HEIGHT, rel=0.02)
    assert sides(visit.one(f"{pane} svg")) == pytest.approx(frame, abs=0.5)
    assert outline(rectangle) == pytest.approx(expected(frame, BOX), abs=0.5)
    assert outline(polygon) == pytest.approx(expected(frame, (100, 600, 405, 90)), abs=0.5)
    assert sides(rectangle) == pytest.approx(expected(frame, BOX), abs=1.5)


def test_report_boxes_cover_the_pixels_they_name(visit: Visit) -> None:
    x, y, width, height = sides(visit.one(".stage rect"))

    inside = visit.page.screenshot(clip={"x": x + 4, "y": y + 4, "width": width - 8, "height": height - 8})
    pixels = visit.page.evaluate(
        """async data => {
            const bytes = Uint8Array.from(atob(data), char => char.charCodeAt(0));
            const bitmap = await createImageBitmap(new Blob([bytes]));
            const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
            canvas.drawImage(bitmap, 0, 0);
            const all = canvas.getImageData(0, 0, bitmap.width, bitmap.height).data;
            let red = 0;
            for (let i = 0; i < all.length; i += 4) red += all[i] > 180 && all[i + 1] < 90 && all[i + 2] < 90;
            return red / (all.length / 4);
        }""",
        base64.b64encode(inside).decode("ascii"),
    )

    assert pixels > 0.97


def test_report_shows_a_wide_page_whole(visit: Visit) -> None:
    visit.one(".card[data-name=wide] .thumb").click()

    stage, frame = sides(visit.one(".stage")), sides(visit.one(".stage .frame"))

    assert frame[2] / frame[3] == pytest.approx(10, rel=0.02)
    assert stage[0] <= frame[0]
    assert frame[0] + frame[2] <= stage[0] + stage[2]


def test_report_pointing_at_a_box_marks_its_text_and_the_other_way_round(visit: Visit) -> None:
    visit.one(".stage polygon").hover()
    assert visit.one(".reading li.on").inner_text().startswith("slanted")

    visit.one(".reading li[data-region='0']").hover()
    assert visit.one(".stage .on").get_attribute("data-region") == "0"


def test_report_is_usable_by_keyboard(visit: Visit) -> None:
    visit.one(".thumb").first.focus()
    visit.page.keyboard.press("ArrowRight")
    assert visit.one("#page-name").inner_text() == "low"
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    assert visit.one("#page-name").inner_text() == "low"

    visit.one(".reading li").focus()
    assert visit.one(".stage .on").get_attribute("data-region") == "0"


@pytest.mark.parametrize(
    ("name", "want"),
    [("all", ["good", "low", "empty", HOSTILE[0], "wide"]), ("low", ["low"]), ("empty", ["empty"]), ("failed", [])],
    ids=["all", "low", "empty", "failed"],
)
def test_report_filter_shows_the_pages_it_names(visit: Visit, name: str, want: list[str]) -> None:
    visit.one(f"[data-filter={name}]").click()

    assert visit.shown() == want
    assert visit.one("[data-filter][aria-pressed=true]").get_attribute("data-filter") == name
    assert visit.one("#failures").is_visible() is (name in ("all", "failed"))
    if want:
        assert visit.one("#page-name").inner_text() == want[0]
        assert visit.one("#shown").inner_text() == f"{len(want)} of 5 pages shown"


def test_report_search_finds_pages_by_their_text(visit: Visit) -> None:
    visit.one("#find").fill("DOUBTFUL")
    assert visit.shown() == ["low"]

    visit.one("#find").fill("nowhere at all")
    assert visit.shown() == []
    assert visit.one("#nothing").is_visible()
    assert visit.one(".stage").inner_html() == ""

    visit.one("#find").fill("")
    assert len(visit.shown()) == 5


def test_report_shows_hostile_text_as_the_text_it_is(visit: Visit) -> None:
    visit.page.locator(".thumb").nth(3).click()

    texts = visit.page.eval_on_selector_all(".reading li span", "all => all.map(item => item.textContent)")

    assert texts == [*HOSTILE[:4], "null \ufffd bell \ufffd half \ufffd", HOSTILE[5]]
    assert visit.page.title() == "comics <b> – Pagemill report"
    assert visit.one("#page-name").inner_text() == HOSTILE[0]
    assert visit.page.locator("script").count() == 1
    assert visit.page.locator("img[src=x]").count() == 0
    assert visit.one("#failures tbody td").nth(2).inner_text() == HOSTILE[1]
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.complaints == []


def test_report_override_of_direction_ends_with_its_text(visit: Visit) -> None:
    visit.page.locator(".thumb").nth(3).click()

    line = visit.one(".reading li[data-region='3']")

    assert line.locator("span").evaluate("span => getComputedStyle(span).unicodeBidi") == "plaintext"
    assert sides(line.locator("small"))[0] > sides(line.locator("span"))[0]


SCHEMES = pytest.mark.parametrize(
    "visit", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"], indirect=True
)


@SCHEMES
def test_report_text_can_be_read_in_both_schemes(visit: Visit, request: pytest.FixtureRequest) -> None:
    visit.page.locator(".thumb").nth(1).click()

    ground = visit.one("body").evaluate("body => getComputedStyle(body).backgroundColor")
    is_dark = sum(int(part) for part in ground.strip("rgb()").split(",")) < 3 * 128

    assert is_dark is ("dark" in request.node.name)
    for selector in (
        "h1",
        ".badge",
        ".tile dt",
        ".tile.poor dd",
        ".reading li span",
        ".reading small",
        "td.class",
        "th",
    ):
        assert contrast(visit.page, selector) >= 4.5, selector
    assert contrast(visit.page, "[aria-pressed=true]") >= 4.5


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], ids=["no-script"], indirect=True)
def test_report_without_script_shows_pages_with_their_text(visit: Visit) -> None:
    assert visit.one(".card .texts li").first.is_visible()
    assert visit.one(".card img").first.is_visible()
    assert not visit.one(".bar").is_visible()
    assert visit.one("#failures table").is_visible()


@pytest.mark.parametrize("visit", [{"viewport": {"width": 390, "height": 800}}], ids=["phone"], indirect=True)
def test_report_on_a_narrow_screen_does_not_scroll_sideways(visit: Visit) -> None:
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert sides(visit.one(".stage .frame"))[2] > 250
