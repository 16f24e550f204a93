"""Records and keys: read back as written, refuse what they do not know, and never move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.errors import IntegrityError
from pagemill_core.work import layout
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.records import Counts, FailureSample, Marker, RunEntry

RUN = RunLayout("00000012-0a1b2c3d")
MARKER = Marker(
    shard=7,
    attempt="a",
    plan="p",
    fingerprint="f",
    items=Counts(planned=2, succeeded=1, failed=1),
    failures=[FailureSample(item="é/1", error_class="NotAnImage", message="no")],
    failure_classes={"NotAnImage": 1},
    started="s",
    finished="f",
)


def test_record_reads_back_as_written_under_its_documented_names() -> None:
    data = MARKER.to_bytes()

    assert Marker.from_bytes(data, "k") == MARKER
    assert (
        data
        == (
            '{"v":1,"shard":7,"attempt":"a","plan":"p","fingerprint":"f",'
            '"items":{"planned":2,"succeeded":1,"failed":1,"skipped":0},'
            '"failures":[{"item":"é/1","class":"NotAnImage","message":"no"}],"failureClasses":{"NotAnImage":1},'
            '"outputs":[],"started":"s","finished":"f","worker":"","seconds":0.0,"stageSeconds":{},"sealed":false}'
        ).encode()
    )


def test_record_of_a_newer_release_is_read_by_what_it_knows() -> None:
    data = MARKER.to_bytes().replace(b'{"v":1,', b'{"v":1,"later":{"x":[1]},')

    assert Marker.from_bytes(data, "k") == MARKER


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"v":1}', b'{"v":2,"seq":1,"workKey":"a","kind":"OcrJob"}', b"\xff"]
)
def test_record_damaged_or_of_another_version_names_its_key(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"runs/00000001\.json is not a RunEntry of version 1"):
        RunEntry.from_bytes(data, layout.run_entry(1))


def test_record_error_shows_no_content() -> None:
    """Objects may hold what users planted there."""
    with pytest.raises(IntegrityError) as caught:
        RunEntry.from_bytes(b'{"v":1,"seq":"planted-secret","workKey":"a","kind":"b"}', "k")

    assert "planted-secret" not in str(caught.value)


@given(*[st.integers(0, 1000)] * 3)
def test_counts_add_up_and_sum(succeeded: int, failed: int, skipped: int) -> None:
    counts = Counts(planned=succeeded + failed + skipped, succeeded=succeeded, failed=failed, skipped=skipped)

    assert counts.add_up()
    assert (counts + counts).add_up()
    assert not counts.model_copy(update={"planned": counts.planned + 1}).add_up()


@given(st.integers(0, 99_999_999))
def test_keys_of_a_shard_name_it(shard: int) -> None:
    segment = layout.segment_of(shard)
    for key in (RUN.marker(shard), RUN.published(shard), RUN.attempt(shard, "a"), RUN.partial(shard, "a")):
        assert layout.shard_of(key) == shard
    assert RUN.marker(shard).startswith(RUN.markers_of_segment(segment))
    assert RUN.published(shard).startswith(RUN.published_of_segment(segment))
    assert RUN.attempt(shard, "a").startswith(RUN.attempts_of_segment(segment))
    assert RUN.partial(shard, "a").startswith(RUN.partials_of_segment(segment))


@given(st.integers(1, 99_999_999), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_run_id_holds_seq_and_work_key(seq: int, work_key: str) -> None:
    run = layout.run_id(seq, work_key)

    assert RunLayout(run).seq == seq
    assert run.endswith(f"-{work_key[:8]}")
    assert layout.seq_of_run_entry(layout.run_entry(seq)) == seq
    with pytest.raises(ValueError, match="names no shard"):
        layout.shard_of(RunLayout(run).plan_pointer)


@pytest.mark.parametrize("key", [".pagemill/runs/1.json", ".pagemill/runs/00000001.json.tmp", "runs/00000001.json", ""])
def test_seq_of_a_foreign_key_is_none(key: str) -> None:
    assert layout.seq_of_run_entry(key) is None


def test_keys_are_frozen() -> None:
    """Readers of old runs exist: a change here is a new layout, not a fix."""
    assert [
        layout.run_entry(12),
        layout.dataset_part(12, 3),
        layout.index_part(RUN.run, "a", 1),
        layout.INDEX_POINTER,
        RUN.plan_pointer,
        RUN.plan_attempt("a"),
        RUN.wave(2),
        RUN.data(1234, "a", "x.parquet"),
        RUN.attempt(1234, "a"),
        RUN.partial(1234, "a"),
        RUN.marker(1234),
        RUN.published(1234),
        RUN.usage("pod"),
        RUN.rollup(1),
        RUN.report(2),
        RUN.success,
    ] == [
        ".pagemill/runs/00000012.json",
        "dataset/run=00000012/part-00003.parquet",
        ".pagemill/index/00000012-0a1b2c3d/a/items-00001.parquet",
        ".pagemill/index/current.json",
        ".pagemill/00000012-0a1b2c3d/plan/plan.json",
        ".pagemill/00000012-0a1b2c3d/plan/a/",
        ".pagemill/00000012-0a1b2c3d/waves/2.json.zst",
        ".pagemill/00000012-0a1b2c3d/data/7e/00001234/a/x.parquet",
        ".pagemill/00000012-0a1b2c3d/attempts/00001234/a.json",
        ".pagemill/00000012-0a1b2c3d/partial/00001234/a.parquet",
        ".pagemill/00000012-0a1b2c3d/commit/00001/00001234",
        ".pagemill/00000012-0a1b2c3d/published/00001/00001234",
        ".pagemill/00000012-0a1b2c3d/usage/pod.json",
        ".pagemill/00000012-0a1b2c3d/rollup/00001.jsonl.zst",
        ".pagemill/00000012-0a1b2c3d/reports/00000002.json",
        ".pagemill/00000012-0a1b2c3d/_SUCCESS.json",
    ]
