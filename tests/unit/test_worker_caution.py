"""Who may be handed out after a death: notes first, suspects last and alone, and not too many notes."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from pagemill_core.work.attempts import ShardHistory
from pagemill_core.work.records import AttemptRecord
from pagemill_worker.items import PlannedItem
from pagemill_worker.work.caution import MAX_NOTED, Caution
from pagemill_worker.work.child_environment import split
from pagemill_worker.work.open_shard import OpenShard


def make_shard(rows: int, *, number: int = 0, deaths: int = 0, in_flight: dict[int, int] | None = None) -> OpenShard:
    items = [PlannedItem(row=1000 * number + row, id=str(row), uri="x") for row in range(rows)]
    suspected = in_flight or {}
    return OpenShard(
        number=number,
        record=AttemptRecord(shard=number, attempt="a", worker="w", started="now"),
        planned=rows,
        history=ShardHistory(deaths, suspected),
        waiting=deque(item for item in items if item.row not in suspected),
        suspects=deque(item for item in items if item.row in suspected),
    )


def make_caution(capacity: int = 4) -> Caution:
    return Caution(capacity=capacity, max_deaths=2, note_every_s=1.0)


def drain(caution: Caution, shard: OpenShard) -> list[int]:
    rows = []
    while (item := caution.take(shard)) is not None:
        rows.append(item.row)
    return rows


def test_caution_first_attempt_needs_no_note() -> None:
    caution, shard = make_caution(), make_shard(5)
    assert caution.wish(shard, (), 0.0) is None
    assert drain(caution, shard) == [0, 1, 2, 3, 4]


def test_caution_second_attempt_waits_for_its_note_and_goes_as_far_as_it_reaches() -> None:
    caution, shard = make_caution(), make_shard(10, deaths=1)
    assert drain(caution, shard) == []
    wish = caution.wish(shard, (), 0.0)
    assert wish is not None
    assert wish.rows == (0, 1, 2, 3)
    shard.noted = frozenset(wish.rows)
    assert drain(caution, shard) == [0, 1, 2, 3]
    following = caution.wish(shard, (3,), 5.0)
    assert following is not None
    assert following.rows == (3, 4, 5, 6, 7), "what is still in hand must stay named"


def test_caution_notes_used_up_fast_name_more_rows_each_time_up_to_a_bound() -> None:
    caution, shard = make_caution(), make_shard(5000, deaths=1)
    sizes = []
    now = 0.0
    while shard.waiting:
        wish = caution.wish(shard, (), now)
        assert wish is not None
        shard.noted = frozenset(wish.rows)
        sizes.append(len(drain(caution, shard)))
        now += 0.1
    assert sizes[:4] == [4, 8, 16, 32]
    assert max(sizes) == MAX_NOTED


def test_caution_slow_pages_are_noted_in_small_steps() -> None:
    caution, shard = make_caution(), make_shard(40, deaths=1)
    sizes = []
    for now in range(0, 50, 5):
        wish = caution.wish(shard, (), float(now))
        assert wish is not None
        shard.noted = frozenset(wish.rows)
        sizes.append(len(drain(caution, shard)))
    assert set(sizes) == {4}


def test_caution_suspects_come_after_everything_else_and_one_at_a_time() -> None:
    caution = make_caution()
    shard, other = make_shard(4, deaths=1, in_flight={1: 1, 2: 1}), make_shard(2, number=1)
    assert caution.next_suspect([shard, other]) is None, "others still wait"
    shard.waiting.clear()
    other.waiting.clear()
    wish = caution.next_suspect([shard, other])
    assert wish is not None
    assert (wish.rows, wish.is_alone) == ((1,), True)


def test_caution_notes_of_other_shards_are_cleared_before_a_suspect_is_tried() -> None:
    caution = make_caution()
    suspected, done = make_shard(1, deaths=1, in_flight={0: 1}), make_shard(0, number=1, deaths=1)
    done.noted = frozenset((1000, 1001))
    wish = caution.next_suspect([suspected, done])
    assert wish is not None
    assert (wish.shard, wish.rows, wish.is_alone) == (done, (), False)


def test_caution_suspect_over_its_deaths_is_handed_out_at_once_to_be_given_up() -> None:
    caution, shard = make_caution(), make_shard(2, deaths=3, in_flight={0: 3, 1: 2})
    assert drain(caution, shard) == [0]
    assert [item.row for item in shard.suspects] == [1]


@given(
    rows=st.integers(0, 60), deaths=st.integers(0, 3), suspects=st.dictionaries(st.integers(0, 59), st.integers(1, 4))
)
def test_caution_every_row_is_handed_out_exactly_once_and_only_when_named(
    rows: int, deaths: int, suspects: dict[int, int]
) -> None:
    suspects = {row: count for row, count in suspects.items() if row < rows} if deaths else {}
    caution, shard = make_caution(), make_shard(rows, deaths=deaths, in_flight=suspects)
    handed: list[int] = []
    for step in range(10 * rows + 10):
        taken = drain(caution, shard)
        assert all(not deaths or row in shard.noted or suspects.get(row, 0) > 2 for row in taken)
        handed += taken
        wish = caution.wish(shard, (), float(step))
        if wish is not None:
            shard.noted = frozenset(wish.rows)
        elif (alone := caution.next_suspect([shard])) is not None and not taken:
            shard.noted = frozenset(alone.rows)
            handed.append(shard.suspects.popleft().row)
    assert sorted(handed) == list(range(rows))


def test_child_environment_leaves_out_everything_named_like_a_secret() -> None:
    given_names = {
        "PATH": "/bin",
        "TOKENIZERS_PARALLELISM": "false",
        "PAGEMILL_S3_SECRET_KEY": "planted",
        "PAGEMILL_API_KEY": "planted",
        "OPENROUTER_API_KEY": "planted",
        "GITHUB_TOKEN": "planted",
        "db_password": "planted",
        "AWS_ACCESS_KEY_ID": "planted",
        "AWS_SECRET_ACCESS_KEY": "planted",
        "AWS_SESSION_TOKEN": "planted",
        "AWS_REGION": "eu-west-1",
    }
    found = split(given_names)
    assert found.plain == {"PATH": "/bin", "TOKENIZERS_PARALLELISM": "false", "AWS_REGION": "eu-west-1"}
    assert set(found.by_pipe) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
