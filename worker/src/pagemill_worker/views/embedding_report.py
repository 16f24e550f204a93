"""The HTML report of an EmbeddingJob: counts, models, cost, what failed and why, and some of the pictures.

Layer: `worker.views`; writes to the file it is given. The file needs nothing else: its policy forbids every request and
every script. The look is that of the OCR report, whose style sheet it shares.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from pagemill_core.clock import iso
from pagemill_core.work.records import Counts
from pagemill_worker.items import ItemResult
from pagemill_worker.views.characters import xml_text
from pagemill_worker.views.report import asset, duration, tile
from pagemill_worker.views.run import Cost

MAX_PICTURES = 48  # at 10 KB each; a report is mailed
_STYLE = """
.strip {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 12px;
  padding: 0; margin: 0 0 24px;
}
.strip li {
  list-style: none; background: var(--sheet); border: 1px solid var(--edge); border-radius: 12px; overflow: hidden;
  box-shadow: var(--shadow); min-width: 0;
}
.strip img { display: block; width: 100%; height: 120px; object-fit: cover; background: var(--soft); }
.strip span {
  display: block; padding: 5px 10px 7px; font-size: 12.5px; color: var(--quiet); white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis;
}
h2 { font-size: 18px; margin: 18px 0 10px; }
"""


class Side(Protocol):
    """An encoder's rows, as the report tells of them."""

    @property
    def side(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def is_unit(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the strip: a small JPEG with the item's id and caption."""

    id: str
    caption: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingReport:
    """What the report says of a run that ended."""

    name: str
    run: str
    source_uri: str
    output_uri: str
    formats: Sequence[str]
    models: Mapping[str, Mapping[str, Any]]
    sides: Sequence[Side]
    items: Counts
    already_done: int
    failure_classes: Mapping[str, int]
    seconds: float
    workers: int
    planned_at: dt.datetime
    cost: Cost | None = None
    is_books: bool = False
    notes: Sequence[str] = field(default_factory=tuple)


def write_embedding_report(
    out: BinaryIO, report: EmbeddingReport, pictures: Iterable[Picture], failed: Iterable[ItemResult]
) -> None:
    """Write the report as UTF-8 HTML; `pictures` and `failed` are read as they are written."""
    for piece in _document(report, pictures, failed):
        out.write(piece.encode())


def _document(report: EmbeddingReport, pictures: Iterable[Picture], failed: Iterable[ItemResult]) -> Iterator[str]:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{xml_text(report.name)} – Pagemill report</title>\n<style>{asset('report.css')}{_STYLE}</style>\n"
        "</head>\n<body>\n"
    )
    yield from _header(report)
    yield "<main>\n"
    yield from _strip(pictures)
    yield from _failures(report, failed)
    yield "</main>\n<footer>The vectors are in dataset/ and in the files that the job's formats name.</footer>\n"
    yield "</body>\n</html>\n"


def _header(report: EmbeddingReport) -> Iterator[str]:
    failed = report.items.failed
    grade, verdict = ("fair", f"Complete, {failed:,} failed") if failed else ("good", "Complete")
    yield (
        f'<header>\n<p class="brand">Pagemill</p>\n<div class="title"><h1><bdi>{xml_text(report.name)}</bdi></h1>'
        f'<span class="badge {grade}">{verdict}</span></div>\n<dl class="tiles">{"".join(_tiles(report))}</dl>\n'
    )
    facts = {
        "Source": report.source_uri,
        "Output": report.output_uri,
        "Formats": ", ".join(report.formats),
        "Run": report.run,
        "Planned": iso(report.planned_at),
        **{f"{side.capitalize()} model": _model(facts) for side, facts in report.models.items()},
        **{f"{side.side.capitalize()} rows": _rows(side) for side in report.sides},
        **({"Cost by stage": report.cost.told} if report.cost is not None else {}),
        **({"Note": "; ".join(report.notes)} if report.notes else {}),
    }
    rows = "".join(f"<div><dt>{term}</dt><dd>{xml_text(value)}</dd></div>" for term, value in facts.items() if value)
    yield f'<dl class="facts">{rows}</dl>\n</header>\n'


def _tiles(report: EmbeddingReport) -> Iterator[str]:
    items = report.items
    yield tile("Books" if report.is_books else "Items", f"{items.succeeded:,}", f"of {items.planned:,}")
    yield tile("Failed", f"{items.failed:,}", "", "poor" if items.failed else "")
    if items.skipped or report.already_done:
        yield tile("Done before", f"{items.skipped + report.already_done:,}")
    if report.sides:
        yield tile("Dimensions", " + ".join(f"{side.dim:,}" for side in report.sides))
    if report.seconds > 0 and items.succeeded:
        yield tile("Rate", f"{items.succeeded / report.seconds:,.1f}", "items/s")
    yield tile("Time", duration(report.seconds), f"{report.workers} worker{'' if report.workers == 1 else 's'}")
    if report.cost is not None:
        yield tile("Cost", f"{report.cost.spent:,f}", report.cost.currency, title=report.cost.formula)


def _model(facts: Mapping[str, Any]) -> str:
    told = (facts["model"], facts["revision"] and f"at {facts['revision']}", facts["pooling"], facts["precision"])
    return ", ".join(str(one) for one in told if one)


def _rows(side: Side) -> str:
    return f"{side.dim:,} × {side.dtype}, {'length 1' if side.is_unit else 'as the model gives them'}"


def _strip(pictures: Iterable[Picture]) -> Iterator[str]:
    opened = False
    for picture in pictures:
        if not opened:
            yield '<h2>Some of the pictures</h2>\n<ul class="strip">\n'
            opened = True
        data = base64.b64encode(picture.data).decode("ascii")
        label = xml_text(picture.caption or picture.id)
        yield (
            f'<li title="{xml_text(picture.id)}"><img alt="{label}" loading="lazy" decoding="async" '
            f'src="data:image/jpeg;base64,{data}"><span>{label}</span></li>\n'
        )
    if opened:
        yield "</ul>\n"


def _failures(report: EmbeddingReport, failed: Iterable[ItemResult]) -> Iterator[str]:
    if not report.items.failed:
        return
    classes = sorted(report.failure_classes.items(), key=lambda item: (-item[1], item[0]))
    chips = "".join(f"<li>{xml_text(name)} <b>{count:,}</b></li>" for name, count in classes)
    yield f'<section id="failures"><h2>What failed</h2>\n<ul class="classes">{chips}</ul>\n'
    yield '<div class="scroll pane"><table><thead><tr><th scope="col">Item</th><th scope="col">Reason</th>'
    yield '<th scope="col">Message</th></tr></thead><tbody>\n'
    shown = 0
    for result in failed:
        if result.failure is not None:
            shown += 1
            told = result.failure
            yield f'<tr><td>{xml_text(result.item.id)}</td><td class="class">{xml_text(told.error_class)}</td>'
            yield f"<td>{xml_text(told.message)}</td></tr>\n"
    yield "</tbody></table></div>\n"
    if shown < report.items.failed:
        yield f'<p class="empty">{report.items.failed - shown:,} more are in the dataset.</p>\n'
    yield "</section>\n"
