"""The space that rows live in: which encoders make queries for them, and whether an encoder made such rows.

Layer: `worker.embed.search`; pure. Stored beside the index, and read back from a run's plan where there is no index.
What may run code at loading is never stored: whoever searches says it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_core.work.records import Sub
from pagemill_worker.embed.encoder import EncoderFacts, EncoderSettings, ModelSettings, Side, Trust
from pagemill_worker.embed.job import text_settings, visual_settings
from pagemill_worker.embed.recipe import query_prompt
from pagemill_worker.embed.registry import resolve

# What may differ: it moves a row by no more than rounding does, or is the query's own affair (prompts), or only a name.
_MAY_DIFFER = frozenset({"precision", "dtype", "packages", "name", "prompt", "onTooLong"})
# What makes two towers one model; everything else of a tower is its own.
_IDENTITY = frozenset({"digest"})
_SHOWN = 6


class StoredEncoder(Sub):
    """An encoder's settings as they are kept: all that decides a row, nothing of the machine, no right to run code."""

    side: Literal["visual", "text"]
    name: str | None = None
    uri: str | None = None
    revision: str | None = None
    digest: str | None = None
    loader: str | None = None
    pooling: Literal["pooler", "projection", "cls", "mean", "lastToken"] | None = None
    normalize: bool = True
    dim: int | None = None
    max_tokens: int | None = None
    prompt: str = ""

    @classmethod
    def of(cls, settings: EncoderSettings) -> StoredEncoder:
        """What to keep of `settings`."""
        model = settings.model
        return cls(
            side=settings.side,
            name=model.name,
            uri=model.uri,
            revision=model.revision,
            digest=model.digest,
            loader=model.loader,
            pooling=settings.pooling,
            normalize=settings.normalize,
            dim=settings.dim,
            max_tokens=settings.max_tokens,
            prompt=settings.prompt,
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """What the searching machine adds to stored settings."""

    cache: Path = Path()
    trust: Trust = "none"
    device: str = "auto"
    threads: int = 1
    model_uri: str | None = None


class Space(Sub):
    """Where rows live. `rows` is the side that made them; `encoders` make queries; `made_by` is what fixed the rows'
    bytes (fields of the run's fingerprint), by side."""

    rows: Literal["visual", "text"] = "visual"
    encoders: dict[str, StoredEncoder] = {}
    made_by: dict[str, JsonValue] = {}

    def settings(self, side: Side, machine: Machine) -> EncoderSettings | None:
        """The encoder of queries of that side on this machine, None when the rows have none."""
        stored = self.encoders.get(side)
        if stored is None:
            return None
        # Code may run only from the very files that made the rows, whatever the output says of them.
        digest = self._digest_of_rows() if machine.trust != "none" else stored.digest
        model = ModelSettings(
            name=None if machine.model_uri else stored.name,
            uri=machine.model_uri or stored.uri,
            revision=stored.revision,
            digest=digest,
            loader=stored.loader,
            trust=machine.trust,
            cache=machine.cache,
        )
        return EncoderSettings(
            side=side,
            model=model,
            pooling=stored.pooling,
            normalize=stored.normalize,
            dim=stored.dim,
            max_tokens=stored.max_tokens,
            prompt=stored.prompt,
            device=machine.device,
            threads=machine.threads,
        )

    def _digest_of_rows(self) -> str | None:
        made_by = self.made_by.get(self.rows)
        model = made_by.get("model") if isinstance(made_by, dict) else None
        digest = model.get("digest") if isinstance(model, dict) else None
        return digest if isinstance(digest, str) else None


@dataclass(frozen=True, slots=True)
class JobSpace:
    """What of a job makes a space: `fields` are the run's fingerprint fields, `cache` the folder of fetched models."""

    job: EmbeddingJob
    fields: Mapping[str, Any] = field(default_factory=dict)
    column: str = "embedding"
    cache: Path = Path()


def space_of(given: JobSpace) -> Space:
    """The space of a job's column of vectors.

    `embedding` holds the visual rows, or the text rows of a job without pictures; the model's other tower is offered
    for queries too, and it is its loader who says when a model has none.
    """
    visual, text = visual_settings(given.job, Path()), text_settings(given.job, Path())
    side: Side = "text" if visual is None or given.column == "text_embedding" else "visual"
    own = text if side == "text" else visual
    if own is None:
        return Space(rows=side)
    other: Side = "visual" if side == "text" else "text"
    queries = {side: own, other: _other_tower(own, text if other == "text" else visual, other)}
    queries["text"] = replace(queries["text"], prompt=_query_prompt(queries["text"], given.cache))
    made_by = given.fields.get(side, {})
    stored = {str(name): StoredEncoder.of(settings) for name, settings in queries.items()}
    return Space(rows=side, encoders=stored, made_by={side: made_by})


def _query_prompt(settings: EncoderSettings, cache: Path) -> str:
    """What the model wants before a query; the rows' own prompt where it says nothing or is not on this machine."""
    try:
        model = resolve(replace(settings.model, cache=cache))
    except (EngineUnavailableError, InvalidSpecError, IntegrityError):
        return settings.prompt  # whoever searches has the model, or is told then how to get it
    return query_prompt(model) or settings.prompt


def _other_tower(own: EncoderSettings, given: EncoderSettings | None, side: Side) -> EncoderSettings:
    """The job's own encoder of the other side where it is of the same model, else the same model's other tower."""
    if given is not None and given.model == own.model:
        return given
    return replace(own, side=side, pooling=None, max_tokens=None, prompt="")


def check_encoder(space: Space, side: Side, facts: EncoderFacts, dim: int) -> None:
    """Refuse an encoder whose rows are not of this space. Raises: IntegrityError naming what differs."""
    differs = [] if facts.dim == dim else [f"dim: rows {dim}, query {facts.dim}"]
    made_by = space.made_by.get(space.rows)
    if isinstance(made_by, dict):
        differs += _differences(dict(_flat(made_by)), dict(_flat(facts.fingerprint)), is_same=side == space.rows)
    if differs:
        raise IntegrityError(
            f"the query's encoder is not the one that made these rows: {'; '.join(differs[:_SHOWN])}",
            advice="search with the job's own model (pagemill models), or run the job again with this one on another "
            "output",
        )


def _differences(rows: Mapping[str, object], query: Mapping[str, object], *, is_same: bool) -> list[str]:
    """`field: rows X, query Y` of fields that both have and that matter. Another tower of the model need only be of
    the same files."""
    found = []
    for name in sorted(rows.keys() & query.keys()):
        words = set(name.split("."))
        matters = not words & _MAY_DIFFER if is_same else bool(words & _IDENTITY)
        if matters and rows[name] != query[name]:
            found.append(f"{name}: rows {_short(rows[name])}, query {_short(query[name])}")
    return found


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
