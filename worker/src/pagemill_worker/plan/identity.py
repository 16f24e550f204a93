"""Which rows become items: ids that can be keys, each once, none in another's way.

Layer: `worker.plan`, above `digests`. Judges rows in the source's order: the first of an id wins, later ones fail with
both line numbers, and exact repeats are dropped and counted. Failed rows stay in the plan as failed items.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import UnsafeId
from pagemill_core.ids import MAX_KEY_BYTES, MAX_SEGMENT_BYTES, check_item_id
from pagemill_worker.items import ItemFailure
from pagemill_worker.plan.digests import DigestMap, Digests, digests_of, short_digests
from pagemill_worker.plan.request import Folding, KeyRules
from pagemill_worker.plan.rows import Candidates

_FOLDER = 0  # a claim on a name because a folder must be there
_SAME_KEY = 1  # because two formats give the same key

# Ids that no rule can object to, whatever their length: the common case, decided by one match instead of by character.
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. #()+,=@-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_. #()+,=@-]*)*\Z").match

_HALF_PAIR = re.compile("[\ud800-\udfff]").search  # no UTF-8 table could hold such an id as it is

_FOLDS: dict[Folding, Callable[[str], str]] = {
    "case": str.casefold,
    "normal": lambda text: unicodedata.normalize("NFC", text),
    "caseAndNormal": lambda text: unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()),
}


@dataclass(slots=True)
class Repeats:
    """Exact repeats that were dropped: how many, and the line of the first."""

    count: int = 0
    first_line: int = 0


class IdentityCheck:
    """Judges batch after batch; `seen` maps every id so far to its line."""

    def __init__(self, rules: KeyRules, scratch: Path, *, noun: str = "line") -> None:
        self._rules = rules
        self._noun = noun
        self._fold = _FOLDS.get(rules.folding)
        self._claimed = DigestMap(scratch)
        self._tails = _tails(rules.suffixes)
        self._may_claim = _claim_pattern(rules.suffixes, self._tails) if rules.are_keys else lambda _: None
        self._plain_length = _plain_length(rules)
        self.seen = DigestMap(scratch)
        self.repeats = Repeats()

    def judge(self, batch: Candidates) -> Candidates:
        """The batch without exact repeats, with failures put in for ids that cannot be.

        A row that already failed (an unreadable PDF) keeps its own reason.
        """
        failures = dict(self._unsafe(batch.ids))
        ids = batch.ids if self._fold is None else [self._fold(item_id) for item_id in batch.ids]
        digests = digests_of(ids)
        kept, other_lines = self._first_of_each(batch, digests)
        for index, line in other_lines.items():
            failures.setdefault(index, self._duplicate(batch, index, line))
        for index, line, kind in self._in_the_way(batch.lines, ids, digests):
            failures.setdefault(index, self._clash(batch, index, line, kind))
        batch.failures.update({index: failure for index, failure in failures.items() if index not in batch.failures})
        return batch if kept.all() else batch.take(np.flatnonzero(kept).tolist())

    def _unsafe(self, ids: Sequence[str]) -> Iterator[tuple[int, ItemFailure]]:
        if not self._rules.are_keys:
            for index, item_id in enumerate(ids):
                if not item_id or _HALF_PAIR(item_id):
                    yield (
                        index,
                        ItemFailure("UnsafeId", "the id is empty" if not item_id else "the id is no valid text"),
                    )
            return
        limit = self._plain_length
        for index, item_id in enumerate(ids):
            if len(item_id) > limit or not _PLAIN(item_id):
                failure = check_id(item_id, self._rules)
                if failure:
                    yield index, failure

    def _first_of_each(self, batch: Candidates, digests: Digests) -> tuple[NDArray[np.bool_], dict[int, int]]:
        """Which rows to keep, and for those whose id stood before with another path, the line it stood on."""
        payloads = short_digests(_payload_texts(batch))
        lines = np.asarray(batch.lines, np.int64)
        found = self.seen.find(digests)
        first = _first_in_batch(digests)
        new = (first == np.arange(len(first))) & ~found.present
        self.seen.add(digests[new], payloads[new], lines[new])
        again = ~new
        known_payloads = np.where(found.present, found.payloads, payloads[first])
        known_lines = np.where(found.present, found.lines, lines[first])
        repeats = again & (known_payloads == payloads)
        if repeats.any():
            self.repeats.first_line = self.repeats.first_line or int(lines[repeats][0])
            self.repeats.count += int(repeats.sum())
        clashes = np.flatnonzero(again & ~repeats)
        return ~repeats, {int(index): int(known_lines[index]) for index in clashes}

    def _in_the_way(self, lines: list[int], ids: Sequence[str], digests: Digests) -> Iterator[tuple[int, int, int]]:
        """Rows whose key is a folder, or the very key, of an earlier row with another id: (index, line, kind)."""
        claiming = [(index, item_id) for index, item_id in enumerate(ids) if self._may_claim(item_id)]
        claims = [(index, stem, kind) for index, item_id in claiming for stem, kind in self._claims(item_id)]
        if claims:
            stems = digests_of(stem for _, stem, _ in claims)
            found = self.seen.find(stems)
            for (index, _, kind), present, line in zip(claims, found.present, found.lines, strict=True):
                if present and line < lines[index]:
                    yield index, int(line), kind
            claimed_on = np.asarray([lines[index] for index, _, _ in claims], np.int64)
            self._claim(stems, claimed_on, np.asarray([kind for _, _, kind in claims], np.uint64))
        if len(self._claimed):
            found = self._claimed.find(digests)
            for index in np.flatnonzero(found.present):
                if found.lines[index] < lines[index]:
                    yield int(index), int(found.lines[index]), int(found.payloads[index])

    def _claims(self, item_id: str) -> Iterator[tuple[str, int]]:
        """Ids whose views would stand where a folder or a view of `item_id` must be."""
        folders = itertools.accumulate(item_id.split("/")[:-1], lambda above, name: f"{above}/{name}")
        for folder, suffix in itertools.product(folders, self._rules.suffixes):
            if folder.endswith(suffix) and len(folder) > len(suffix):
                yield folder[: len(folder) - len(suffix)], _FOLDER
        for tail in self._tails:
            if item_id.endswith(tail) and len(item_id) > len(tail):
                yield item_id[: -len(tail)], _SAME_KEY

    def _claim(self, stems: Digests, lines: NDArray[np.int64], kinds: NDArray[np.uint64]) -> None:
        new = (_first_in_batch(stems) == np.arange(len(stems))) & ~self._claimed.find(stems).present
        self._claimed.add(stems[new], kinds[new], lines[new])

    def _duplicate(self, batch: Candidates, index: int, line: int) -> ItemFailure:
        item_id, here = batch.ids[index], batch.lines[index]
        also = " (or one that the output's file system takes for it)" if self._fold else ""
        message = f"{self._noun} {here} has the id {item_id!r}{also} of {self._noun} {line}, with another path"
        return ItemFailure("DuplicateId", message)

    def _clash(self, batch: Candidates, index: int, line: int, kind: int) -> ItemFailure:
        here = f"{self._noun} {batch.lines[index]}: the results of {batch.ids[index]!r}"
        if kind == _FOLDER:
            return ItemFailure("UnsafeId", f"{here} need a folder where {self._noun} {line} has a file, or the reverse")
        return ItemFailure("DuplicateId", f"{here} would have the same name as results of {self._noun} {line}")


def check_id(item_id: str, rules: KeyRules) -> ItemFailure | None:
    """Why `item_id` cannot be a key of every view, or None."""
    try:
        for suffix in rules.suffixes:
            check_item_id(item_id, prefix=rules.prefix, suffix=suffix)
    except UnsafeId as error:
        return ItemFailure.of(error)
    longest = max(len(suffix.encode()) for suffix in rules.suffixes)
    if _prefix_bytes(rules) + len(item_id.encode()) + longest > MAX_KEY_BYTES:
        return ItemFailure("UnsafeId", f"the id {item_id[:80]!r} makes a key of more than {MAX_KEY_BYTES} bytes")
    return None


def probe_folding(folder: Path) -> Folding:
    """Which different names the file system of `folder` takes for one. Leaves nothing behind. Raises: OSError."""
    probe = folder / ".pagemill-folding-\N{LATIN SMALL LETTER E WITH ACUTE}"
    probe.touch()
    try:
        case = probe.with_name(probe.name.replace("pagemill", "PAGEMILL")).exists()
        normal = probe.with_name(unicodedata.normalize("NFD", probe.name)).exists()
    finally:
        probe.unlink()
    if case:
        return "caseAndNormal" if normal else "case"
    return "normal" if normal else "none"


def _payload_texts(batch: Candidates) -> Iterator[str]:
    """What makes a repeat exact: the id as written, the file, the page, and what else the item reads."""
    if batch.inputs:
        rows = zip(batch.ids, batch.uris, batch.pages, range(len(batch)), strict=True)
        return (f"{item_id}\0{uri}\0{page}\0{batch.inputs.get(at)}" for item_id, uri, page, at in rows)
    if batch.pages.count(None) == len(batch.pages):
        return (f"{item_id}\0{uri}" for item_id, uri in zip(batch.ids, batch.uris, strict=True))
    paged = zip(batch.ids, batch.uris, batch.pages, strict=True)
    return (f"{item_id}\0{uri}" if page is None else f"{item_id}\0{uri}\0{page}" for item_id, uri, page in paged)


def _first_in_batch(digests: Digests) -> NDArray[np.int64]:
    """For each row the index of the first row with its digest."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests stay in order
    ordered = digests[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return first


def _tails(suffixes: Sequence[str]) -> tuple[str, ...]:
    """What an id may end in so that with a short suffix it makes the key of another id with a long one."""
    pairs = itertools.permutations(set(suffixes), 2)
    return tuple(sorted({long[: len(long) - len(short)] for long, short in pairs if long.endswith(short)}))


def _claim_pattern(suffixes: Sequence[str], tails: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    """Finds the few ids that could need a folder, or a key, where another id has its view."""
    marks = [f"{re.escape(suffix)}/" for suffix in suffixes] + [rf"{re.escape(tail)}\Z" for tail in tails]
    return re.compile("|".join(marks)).search


def _prefix_bytes(rules: KeyRules) -> int:
    return sum(len(part.strip("/").encode()) + 1 for part in (rules.root, rules.prefix) if part)


def _plain_length(rules: KeyRules) -> int:
    """The most characters that a plain id may have without any length rule coming into play."""
    longest = max(len(suffix.encode()) for suffix in rules.suffixes)
    return min(MAX_SEGMENT_BYTES, MAX_KEY_BYTES - _prefix_bytes(rules)) - longest
