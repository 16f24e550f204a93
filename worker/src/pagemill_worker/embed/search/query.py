"""From what a person asks to a vector: a text, a picture, or an item like which to look.

Layer: `worker.embed.search`. Encoders come in as functions, so that nothing is loaded before a query needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pagemill_core.errors import EncoderFailed, InvalidSpecError, ObjectNotFoundError
from pagemill_worker.embed.encoder import EncoderSettings, Side, TextEncoder, VisualEncoder
from pagemill_worker.embed.search.hits import Searcher
from pagemill_worker.embed.search.parts import Matrix, unit_rows
from pagemill_worker.embed.search.space import Machine, check_encoder
from pagemill_worker.images.page import PageImage


@dataclass(frozen=True, slots=True)
class Loaders:
    """How encoders are loaded: `embed.load`'s functions."""

    text: Callable[[EncoderSettings], TextEncoder]
    visual: Callable[[EncoderSettings], VisualEncoder]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: exactly one of the three. `prompt` replaces the stored one in front of a text."""

    text: str | None = None
    picture: PageImage | None = None
    like: str | None = None
    prompt: str | None = None


def encode_query(query: Query, searcher: Searcher, loaders: Loaders, machine: Machine) -> Matrix:
    """The query as a row of the searcher's space, of length 1, shape (dim,).

    Raises: ObjectNotFoundError for an unknown item; InvalidSpecError when the rows' model reads no such query;
    IntegrityError when the encoder is not the one that made the rows, naming what differs.
    """
    if query.like is not None:
        row = searcher.vector_of(query.like)
        if row is None:
            raise ObjectNotFoundError(
                f"{query.like!r} has no row here", advice="ids are taken verbatim; pagemill search -o json shows them"
            )
        return row
    side: Side = "text" if query.text is not None else "visual"
    settings = searcher.space.settings(side, machine)
    if settings is None:
        raise InvalidSpecError(
            "the output does not say which model made its rows, so a query cannot be encoded",
            advice="search with --like ITEM, or where .pagemill/ or index/ lies beside the dataset",
        )
    if query.prompt is not None:
        settings = replace(settings, prompt=query.prompt)
    rows, usable = unit_rows(_encode(query, settings, searcher, loaders))
    if not usable.all():
        raise EncoderFailed("the query has no direction: its row is all zero or not finite")
    return np.asarray(rows[0], np.float32)


def _encode(query: Query, settings: EncoderSettings, searcher: Searcher, loaders: Loaders) -> Matrix:
    if query.text is not None:
        text_encoder = loaders.text(settings)
        try:
            check_encoder(searcher.space, "text", text_encoder.facts, searcher.dim or text_encoder.facts.dim)
            rows, _ = text_encoder.encode([query.text])
        finally:
            text_encoder.close()
        return np.asarray(rows, np.float32)
    if query.picture is None:
        raise InvalidSpecError("nothing is asked", advice='write a text: pagemill search OUTPUT "a cup of coffee"')
    encoder = loaders.visual(settings)
    try:
        check_encoder(searcher.space, "visual", encoder.facts, searcher.dim or encoder.facts.dim)
        return np.asarray(encoder.encode([encoder.prepare(query.picture)]), np.float32)
    finally:
        encoder.close()
