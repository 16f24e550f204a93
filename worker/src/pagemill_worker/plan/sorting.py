"""Sorting more rows than memory should hold.

Layer: `worker.plan`; pure but for temporary files in the folder it is given.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pagemill_worker.plan.request import ListingOrder

IN_MEMORY_ENTRIES = 200_000  # some 80 MB of names

_DIGITS = re.compile(r"(\d+)", re.ASCII)

SortKey = tuple[str | int, ...]


class Entry(NamedTuple):
    """A listed file: `name` is relative to the listing's root, with "/"."""

    name: str
    size_bytes: int
    version: str


def sort_key(name: str, order: ListingOrder) -> SortKey:
    """What `name` sorts by: its code points, or with numbers counted as numbers (`page_2` before `page_10`)."""
    if order == "codePoint":
        return (name,)
    parts: list[str | int] = list(_DIGITS.split(name))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return (*parts, name)


class Sorter:
    """Takes entries in any order and gives them back sorted; at most `in_memory` of them are held at once."""

    def __init__(self, order: ListingOrder, scratch: Path, *, in_memory: int = IN_MEMORY_ENTRIES) -> None:
        self._order = order
        self._scratch = scratch
        self._in_memory = in_memory
        self._held: list[Entry] = []
        self._runs: list[Path] = []

    def add(self, entry: Entry) -> None:
        self._held.append(entry)
        if len(self._held) >= self._in_memory:
            self._spill()

    def __iter__(self) -> Iterator[Entry]:
        self._held.sort(key=self._key)
        runs = [_read_run(path) for path in self._runs]
        yield from heapq.merge(*runs, self._held, key=self._key)

    def _key(self, entry: Entry) -> SortKey:
        return sort_key(entry.name, self._order)

    def _spill(self) -> None:
        self._held.sort(key=self._key)
        path = self._scratch / f"listing-{id(self):x}-{len(self._runs):05d}.jsonl"
        with path.open("w", encoding="ascii") as file:
            # ASCII escapes keep names that are not UTF-8 (surrogate escapes of the file system).
            file.writelines(f"{json.dumps(entry)}\n" for entry in self._held)
        self._runs.append(path)
        self._held = []


def _read_run(path: Path) -> Iterator[Entry]:
    with path.open(encoding="ascii") as file:
        for line in file:
            yield Entry(*json.loads(line))
