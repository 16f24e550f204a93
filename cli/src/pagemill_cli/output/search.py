"""Searching an output: from what a person asks to hits, and from hits to a contact sheet.

Layer: `cli.output`. Encoders come in as functions, so that the command decides what is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pagemill_cli.output.target import Target
from pagemill_cli.output.thumbnails import MAX_SIDE_PX, Thumbnails
from pagemill_core.errors import InvalidSpecError
from pagemill_worker.embed.search.hits import Hit
from pagemill_worker.embed.search.opening import SearchSettings, open_searcher
from pagemill_worker.embed.search.query import Loaders, Query, encode_query
from pagemill_worker.embed.search.sheet import Card, Group, Sheet, write_sheet
from pagemill_worker.embed.search.space import Machine
from pagemill_worker.environment import source_fetcher
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page
from pagemill_worker.images.page import PageImage
from pagemill_worker.images.thumbnail import thumbnail_jpeg

MAX_PICTURES = 200  # on a sheet: some 5 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked: exactly one of `text`, `image` (a path or URI) and `like` (an id)."""

    text: str = ""
    image: str = ""
    like: str = ""
    prompt: str | None = None
    k: int = 10

    @property
    def shown(self) -> str:
        """The query as people read it."""
        return self.text or (f"Like {self.like}" if self.like else Path(self.image).name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found, and by what; `picture` is the query's own."""

    hits: Sequence[Hit]
    how: str
    notes: Sequence[str]
    count: int
    picture: PageImage | None = None


def find(target: Target, asked: Asked, settings: SearchSettings, machine: Machine, loaders: Loaders) -> Answer:
    """The nearest rows. An item is never its own neighbour.

    Raises: InvalidSpecError unless exactly one thing is asked; as `open_searcher` and `encode_query`.
    """
    if sum(map(bool, (asked.text, asked.image, asked.like))) != 1:
        raise InvalidSpecError(
            "ask one thing: a text, --image FILE or --like ITEM",
            advice=f'for example: pagemill search {target.named} "a cup of coffee"',
        )
    picture = read_picture(target, asked.image) if asked.image else None
    with open_searcher(target.writer, settings) as searcher:
        query = Query(text=asked.text or None, picture=picture, like=asked.like or None, prompt=asked.prompt)
        row = encode_query(query, searcher, loaders, machine)
        (hits,) = searcher.search(row[None, :], asked.k + bool(asked.like))
        others = [hit for hit in hits if hit.row.id != asked.like][: asked.k]
        ranked = [Hit(rank, hit.score, hit.row) for rank, hit in enumerate(others, 1)]
        return Answer(hits=ranked, how=searcher.how, notes=searcher.notes, count=searcher.count, picture=picture)


def read_picture(target: Target, uri: str) -> PageImage:
    """The picture at a path or URI. Raises: ItemError naming it, and the store's errors."""
    limits = ImageLimits()
    hosts = [host.strip() for host in target.settings.allowed_hosts.split(",") if host.strip()]
    where = uri if "://" in uri else str(Path(uri).expanduser().absolute())
    data = source_fetcher(target.s3, hosts).fetch(where, max_bytes=limits.max_bytes).data
    return load_page(data, page=None, limits=limits, origin=uri)


def write_search_sheet(target: Target, asked: Asked, answer: Answer, path: Path) -> None:
    """Write the answer as a contact sheet; the pictures of the first `MAX_PICTURES` hits are in it."""
    rows = [hit.row for hit in answer.hits[:MAX_PICTURES]]
    small = Thumbnails(target).of(rows)
    cards = [
        Card(rank=hit.rank, score=hit.score, row=hit.row, picture=thumbnail.picture, why=thumbnail.why)
        for hit, thumbnail in zip(answer.hits, small, strict=False)
    ]
    cards += [Card(rank=hit.rank, score=hit.score, row=hit.row) for hit in answer.hits[MAX_PICTURES:]]
    sheet = Sheet(
        asked=asked.shown,
        groups=[Group(cards)],
        asked_picture=thumbnail_jpeg(answer.picture, MAX_SIDE_PX) if answer.picture is not None else None,
        facts={"Output": target.uri, "Found by": answer.how, "Among": f"{answer.count:,} rows"},
        notes=list(answer.notes),
        remark="Scores are cosines: 1 is the same direction, 0 none in common. They compare answers to one query.",
    )
    with path.open("wb") as out:
        write_sheet(out, sheet)
