"""The HTML report: one file that shows what a run did, with pages, boxes and text, and what failed and why.

Layer: `worker.views`; writes to the file it is given and holds one page at a time. The file needs nothing else: no
network, no server; its policy forbids every request and every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import BinaryIO

from pagemill_core.clock import iso
from pagemill_worker.views.characters import xml_text
from pagemill_worker.views.report_page import PageState, ReportPage, anchor, page_card
from pagemill_worker.views.row import OcrRow
from pagemill_worker.views.run import RunInfo

MAX_PAGES = 60  # at 80 KB each the report stays an attachment that mail servers take
MAX_FAILURES = 500


@dataclass(slots=True)
class _Tally:
    """What the gallery showed, for the parts that stand after it; failures are held back, at most MAX_FAILURES."""

    states: Counter[PageState] = field(default_factory=Counter)
    failed: list[OcrRow] = field(default_factory=list)


def write_report(out: BinaryIO, run: RunInfo, pages: Iterable[ReportPage], *, max_pages: int = MAX_PAGES) -> None:
    """Write the report as UTF-8 HTML.

    Of `pages` the first `max_pages` that succeeded are shown and the first MAX_FAILURES that failed are listed; counts
    are always the run's. `pages` is read no further than needed.
    Raises: ValueError when a picture is neither JPEG nor PNG nor WebP.
    """
    tally = _Tally()
    for piece in _document(run, pages, tally, max_pages):
        out.write(piece.encode())


def _document(run: RunInfo, pages: Iterable[ReportPage], tally: _Tally, max_pages: int) -> Iterator[str]:
    yield _head(run)
    yield _header(run)
    yield '<main id="pages"><h2 hidden>Pages</h2>\n'
    yield _toolbar(run)
    yield '<div class="desk">\n<ol class="gallery pane" aria-label="Pages">\n'
    for page in _shown(pages, tally, max_pages, run.counts.failed):
        tally.states[page.state] += 1
        yield from page_card(page)
    yield "</ol>\n" + _VIEWER + "</div>\n"
    yield f'<p class="empty" id="nothing" hidden>{_nothing(tally)}</p>\n'
    yield from _failures(run, tally.failed)
    yield f"</main>\n{_footer(run, tally)}<script>{asset('report.js')}</script>\n</body>\n</html>\n"


def _shown(pages: Iterable[ReportPage], tally: _Tally, max_pages: int, failed_count: int) -> Iterator[ReportPage]:
    wanted_failures = min(failed_count, MAX_FAILURES)
    shown = 0
    for page in pages:
        if page.row.status == "failed" and len(tally.failed) < wanted_failures:
            tally.failed.append(page.row)
        elif page.row.status == "succeeded" and shown < max_pages:
            shown += 1
            yield page
        if shown >= max_pages and len(tally.failed) >= wanted_failures:
            return


def _head(run: RunInfo) -> str:
    script = base64.b64encode(hashlib.sha256(asset("report.js").encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{xml_text(run.name)} – Pagemill report</title>\n<style>{asset('report.css')}</style>\n"
        '</head>\n<body>\n<a class="skip" href="#pages">Skip to the pages</a>\n'
    )


def _header(run: RunInfo) -> str:
    counts = run.counts
    if counts.not_done:
        grade, verdict = "fair", f"Stopped: {counts.not_done:,} to do"
    elif counts.failed:
        grade, verdict = "fair", f"Complete, {counts.failed:,} failed"
    else:
        grade, verdict = "good", "Complete"
    links = " ".join(anchor(link) for link in run.links)
    facts = {
        "Engine": f"{run.engine_name} {run.engine_version}".strip(),
        "Languages": ", ".join(run.languages),
        "Source": run.source_uri,
        "Output": run.output_uri,
        "Run": run.run,
        "Finished": iso(run.finished_at),
        "Cost by stage": run.cost.told if run.cost is not None else "",
    }
    rows = "".join(f"<div><dt>{term}</dt><dd>{xml_text(value)}</dd></div>" for term, value in facts.items() if value)
    if links:
        rows += f"<div><dt>Files</dt><dd>{links}</dd></div>"
    return (
        f'<header>\n<p class="brand">Pagemill</p>\n<div class="title"><h1><bdi>{xml_text(run.name)}</bdi></h1>'
        f'<span class="badge {grade}">{verdict}</span></div>\n'
        f'<dl class="tiles">{"".join(_tiles(run))}</dl>\n{_share(run)}<dl class="facts">{rows}</dl>\n</header>\n'
    )


def _tiles(run: RunInfo) -> Iterator[str]:
    counts = run.counts
    yield tile("Pages read", f"{counts.succeeded:,}", f"of {counts.total:,}")
    yield tile("Failed", f"{counts.failed:,}", "", "poor" if counts.failed else "")
    if counts.skipped or counts.already_done:
        yield tile("Done before", f"{counts.skipped + counts.already_done:,}")
    if run.rate is not None:
        yield tile("Rate", f"{run.rate:,.2f}".rstrip("0").rstrip("."), "pages/s")
    yield tile("Time", duration(run.seconds), f"{run.workers} worker{'' if run.workers == 1 else 's'}")
    if run.cost is not None:
        yield tile("Cost", f"{run.cost.spent:,f}", run.cost.currency, title=run.cost.formula)


def tile(term: str, value: str, unit: str = "", grade: str = "", *, title: str = "") -> str:
    """A figure of the head, as an element."""
    hint = f' title="{xml_text(title)}"' if title else ""
    suffix = f" <small>{xml_text(unit)}</small>" if unit else ""
    return f'<div class="tile {grade}"{hint}><dt>{term}</dt><dd>{xml_text(value)}{suffix}</dd></div>'


def _share(run: RunInfo) -> str:
    counts = run.counts
    parts = {"good": counts.succeeded, "plain": counts.skipped, "poor": counts.failed, "rest": counts.not_done}
    spans = "".join(f'<span class="{grade}" style="flex: {count}"></span>' for grade, count in parts.items() if count)
    return f'<div class="share" aria-hidden="true">{spans}</div>\n'


def _toolbar(run: RunInfo) -> str:
    failed = f'<button type="button" data-filter="failed">Failed <span>{run.counts.failed:,}</span></button>'
    return (
        '<div class="bar" role="group" aria-label="Which pages to show">'
        '<button type="button" data-filter="all" aria-pressed="true">All</button>'
        '<button type="button" data-filter="low">Low confidence <span></span></button>'
        '<button type="button" data-filter="empty">No text <span></span></button>'
        f"{failed if run.counts.failed else ''}"
        '<input id="find" type="search" placeholder="Find in text" aria-label="Find in text" autocomplete="off">'
        '<output id="shown" aria-live="polite"></output></div>\n'
    )


_VIEWER = (
    '<section class="viewer pane" aria-labelledby="page-name"><div class="pager"><h2 id="page-name" dir="auto"></h2>'
    '<button type="button" id="before" aria-label="Previous page">←</button>'
    '<button type="button" id="after" aria-label="Next page">→</button></div><div class="stage"></div></section>\n'
    '<section class="reading pane" aria-label="Text of the page"></section>\n'
)


def _nothing(tally: _Tally) -> str:
    if tally.states.total():
        return "No page matches. Choose another filter, or empty the search."
    return "No page succeeded." if tally.failed else "This run had no pages to read."


def _failures(run: RunInfo, rows: list[OcrRow]) -> Iterator[str]:
    if not run.counts.failed:
        return
    classes = sorted(run.failures_by_class.items(), key=lambda item: (-item[1], item[0]))
    chips = "".join(f"<li>{xml_text(name)} <b>{count:,}</b></li>" for name, count in classes)
    yield f'<section id="failures"><h2>Failed pages</h2>\n<ul class="classes">{chips}</ul>\n'
    yield '<div class="scroll pane"><table><thead><tr><th scope="col">Item</th><th scope="col">Reason</th>'
    yield '<th scope="col">Message</th><th scope="col">Source</th></tr></thead><tbody>\n'
    for row in rows:
        yield from _failure(row)
    yield "</tbody></table></div>\n"
    if len(rows) < run.counts.failed:
        yield f'<p class="empty">{run.counts.failed - len(rows):,} more are in the dataset and in the summary.</p>\n'
    yield "</section>\n"


def _failure(row: OcrRow) -> Iterator[str]:
    if row.failure is None:
        return
    yield f'<tr><td>{xml_text(row.id)}</td><td class="class">{xml_text(row.failure.error_class)}</td>'
    yield f"<td>{xml_text(row.failure.message)}</td><td>{xml_text(row.source_uri)}</td></tr>\n"


def _footer(run: RunInfo, tally: _Tally) -> str:
    shown = tally.states.total()
    return (
        f"<footer>Shown: {shown:,} of {run.counts.succeeded:,} pages that were read. "
        "Confidences are the engine's own and cannot be compared between engines.</footer>\n"
    )


def duration(seconds: float) -> str:
    """A span of time for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


@cache
def asset(name: str) -> str:
    """A text that the package carries: the style sheet, the script."""
    return files(__package__).joinpath(name).read_text("utf-8").strip()
