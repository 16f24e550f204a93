"""docs/reference/layout.md and the code say the same: every key, every record, every field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from pagemill_core.work import layout, records
from pagemill_core.work.layout import RunLayout

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/layout.md").read_text(encoding="utf-8")
# What each parameter of a key function is given, and how the page writes it.
GIVEN: dict[str, tuple[Any, str]] = {
    "seq": (77777777, "<seq8>"),
    "segment": (55555, "<segment5>"),
    "shard": (88888888, "<shard8>"),
    "attempt": ("ATTEMPT", "<attempt>"),
    "name": ("NAME", "<name>"),
    "number": (9, "<number>"),
    "pod": ("POD", "<pod>"),
    "epoch": (66666666, "<epoch8>"),
    "run": ("77777777-abcdef12", "<run>"),
    "part": (44444, "<part5>"),
}
NO_KEYS = {"seq_of_run_entry", "run_id", "segment_of", "shard_of"}
RECORDS = {
    name: kind
    for name, kind in vars(records).items()
    if inspect.isclass(kind) and issubclass(kind, BaseModel) and kind not in (BaseModel, records.Record, records.Sub)
}


def as_written(key: str) -> str:
    """A made key with its parts replaced by the page's placeholders."""
    key = re.sub(r"/data/[0-9a-f]{2}/", "/data/<hh>/", key)
    key = key.replace("77777777-abcdef12", "<run>").replace("88888/88888888", "<segment5>/<shard8>")
    for value, placeholder in GIVEN.values():
        if not (isinstance(value, int) and value < 10):
            key = key.replace(str(value), placeholder)
    return key.replace("/9.json", "/<number>.json")


def call(function: Any) -> str:
    return str(function(*(GIVEN[name][0] for name in inspect.signature(function).parameters)))


def made_keys() -> Iterator[str]:
    of_run = RunLayout("77777777-abcdef12")
    for name, member in vars(RunLayout).items():
        if isinstance(member, property) and name != "seq":
            yield getattr(of_run, name)
        elif inspect.isfunction(member) and not name.startswith("_"):
            yield call(getattr(of_run, name))
    for name, member in vars(layout).items():
        if inspect.isfunction(member) and member.__module__ == layout.__name__ and name not in NO_KEYS:
            yield call(member)
    yield layout.RUNS_PREFIX
    yield layout.INDEX_POINTER


def documented_keys() -> set[str]:
    in_tables = re.findall(r"^\| `([^`]+/[^`]*)` \|", PAGE, flags=re.MULTILINE)
    return set(in_tables)


def documented_fields(record: str) -> dict[str, str]:
    """Field name -> its row, from the record's own table."""
    section = re.search(rf"^### {record}\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert section is not None, f"the page has no section {record}"
    rows = re.findall(r"^\| `([^`]+)` \|.*$", section[1], flags=re.MULTILINE)
    lines = [line for line in section[1].splitlines() if line.startswith("| `")]
    return dict(zip(rows, lines, strict=True))


def test_layout_every_key_is_documented_and_nothing_else() -> None:
    assert {as_written(key) for key in made_keys()} == documented_keys()


def test_layout_every_record_is_documented_and_nothing_else() -> None:
    sections = set(re.findall(r"^### (\w+)$", PAGE, flags=re.MULTILINE))

    assert sections == set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_layout_fields_of_each_record_are_documented(name: str) -> None:
    fields = {
        info.serialization_alias or info.alias or field: info for field, info in RECORDS[name].model_fields.items()
    }
    rows = documented_fields(name)

    assert list(rows) == list(fields)
    assert {field for field, row in rows.items() if row.split("|")[2].strip() == "yes"} == {
        field for field, info in fields.items() if info.is_required()
    }


@pytest.mark.parametrize(
    ("record", "field", "values"),
    [
        ("RunEntry", "state", get_args(records.RunState)),
        ("RunEntry", "desired", get_args(records.Desired)),
        ("AttemptRecord", "ending", get_args(records.Ending)),
    ],
)
def test_layout_names_every_value_of_a_choice(record: str, field: str, values: tuple[str, ...]) -> None:
    assert re.findall(r"`(\w+)`", documented_fields(record)[field].split("|", 3)[3])[: len(values)] == list(values)


def test_layout_links_lead_to_a_section() -> None:
    anchors = {section.lower() for section in re.findall(r"^### (\w+)$", PAGE, flags=re.MULTILINE)}

    assert set(re.findall(r"\]\(#(\w+)\)", PAGE)) <= anchors


def test_layout_segment_size_is_the_documented_one() -> None:
    assert layout.SEGMENT_SHARDS == 1000
    assert "a segment is 1000 shards" in PAGE
