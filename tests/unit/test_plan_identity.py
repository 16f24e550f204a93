"""Identity: which rows become items, which fail, which are repeats; exact in bounded memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pagemill_core.ids import check_item_id
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan import identity
from pagemill_worker.plan.digests import DigestMap, digests_of, identity_digest, short_digests
from pagemill_worker.plan.identity import IdentityCheck, check_id, probe_folding
from pagemill_worker.plan.request import KeyRules
from pagemill_worker.plan.rows import Candidates

JSON_KEYS = KeyRules(prefix="ocr_results", suffixes=("_ocr.json",))


def candidates(rows: list[tuple[str, str]], first_line: int = 2) -> Candidates:
    count = len(rows)
    return Candidates(
        list(range(first_line, first_line + count)),
        [item_id for item_id, _ in rows],
        [uri for _, uri in rows],
        [None] * count,
        [None] * count,
        [None] * count,
        [None] * count,
    )


def judged(batches: list[list[tuple[str, str]]], scratch: Path, rules: KeyRules = JSON_KEYS) -> list[tuple[int, str]]:
    """(line, failure class or "") of each kept row."""
    check = IdentityCheck(rules, scratch)
    kept: list[tuple[int, str]] = []
    line = 2
    for rows in batches:
        batch = check.judge(candidates(rows, line))
        line += len(rows)
        for at, number in enumerate(batch.lines):
            failure = batch.failures.get(at)
            kept.append((number, failure.error_class if failure else ""))
    return kept


def batched(rows: list[tuple[str, str]]) -> list[list[list[tuple[str, str]]]]:
    """The rows in one batch, and each in its own."""
    return [[rows], [[row] for row in rows]]


ROWS = [("a", "1"), ("b", "2"), ("a", "1"), ("a", "3"), ("b", "2"), ("a", "3"), ("c", "1")]


@pytest.mark.parametrize("batches", batched(ROWS), ids=["one-batch", "batch-per-row"])
def test_identity_repeats_run_once_and_other_paths_fail(batches: list[list[tuple[str, str]]], tmp_path: Path) -> None:
    assert judged(batches, tmp_path) == [(2, ""), (3, ""), (5, "DuplicateId"), (7, "DuplicateId"), (8, "")]


def test_identity_duplicate_names_both_lines(tmp_path: Path) -> None:
    check = IdentityCheck(JSON_KEYS, tmp_path)
    batch = check.judge(candidates([("a", "1"), ("é b", "2"), ("é b", "3"), ("a", "1")]))
    assert batch.failures == {2: ItemFailure("DuplicateId", "line 4 has the id 'é b' of line 3, with another path")}
    assert (check.repeats.count, check.repeats.first_line) == (1, 5)


def test_identity_pages_of_one_file_are_not_repeats(tmp_path: Path) -> None:
    batch = candidates([("d#p0001", "d.pdf"), ("d#p0002", "d.pdf"), ("d#p0001", "d.pdf"), ("d#p0001", "d.pdf")])
    batch.pages = [0, 1, 0, 5]
    kept = IdentityCheck(JSON_KEYS, tmp_path).judge(batch)
    assert (kept.lines, list(kept.failures)) == ([2, 3, 5], [2])


UNSAFE_IDS = [
    "",
    "/a",
    "a//b",
    "a/",
    ".",
    "a/..",
    "../x",
    "a\tb",
    "\ud800",
    "x" * 241,
    "a/" * 600 + "a",
    "a\x7f",
    "a\x85",
]
SAFE_IDS = [
    "a",
    "a.b",
    "..a",
    "a b",
    "#1 (x), ê…",
    "%2e",
    "日本/語",
    "NUL",
    "con",
    "a\\b",
    "\ufeffx",
    "\u00e9",
    "e\u0301",
    ".pagemill/x",
]


@pytest.mark.parametrize("item_id", UNSAFE_IDS, ids=ascii)
def test_identity_unsafe_id_fails_as_an_item(item_id: str, tmp_path: Path) -> None:
    assert judged([[(item_id, "1"), ("good", "2")]], tmp_path) == [(2, "UnsafeId"), (3, "")]


@pytest.mark.parametrize("item_id", SAFE_IDS, ids=ascii)
def test_identity_odd_but_safe_id_passes(item_id: str, tmp_path: Path) -> None:
    assert judged([[(item_id, "1")]], tmp_path) == [(2, "")]


def test_identity_plain_ids_never_hide_what_the_full_check_refuses() -> None:
    dice = random.Random(7)
    alphabet = "ab.-_/# ()\x00é~@=+,"
    for _ in range(20_000):
        item_id = "".join(dice.choice(alphabet) for _ in range(dice.randint(0, 8)))
        if identity._PLAIN(item_id):
            check_item_id(item_id, prefix="p", suffix="_ocr.json")


def test_identity_length_limits_count_suffix_prefix_and_root() -> None:
    assert check_id("x" * 231, JSON_KEYS) is None
    assert check_id("x" * 232, JSON_KEYS) is not None
    long_id = "/".join(["x" * 200] * 4)
    assert check_id(long_id, JSON_KEYS) is None
    assert check_id(long_id, KeyRules(prefix="ocr_results", suffixes=("_ocr.json",), root="r" * 230)) is not None


@pytest.mark.parametrize("rules", [JSON_KEYS, KeyRules(prefix="p", suffixes=("_ocr.json",), root="r" * 780)])
def test_identity_length_limits_hold_for_plain_ids_too(rules: KeyRules, tmp_path: Path) -> None:
    ids = ["x" * length for length in (1, 200, 225, 231, 232, 240, 300)]
    want = [(line, "" if check_id(item_id, rules) is None else "UnsafeId") for line, item_id in enumerate(ids, 2)]
    assert judged([[(item_id, "1") for item_id in ids]], tmp_path, rules) == want


CLASHES = [
    pytest.param([("a", "1"), ("a/b", "2")], ("_ocr.json",), ["", ""], id="view-beside-folder"),
    pytest.param([("a", "1"), ("a_ocr.json/b", "2")], ("_ocr.json",), ["", "UnsafeId"], id="folder-after-view"),
    pytest.param([("a_ocr.json/b/c", "2"), ("a", "1")], ("_ocr.json",), ["", "UnsafeId"], id="view-after-folder"),
    pytest.param([("x/a", "1"), ("x/a.txt/b", "2")], ("_ocr.json", ".txt"), ["", "UnsafeId"], id="second-format"),
    pytest.param([("x/a", "1"), ("x/a.txt/b", "2")], ("_ocr.json",), ["", ""], id="format-not-written"),
    pytest.param([("a", "1"), ("a/b", "2")], ("",), ["", "UnsafeId"], id="keys-are-ids"),
    pytest.param([("a", "1"), ("a_ocr", "2")], ("_ocr.json", ".json"), ["", "DuplicateId"], id="same-key"),
    pytest.param([("a_ocr", "1"), ("a", "2")], ("_ocr.json", ".json"), ["", "DuplicateId"], id="same-key-reversed"),
    pytest.param([("a", "1"), ("a_ocr", "2")], ("_ocr.json",), ["", ""], id="one-format-no-clash"),
]


@pytest.mark.parametrize("own_batches", [False, True])
@pytest.mark.parametrize(("rows", "suffixes", "want"), CLASHES)
def test_identity_key_in_the_way_of_another_fails_the_later(
    rows: list[tuple[str, str]], suffixes: tuple[str, ...], want: list[str], own_batches: bool, tmp_path: Path
) -> None:
    batches = batched(rows)[own_batches]
    assert [kind for _, kind in judged(batches, tmp_path, KeyRules(prefix="p", suffixes=suffixes))] == want


FOLDED = [
    ("none", [("A", "1"), ("a", "2"), ("\u00e9", "3"), ("e\u0301", "4")], ["", "", "", ""]),
    ("case", [("A", "1"), ("a", "2"), ("\u00e9", "3"), ("e\u0301", "4")], ["", "DuplicateId", "", ""]),
    ("normal", [("A", "1"), ("a", "2"), ("\u00e9", "3"), ("e\u0301", "4")], ["", "", "", "DuplicateId"]),
    ("caseAndNormal", [("\u00c9", "1"), ("e\u0301", "1")], ["", "DuplicateId"]),
]


@pytest.mark.parametrize(("folding", "rows", "want"), FOLDED)
def test_identity_names_that_the_target_takes_for_one_fail(
    folding: str, rows: list[tuple[str, str]], want: list[str], tmp_path: Path
) -> None:
    rules = KeyRules(prefix="p", suffixes=("_ocr.json",), folding=folding)  # type: ignore[arg-type]
    assert [kind for _, kind in judged([rows], tmp_path, rules)] == want


def test_folding_of_a_folder_is_probed_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "CASE").touch()
    is_folding = (tmp_path / "case").exists()
    assert probe_folding(tmp_path) in (("case", "caseAndNormal") if is_folding else ("none", "normal"))
    assert [path.name for path in tmp_path.iterdir()] == ["CASE"]


def test_digest_map_spilled_and_merged_runs_answer_like_a_dict(tmp_path: Path) -> None:
    dice = random.Random(1)
    table = DigestMap(tmp_path, in_memory_rows=256)
    want: dict[str, int] = {}
    for line in range(200):
        texts = [f"{dice.randrange(4000)}" for _ in range(20)]
        new = [text for text in dict.fromkeys(texts) if text not in want]
        found = table.find(digests_of(texts))
        assert [int(number) for number in found.lines] == [want.get(text, 0) for text in texts]
        assert found.present.tolist() == [text in want for text in texts]
        table.add(digests_of(new), short_digests(new), np.full(len(new), line, np.int64))
        want.update(dict.fromkeys(new, line))
    assert len(table) == len(want)
    assert len(list(tmp_path.iterdir())) >= 2, "the map never spilled"


def test_digest_map_ties_of_the_high_half_are_told_apart(tmp_path: Path) -> None:
    table = DigestMap(tmp_path)
    digests = np.array([[5, low] for low in (9, 3, 7)], np.uint64)
    table.add(digests, np.zeros(3, np.uint64), np.array([1, 2, 3], np.int64))
    found = table.find(np.array([[5, 7], [5, 4], [5, 9], [6, 3]], np.uint64))
    assert found.present.tolist() == [True, False, True, False]
    assert found.lines.tolist() == [3, 0, 1, 0]


def test_identity_digest_is_frozen() -> None:
    assert identity_digest("NeonIchiban/comic 1 ê/page_001").hex() == "f202235db81e56777ed5e945f146b8c2"
    high, low = digests_of(["a"])[0]
    assert identity_digest("a") == int(high).to_bytes(8, "big") + int(low).to_bytes(8, "big")
