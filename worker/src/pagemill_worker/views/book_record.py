"""A book's files: the tensors of its sides and the record of how it ended.

Layer: `worker.views`; pure. Written in this order: visual, text, record. Who sees a record of status `success`
therefore finds every tensor it names. Of a book that failed there is the record alone. The outer fields of the record
are the contract; what Pagemill adds lies under the one key `pagemill`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pagemill_core.errors import IntegrityError, UnsafeId
from pagemill_core.ids import check_item_id
from pagemill_core.work.publish import View
from pagemill_worker.embed.rows import unpack
from pagemill_worker.items import ItemResult
from pagemill_worker.views.book_tensors import render_tensor
from pagemill_worker.views.json_text import encode
from pagemill_worker.views.vectors import check_rows

SIDES = ("visual", "text")
RECORDS = "records"
_STATUSES: Mapping[str, str] = {"BookMissing": "missing_directory", "BookEmpty": "no_images"}


def tensor_key(side: str, book: str) -> str:
    """Where a side's tensor lies, the book's id verbatim. Raises: UnsafeId."""
    check_item_id(book, prefix=side, suffix=".pt")
    return f"{side}/{book}.pt"


def record_key(book: str) -> str:
    """Where a book's record lies. Raises: UnsafeId."""
    check_item_id(book, prefix=RECORDS, suffix=".json")
    return f"{RECORDS}/{book}.json"


def book_views(result: ItemResult, order: str, unit_sides: frozenset[str] = frozenset()) -> Iterator[View]:
    """The files of one book that was tried; none of one that was skipped, or whose id can be no key.

    `order` is that of the job's pages, `unit_sides` are those whose rows must have length 1.
    Raises: IntegrityError for rows that cannot be a success.
    """
    if result.status == "skipped":
        return
    try:
        key = record_key(result.item.id)
    except UnsafeId:
        return  # its failure is in the dataset and in the summary
    shapes: dict[str, list[int]] = {}
    if result.status == "succeeded":
        payload = result.payload or {}
        matrices = unpack(payload["rows"], result.data, result.item.id)
        for side, rows in ((side, matrices[side]) for side in SIDES if side in matrices):
            check_rows(rows, f"{result.item.id} ({side})", is_unit=side in unit_sides)
            shapes[side] = list(rows.shape)
            yield View(tensor_key(side, result.item.id), render_tensor(rows))
        if len({shape[0] for shape in shapes.values()}) != 1:
            raise IntegrityError(f"{result.item.id}: its sides have different numbers of rows: {shapes}")
    yield View(key, encode(book_record(result, shapes, order)))


def book_record(result: ItemResult, shapes: Mapping[str, list[int]], order: str) -> dict[str, Any]:
    """The record of a book that succeeded or failed; `shapes` are its tensors' by side."""
    book, payload = result.item.id, result.payload or {}
    pages: list[dict[str, Any]] = payload.get("pages", [])
    record: dict[str, Any] = {"book_id": book, "status": book_status(result), "pages": len(pages)}
    if result.status == "succeeded":
        for side in SIDES:
            record[f"{side}_shape"] = shapes.get(side)
        for side in SIDES:
            record[f"{side}_key"] = tensor_key(side, book) if side in shapes else None
    failure = result.failure
    return {
        **record,
        "pagemill": {
            "error_class": failure.error_class if failure else None,
            "error_message": failure.message if failure else None,
            "source_uri": result.item.uri,
            "version": result.version_read or result.item.version,
            "order": order,
            "rows": [page["name"] for page in pages if page.get("row") is not None],
            "page_index": [number for number, page in enumerate(pages) if page.get("row") is not None],
            "bad_pages": [_bad_page(number, page) for number, page in enumerate(pages) if page["status"] == "failed"],
            "ocr": dict(sorted(Counter(page["ocr"] for page in pages if page.get("ocr")).items())),
            "truncated_pages": sum(bool(page.get("truncated")) for page in pages),
        },
    }


def book_status(result: ItemResult) -> str:
    """How the book ended, in the words that existing readers know."""
    if result.failure is None:
        return "success" if result.status == "succeeded" else result.status
    return _STATUSES.get(result.failure.error_class, "error")


def _bad_page(number: int, page: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "page": number,
        "name": page["name"],
        "error_class": page.get("errorClass"),
        "error_message": page.get("errorMessage"),
    }
