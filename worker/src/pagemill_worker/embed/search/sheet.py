"""The contact sheet: what a search found, as one HTML file with its pictures inside.

Layer: `worker.embed.search`; writes to the file it is given. The file needs no network and no server; its policy
forbids every request and every script, and all that comes from sources is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import BinaryIO

from pagemill_worker.embed.search.ids import RowFacts
from pagemill_worker.views.characters import xml_text
from pagemill_worker.views.pictures import read_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One row on the sheet. `picture` is a small JPEG, PNG or WebP; without one, `why` says what is shown instead."""

    rank: int
    score: float
    row: RowFacts
    picture: bytes | None = None
    why: str = "no picture"
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Cards under a heading; a search has one group without a heading."""

    cards: Sequence[Card]
    heading: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Everything on the sheet. `asked` is its heading, `asked_picture` the query's own; `facts` stand below."""

    asked: str
    groups: Sequence[Group]
    asked_picture: bytes | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    remark: str = ""


def write_sheet(out: BinaryIO, sheet: Sheet) -> None:
    """Write the sheet as UTF-8 HTML. Raises: ValueError for a picture of another form."""
    for piece in _document(sheet):
        out.write(piece.encode())


def _document(sheet: Sheet) -> Iterator[str]:
    yield _head(sheet)
    yield '<main id="found">\n'
    for note in sheet.notes:
        yield f'<p class="note">{xml_text(note)}</p>\n'
    for group in sheet.groups:
        yield from _group(group)
    if not any(group.cards for group in sheet.groups):
        yield '<p class="empty">Nothing was found.</p>\n'
    yield f"</main>\n<footer>{xml_text(sheet.remark)}</footer>\n</body>\n</html>\n"


def _head(sheet: Sheet) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    rows = "".join(
        f"<div><dt>{xml_text(term)}</dt><dd>{xml_text(value)}</dd></div>"
        for term, value in sheet.facts.items()
        if value
    )
    picture = (
        f'<img alt="The picture that was asked for" src="{_data(sheet.asked_picture)}">' if sheet.asked_picture else ""
    )
    title = xml_text(sheet.asked)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<link rel="icon" href="data:,">\n<title>{title} – Pagemill</title>\n'
        f"<style>{_style()}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="brand">Pagemill</p>\n<div class="asked">{picture}<h1><bdi>{title}</bdi></h1></div>\n'
        f'<dl class="facts">{rows}</dl>\n</header>\n'
    )


def _group(group: Group) -> Iterator[str]:
    if group.heading:
        yield f"<h2><bdi>{xml_text(group.heading)}</bdi> <small>{xml_text(group.remark)}</small></h2>\n"
    yield '<ol class="cards">\n'
    for card in group.cards:
        yield from _card(card)
    yield "</ol>\n"


def _card(card: Card) -> Iterator[str]:
    row = card.row
    yield f'<li class="card{" kept" if card.is_kept else ""}" data-id="{xml_text(row.id)}"><div class="picture">'
    if card.picture is not None:
        yield f'<img alt="{xml_text(row.caption or row.id)}" loading="lazy" src="{_data(card.picture)}">'
    else:
        yield f"<p>{xml_text(card.why)}</p>"
    share = max(0.0, min(1.0, card.score)) * 100
    yield (
        f'</div><div class="text"><div class="line"><span class="rank">{card.rank}</span>'
        f'<span class="score">{card.score:.3f}</span></div>'
        f'<div class="bar" aria-hidden="true"><span style="width: {share:.1f}%"></span></div>'
        f'<div class="id">{xml_text(row.id)}</div>'
    )
    if row.caption:
        yield f'<div class="caption">{xml_text(row.caption)}</div>'
    yield f'<div class="origin">{xml_text(_origin(row))}</div></div></li>\n'


def _origin(row: RowFacts) -> str:
    size = f"{row.width_px:,} × {row.height_px:,} px" if row.width_px and row.height_px else ""
    page = f"page {row.page + 1}" if row.page is not None else ""
    return " · ".join(part for part in (row.source_uri, page, size) if part)


def _data(picture: bytes) -> str:
    return f"data:{read_info(picture).media_type};base64,{base64.b64encode(picture).decode('ascii')}"


@cache
def _style() -> str:
    return files(__package__).joinpath("sheet.css").read_text("utf-8").strip()
