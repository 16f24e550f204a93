"""A job's own stages at work: order, pieces, batches, tries, and whose fault a failure is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pagemill_core.errors import ImageTruncated, RetriableError, StoreUnavailableError
from pagemill_worker.stages.chain import Chain, LoadedStage, Passed
from pagemill_worker.stages.contract import Stage, StageItem


class Says(Stage):
    """Does with a batch what it is told, and remembers the batches."""

    takes = str
    gives = str

    def __init__(self, does: Callable[[StageItem], list[StageItem]]) -> None:
        self.does = does
        self.batches: list[list[str]] = []

    def process(self, items: Sequence[StageItem]) -> list[StageItem]:
        self.batches.append([item.value for item in items])
        return [out for item in items for out in self.does(item)]


def send(stage: Stage, *values: str, **how: Any) -> list[Passed]:
    chain = Chain((LoadedStage("own", stage, **how),))
    return chain.run(Passed.start(f"i{number}", value) for number, value in enumerate(values))


def values(passed: Passed) -> list[str]:
    return [piece.value for piece in passed.pieces]


def shout(item: StageItem) -> list[StageItem]:
    return [item.with_value(item.value.upper(), length=len(item.value))]


def test_chain_gives_each_item_its_own_result_in_order() -> None:
    found = send(Says(shout), "a", "bb", "ccc", batch_size=2)

    assert [(one.id, values(one), one.notes) for one in found] == [
        ("i0", ["A"], {"own": {"length": 1}}),
        ("i1", ["BB"], {"own": {"length": 2}}),
        ("i2", ["CCC"], {"own": {"length": 3}}),
    ]
    assert all(one.seconds["own"] >= 0 for one in found)


def test_chain_keeps_pieces_of_an_item_together_and_in_order() -> None:
    cut = Says(lambda item: [item.with_value(letter, at=n) for n, letter in enumerate(item.value)])
    twice = Says(shout)
    stages = LoadedStage("cut", cut, batch_size=2), LoadedStage("shout", twice, batch_size=3)

    found = Chain(stages).run([Passed.start("x", "ab"), Passed.start("y", "cde")])

    assert [values(one) for one in found] == [["A", "B"], ["C", "D", "E"]]
    assert twice.batches == [["a", "b", "c"], ["d", "e"]]
    assert found[0].notes == {"cut": [{"at": 0}, {"at": 1}], "shout": [{"length": 1}, {"length": 1}]}


def test_chain_item_that_is_dropped_ends_with_its_reason_and_notes() -> None:
    judge = Says(lambda item: [item.drop("too short", length=1)] if len(item.value) < 2 else [item])

    found = send(judge, "a", "bb")

    assert (type(found[0].failure).__name__, str(found[0].failure)) == ("FilteredByStage", "own: too short")
    assert found[0].notes == {"own": {"length": 1}}
    assert (found[1].failure, values(found[1])) == (None, ["bb"])


def test_chain_piece_that_is_dropped_leaves_the_others() -> None:
    cut = Says(lambda item: [item.with_value(part) if part else item.drop("empty") for part in item.value.split(",")])

    (found,) = send(cut, "a,,b")

    assert (found.failure, values(found)) == (None, ["a", "b"])


def test_chain_batch_that_raises_is_tried_one_by_one_so_that_only_the_culprit_fails() -> None:
    def does(item: StageItem) -> list[StageItem]:
        if item.value == "bad":
            raise KeyError("planted")
        return shout(item)

    stage = Says(does)
    found = send(stage, "a", "bad", "c", batch_size=3)

    assert [one.failure is None for one in found] == [True, False, True]
    assert str(found[1].failure).startswith("stage own raised KeyError: 'planted' (traceback ")
    assert stage.batches == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]


@pytest.mark.parametrize(("attempts", "want_ok"), [(1, False), (2, False), (3, True)])
def test_chain_tries_an_item_as_often_as_the_job_says(attempts: int, want_ok: bool) -> None:
    left = [ImageTruncated("first"), ImageTruncated("second")]

    def does(item: StageItem) -> list[StageItem]:
        if left:
            raise left.pop(0)
        return [item]

    (found,) = send(Says(does), "a", attempts=attempts)

    assert (found.failure is None) == want_ok
    if not want_ok:
        assert isinstance(found.failure, ImageTruncated)


def test_chain_lets_a_remote_side_that_is_away_pass() -> None:
    def does(_: StageItem) -> list[StageItem]:
        raise StoreUnavailableError("no answer")

    with pytest.raises(RetriableError):
        send(Says(does), "a")


def test_chain_item_that_failed_before_is_left_alone() -> None:
    second = Says(shout)
    stages = LoadedStage("first", Says(lambda item: [item.drop("no")])), LoadedStage("second", second)

    (found,) = Chain(stages).run([Passed.start("x", "a")])

    assert (str(found.failure), second.batches) == ("first: no", [])


@pytest.mark.parametrize(
    ("does", "want"),
    [
        (lambda item: [], "stage own took i0 and gave nothing"),
        (lambda item: [StageItem(id="other", value="x")], "stage own took i0 and gave other"),
        (lambda item: [item.with_value(3)], "stage own gave a int, not a str"),
        (lambda item: ["x"], "stage own gave a str, not a StageItem"),
        (lambda item: [item.with_notes(score=float("nan"))], "the note score is nan"),
        (lambda item: [item.with_notes(score=object())], "the note score is <object"),
    ],
    ids=["nothing", "stranger", "type", "no-item", "nan", "object"],
)
def test_chain_refuses_what_the_contract_does_not_allow(does: Any, want: str) -> None:
    (found,) = send(Says(does), "a")

    assert type(found.failure).__name__ == "EngineFailed"
    assert want in str(found.failure)


def test_chain_behind_the_model_refuses_pieces() -> None:
    (found,) = send(Says(lambda item: [item, item]), "a", keeps_one=True)

    assert "nothing behind it could join them" in str(found.failure)
