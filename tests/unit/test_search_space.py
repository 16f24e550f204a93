"""What makes a query belong to rows: the model's files, the tower, the length; and what may differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.clock import SystemClock
from pagemill_core.errors import IntegrityError
from pagemill_core.storage.memory import MemoryStore
from pagemill_core.work.conditional import Writer
from pagemill_worker.embed.encoder import EncoderFacts, Side
from pagemill_worker.embed.search.opening import SearchSettings, open_searcher, space_metadata
from pagemill_worker.embed.search.space import JobSpace, Machine, Space, check_encoder, space_of
from pagemill_worker.testing.vector_dataset import MadePart, clustered, write_vectors

MADE_BY = {
    "side": "visual",
    "model": {"name": "clip", "loader": "openClip", "digest": "sha256:aa"},
    "size": [224, 224],
    "pooling": "projection",
    "precision": "bfloat16",
    "packages": {"torch": "2.15.0"},
}
SPACE = Space(rows="visual", made_by={"visual": MADE_BY})


def make_job(**spec: Any) -> EmbeddingJob:
    return EmbeddingJob.model_validate(
        {
            "kind": "EmbeddingJob",
            "metadata": {"name": "photos"},
            "spec": {"source": {"dataset": {"uri": "s3://bucket/in"}}, "output": {"uri": "s3://bucket/out"}, **spec},
        }
    )


def facts(**changes: Any) -> EncoderFacts:
    return EncoderFacts(dim=4, batch_size=1, device="cpu", precision="float32", fingerprint={**MADE_BY, **changes})


@pytest.mark.parametrize(
    ("side", "changes"),
    [
        ("visual", {}),
        ("visual", {"precision": "float32", "packages": {"torch": "2.16.0"}}),
        ("visual", {"model": {**MADE_BY["model"], "name": ""}}),  # type: ignore[dict-item]
        ("text", {"side": "text", "size": None, "pooling": "lastToken"}),
    ],
    ids=["same", "other arithmetic", "same files by address", "other tower"],
)
def test_encoder_of_the_same_model_is_taken(side: Side, changes: dict[str, Any]) -> None:
    check_encoder(SPACE, side, facts(**changes), 4)


@pytest.mark.parametrize(
    ("side", "changes", "want"),
    [
        (
            "visual",
            {"model": {**MADE_BY["model"], "digest": "sha256:bb"}},
            "model.digest: rows sha256:aa, query sha256:bb",
        ),  # type: ignore[dict-item]
        ("visual", {"size": [384, 384]}, r"size: rows \[224, 224\], query \[384, 384\]"),
        ("text", {"model": {**MADE_BY["model"], "digest": "sha256:bb"}}, "model.digest"),  # type: ignore[dict-item]
    ],
    ids=["other weights", "other preprocessing", "other model's text tower"],
)
def test_encoder_of_another_model_is_refused_with_what_differs(side: Side, changes: dict[str, Any], want: str) -> None:
    with pytest.raises(IntegrityError, match=want) as caught:
        check_encoder(SPACE, side, facts(**changes), 4)

    assert "own model" in caught.value.advice


def test_encoder_of_another_length_is_refused() -> None:
    with pytest.raises(IntegrityError, match="dim: rows 8, query 4"):
        check_encoder(SPACE, "visual", facts(), 8)


def test_space_of_pictures_offers_both_towers_of_their_model() -> None:
    job = make_job(visual={"model": {"uri": "s3://models/clip", "digest": "sha256:" + "a" * 64}, "dimensions": 256})

    space = space_of(JobSpace(job, {"visual": MADE_BY}))

    assert space.rows == "visual"
    assert space.made_by == {"visual": MADE_BY}
    text = space.settings("text", Machine(cache=Path("cache"), threads=2))
    assert text is not None
    assert (text.side, text.model.uri, text.dim, text.threads) == ("text", "s3://models/clip", 256, 2)
    assert text.model.cache == Path("cache")


def test_space_of_pictures_beside_text_of_another_model_is_asked_by_its_own() -> None:
    job = make_job(visual={"model": {"uri": "s3://models/siglip"}}, text={"model": {"uri": "s3://models/qwen"}})

    visual, text = space_of(JobSpace(job)), space_of(JobSpace(job, column="text_embedding"))

    assert visual.encoders["text"].uri == "s3://models/siglip"
    assert (text.rows, text.encoders["text"].uri) == ("text", "s3://models/qwen")


def test_space_never_keeps_the_right_to_run_code() -> None:
    model = {"uri": "s3://models/own", "digest": "sha256:" + "a" * 64, "loader": "modelImpl", "trust": "python"}
    space = space_of(JobSpace(make_job(visual={"model": model}), {"visual": MADE_BY}))

    assert "python" not in space.model_dump_json()
    plain, trusted = (space.settings("visual", Machine(trust=trust)) for trust in ("none", "python"))
    assert plain is not None and plain.model.trust == "none"
    assert trusted is not None
    assert trusted.model.digest == "sha256:aa", "code may come from the files that made the rows alone"


def test_space_travels_in_the_footer_of_a_copied_dataset() -> None:
    writer = Writer(MemoryStore(), SystemClock(), deadline_s=0)
    write_vectors(writer.store, MadePart(ids=["a"], vectors=clustered(1, 4), metadata=space_metadata(SPACE)))

    with open_searcher(writer, SearchSettings()) as searcher:
        assert searcher.space == SPACE


def test_space_in_a_damaged_footer_is_named() -> None:
    writer = Writer(MemoryStore(), SystemClock(), deadline_s=0)
    write_vectors(writer.store, MadePart(ids=["a"], vectors=clustered(1, 4), metadata={b"pagemill.space": b"[]"}))

    with (
        pytest.raises(IntegrityError, match="part-00000.parquet carries a damaged"),
        open_searcher(writer, SearchSettings()),
    ):
        pass
