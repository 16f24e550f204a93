"""The pointer to the item index: several objects shown at once, and only ever those of a newer run.

Layer: `core.work`. What stands in the index is the worker's; this module only makes its change atomic.
"""

from __future__ import annotations

from pagemill_core.errors import StoreUnavailableError
from pagemill_core.work.conditional import UNDECIDED, Writer
from pagemill_core.work.layout import INDEX_POINTER
from pagemill_core.work.records import IndexPointer


def read_index(writer: Writer) -> IndexPointer | None:
    """The index as it stands, None before the first."""
    blob = writer.get(INDEX_POINTER)
    return None if blob is None else IndexPointer.from_bytes(blob.data, INDEX_POINTER)


def show_index(writer: Writer, pointer: IndexPointer) -> bool:
    """Make `pointer` the index unless one of this or a newer run is. Returns: whether ours is the one shown."""
    backoff = writer.backoff()
    body = pointer.to_bytes()
    while True:
        try:
            if writer.store.put_if_absent(INDEX_POINTER, body) is not None:
                return True
            blob = writer.get(INDEX_POINTER)
            if blob is None:
                raise StoreUnavailableError(f"{INDEX_POINTER} exists and is not there: it was deleted meanwhile")
            found = IndexPointer.from_bytes(blob.data, INDEX_POINTER)
            if found.seq >= pointer.seq:
                return found == pointer
            if writer.store.put_if_match(INDEX_POINTER, body, blob.token) is not None:
                return True
        except UNDECIDED as error:
            backoff.wait(error)
