"""A classified book's files: probabilities for programs, labels for people.

Layer: `worker.views`; pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from pagemill_core.errors import IntegrityError
from pagemill_core.ids import check_item_id
from pagemill_core.work.publish import View
from pagemill_worker.embed.classify.labels import SIDE, labels_json, labels_key, probabilities_key
from pagemill_worker.embed.rows import unpack
from pagemill_worker.items import ItemResult
from pagemill_worker.views.book_tensors import render_tensor
from pagemill_worker.views.vectors import check_rows


def label_views(result: ItemResult) -> Iterator[View]:
    """`labels/<book>_probs.pt` and `labels/<book>.json` of a book that succeeded; none of any other.

    Raises: IntegrityError for a success without labels, or with rows that cannot be probabilities.
    """
    if result.status != "succeeded" or result.payload is None:
        return
    book = result.item.id
    check_item_id(book, prefix=SIDE, suffix="_probs.pt")
    rows = unpack(result.payload["rows"], result.data, book).get(SIDE)
    if rows is None:
        raise IntegrityError(f"{book}: it has no labels")
    check_rows(rows, f"{book} (labels)")
    yield View(probabilities_key(book), render_tensor(rows))
    yield View(labels_key(book), labels_json(book, rows, result.payload["labels"]).encode())
