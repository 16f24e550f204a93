"""Ten thousand malformed manifests: either every row comes back as written, or the first bad line is named.

The oracle reads CSV character by character and shares nothing with the reader under test, which stands on Python's own.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagemill_core.errors import SourceError, UnsafeId
from pagemill_core.ids import check_item_id
from pagemill_core.storage.memory import MemoryStore
from pagemill_worker.plan.csv_rows import CsvTable
from pagemill_worker.plan.expand import Pages
from pagemill_worker.plan.json_rows import read_json_lines
from pagemill_worker.plan.planner import PlanTools, plan_source
from pagemill_worker.plan.reader import ShardReader
from pagemill_worker.plan.request import KeyRules, ManifestRequest, PlanRequest
from pagemill_worker.plan.text_lines import read_lines

REQUEST = ManifestRequest(uri="memory://fuzz/m.csv", id_column="id", path_column="path")

Row = tuple[int, str, str, dict[str, str]]

CELLS = (
    "page",
    "a/b",
    "",
    " ",
    "p#1 ê",
    "日本語",
    'say "hi"',
    "x,y",
    "line\nend",
    "line\r\nend",
    "cr\rend",
    "\u2028",
    "\x0b\x1c",
    "../x",
    "\ufeffbom",
    "😀",
    "'",
    "\\",
    "0001",
    "NUL",
)


class BadLine(Exception):
    """The oracle's refusal, with the line; `is_open` when a quote is still open where the text ends."""

    def __init__(self, line: int, *, is_open: bool = False) -> None:
        super().__init__(line)
        self.line = line
        self.is_open = is_open


def manifest_bytes(dice: random.Random) -> bytes:
    """A CSV manifest, mostly well formed, then damaged in up to three ways."""
    names = ["id", "path", *dice.sample(["extra", "née", "n o", ""], dice.randint(0, 2))]
    dice.shuffle(names)
    rows = [
        [dice.choice(CELLS) if dice.random() < 0.5 else f"v{dice.randint(0, 9)}" for _ in names]
        for _ in range(dice.randint(0, 8))
    ]
    text = io.StringIO(newline="")
    end = dice.choice(["\n", "\r\n", "\r"])
    quoting = dice.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([names, *rows])
    data = text.getvalue().encode()
    if dice.random() < 0.2:
        data = b"\xef\xbb\xbf" + data
    for _ in range(dice.choice([0, 0, 1, 1, 2, 3])):
        data = damage(data, dice)
    return data


def damage(data: bytes, dice: random.Random) -> bytes:
    at = dice.randint(0, len(data))
    piece = dice.choice(
        [
            b'"',
            b",",
            b"\n",
            b"\r",
            b"\r\n",
            b"\0",
            b"\xff",
            b"\xc3",
            b"\xed\xa0\x80",
            b"\xe3\x81",
            b"\n\n",
            b" ",
            b"\xef\xbb\xbf",
        ]
    )
    kind = dice.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + dice.randint(1, 4) :]
    if kind == 2:
        return data[:at] + data[max(0, at - 12) :]
    if kind == 3 and dice.random() < 0.1:
        return data.decode("utf-8", "replace").encode("utf-16")
    return data[:at] + piece + data[at:]


def oracle_text(data: bytes) -> tuple[str, int | None]:
    """The text up to the end of the last good line, and the line of the first bad byte."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "", 1
    data = data.removeprefix(b"\xef\xbb\xbf")
    bad = data.find(b"\0")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        bad = error.start if bad < 0 else min(bad, error.start)
    if bad < 0:
        return data.decode(), None
    good = data[:bad].decode()
    starts = [match.end() for match in re.finditer(r"\r\n|\r|\n", good)]
    return good[: starts[-1] if starts else 0], len(starts) + 1


# One token after another; the pattern that fits the state decides. Cells in quotes may hold anything.
PLAIN = re.compile(r"[^,\r\n]*")
QUOTED = re.compile(r'"((?:[^"]|"")*)"(?!")')
ROW_END = re.compile(r"\r\n|\r|\n")


def oracle_records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Records with the line they start on; blank lines are none. Raises: BadLine."""
    at, line = 0, 1
    while at < len(text):
        blank = ROW_END.match(text, at)
        if blank:
            at, line = blank.end(), line + 1
            continue
        start, record = line, list[str]()
        while True:
            quoted = QUOTED.match(text, at)
            if text.startswith('"', at) and not quoted:
                raise BadLine(start, is_open=True)
            cell = quoted or PLAIN.match(text, at)
            assert cell is not None
            record.append(quoted[1].replace('""', '"') if quoted else cell[0])
            line += len(ROW_END.findall(cell[0]))
            at = cell.end()
            if not text.startswith(",", at):
                break
            at += 1
        end = ROW_END.match(text, at)
        if end is None and at < len(text):
            raise BadLine(start)
        at, line = (end.end(), line + 1) if end else (at, line)
        yield start, record


def oracle_rows(data: bytes) -> list[Row]:
    """What the manifest says. Raises: BadLine with the first line that cannot be taken."""
    text, bad_line = oracle_text(data)
    rows: list[Row] = []
    names: list[str] | None = None
    try:
        for line, cells in oracle_records(text):
            if names is None:
                names = [name or f"column_{place}" for place, name in enumerate(cells, 1)]
                if len(set(names)) < len(names) or not {"id", "path"} <= set(names):
                    raise BadLine(line)
                continue
            if len(cells) != len(names):
                raise BadLine(line)
            found = dict(zip(names, cells, strict=True))
            rows.append((line, found.pop("id"), found.pop("path"), found))
    except BadLine as error:
        # An open quote before a bad byte is not the first problem: its cell might have been closed further on.
        raise BadLine(bad_line) if bad_line and error.is_open else error from None
    if bad_line is not None:
        raise BadLine(bad_line)
    if names is None:
        raise BadLine(1)
    return rows


def pieces(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """`data` in blocks whose ends fall anywhere: inside characters, line ends and quotes."""
    at = 0
    while at < len(data):
        size = dice.choice([1, 2, 3, 7, 40, 1000])
        yield data[at : at + size]
        at += size


def read_csv(data: bytes, dice: random.Random) -> list[Row]:
    table = CsvTable(read_lines(pieces(data, dice), REQUEST.uri), REQUEST)
    rows = [row for batch in table.batches() for row in batch.rows()]
    return [(row.line, row.id, row.path, {name: str(cell) for name, cell in row.columns.items()}) for row in rows]


def outcome_of(data: bytes, dice: random.Random) -> list[Row] | int:
    """The rows, or the number of the line that the refusal names."""
    try:
        return read_csv(data, dice)
    except SourceError as error:
        named = re.match(r"memory://fuzz/m\.csv: line (\d+)\b", error.message)
        assert named, error.message
        return int(named[1])


def want_of(data: bytes) -> list[Row] | int:
    try:
        return oracle_rows(data)
    except BadLine as error:
        return error.line


def test_manifest_csv_ten_thousand_damaged_give_every_row_or_the_first_bad_line() -> None:
    refused = 0
    for seed in range(10_000):
        dice = random.Random(seed)
        data = manifest_bytes(dice)
        want = want_of(data)
        assert outcome_of(data, dice) == want, f"seed {seed}: {data!r}"
        refused += isinstance(want, int)
    assert 3_000 < refused < 9_000, "the generator makes too few manifests of one of the two kinds"


def json_bytes(dice: random.Random) -> bytes:
    rows = []
    for _ in range(dice.randint(0, 6)):
        row: dict[str, object] = {"id": dice.choice([*CELLS, 7, None]), "path": dice.choice(CELLS)}
        if dice.random() < 0.5:
            row["more"] = dice.choice([1, 2.5, None, True, "ê", [1, {"a": "\ud800"}], {"b": []}, "\ud83d"])
        if dice.random() < 0.05:
            row.pop(dice.choice(["id", "path"]))
        rows.append(json.dumps(row, ensure_ascii=dice.random() < 0.5 or "\\ud8" in json.dumps(row)))
    data = "".join(line + dice.choice(["\n", "\r\n"]) for line in rows).encode()
    for _ in range(dice.choice([0, 1, 1, 2])):
        data = damage(data, dice)
    return data


def oracle_json(data: bytes) -> list[tuple[int, str, str]]:
    text, bad_line = oracle_text(data)
    rows = []
    lines = re.split(r"\r\n|\r|\n", text)
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=lambda found: ("object", found))
        except ValueError:
            raise BadLine(number) from None
        if not isinstance(pairs, tuple):
            raise BadLine(number)
        _, cells = pairs
        names = [name for name, _ in cells]
        if len(set(names)) < len(names) or not {"id", "path"} <= set(names) or _has_twice(cells):
            raise BadLine(number)
        found = dict(cells)
        values = [found["id"], found["path"]]
        if any(not isinstance(value, str | int | None) or isinstance(value, bool) for value in values):
            raise BadLine(number)
        rows.append((number, *("" if value is None else str(value) for value in values)))
    if bad_line is not None:
        raise BadLine(bad_line)
    return rows


def _has_twice(value: object) -> bool:
    """Whether any object inside names something twice."""
    if isinstance(value, tuple) and value[:1] == ("object",):
        names = [name for name, _ in value[1]]
        return len(set(names)) < len(names) or _has_twice(value[1])
    return isinstance(value, list | tuple) and any(map(_has_twice, value))


def test_manifest_json_lines_three_thousand_damaged_give_every_row_or_the_first_bad_line() -> None:
    for seed in range(3_000):
        dice = random.Random(seed)
        data = json_bytes(dice)
        try:
            want: list[tuple[int, str, str]] | int = oracle_json(data)
        except BadLine as error:
            want = error.line
        try:
            batches = read_json_lines(read_lines(pieces(data, dice), REQUEST.uri), REQUEST, {})
            got: list[tuple[int, str, str]] | int = [
                (row.line, row.id, row.path) for batch in batches for row in batch.rows()
            ]
        except SourceError as error:
            named = re.search(r": line (\d+)\b", error.message)
            assert named, error.message
            got = int(named[1])
        assert got == want, f"seed {seed}: {data!r}"


def want_items(rows: list[Row], keys: KeyRules) -> list[tuple[str, str | None, dict[str, str]]]:
    """(id, failure class, columns) of each planned item, by the rules of identity alone."""
    first: dict[str, str] = {}
    items: list[tuple[str, str | None, dict[str, str]]] = []
    for _, item_id, path, columns in rows:
        if first.get(item_id) == path:
            continue
        failure: str | None = None
        try:
            check_item_id(item_id, prefix=keys.prefix, suffix=keys.suffixes[0])
        except UnsafeId:
            failure = "UnsafeId"
        if failure is None and item_id in first:
            failure = "DuplicateId"
        if not path:
            failure = "ImageMissing"
        first.setdefault(item_id, path)
        items.append((item_id, failure, columns))
    return items


def test_planner_damaged_manifests_come_back_from_the_tables_unchanged(tmp_path: Path) -> None:
    keys = KeyRules(prefix="ocr_results", suffixes=("_ocr.json",))
    planned = 0
    for seed in range(600):
        data = manifest_bytes(random.Random(seed))
        store = MemoryStore("fuzz")
        store.put("m.csv", data)
        tools = PlanTools(
            open_store=lambda _, store=store: store,
            count_pages=lambda _: Pages(1),
            store=store,
            prefix="plan/a/",
            scratch=tmp_path,
        )
        want = want_of(data)
        if isinstance(want, int):
            with pytest.raises(SourceError, match=rf"line {want}\b"):
                plan_source(PlanRequest(source=REQUEST, keys=keys), tools)
            continue
        result = plan_source(PlanRequest(source=REQUEST, keys=keys), tools)
        items = [item for _, item in ShardReader(store, result.parts).all_items()]
        got = [(item.id, item.failure and item.failure.error_class, dict(item.columns)) for item in items]
        assert got == want_items(want, keys), f"seed {seed}: {data!r}"
        assert result.items + result.repeats == len(want)
        planned += 1
    assert planned > 100
    assert not list(tmp_path.iterdir()), "a planner that ended left files behind"
