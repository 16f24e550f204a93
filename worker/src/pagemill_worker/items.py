"""Items as the worker's parts hand them to one another: planned, then ended in exactly one state.

Layer: the bottom of the worker; no I/O, no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pagemill_core.errors import ItemError

Status = Literal["succeeded", "failed", "skipped"]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """Why an item failed: `error_class` is a name of the error tree, `message` is for people."""

    error_class: str
    message: str

    @classmethod
    def of(cls, error: ItemError) -> ItemFailure:
        return cls(type(error).__name__, error.message)


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One row of the plan.

    `row` is the place in the whole plan from 0. `uri` is a local path, s3:// or http(s):// URI, `page` the page of a
    PDF or multi-page TIFF from 0 (None: the file is the item). `size_bytes` and `version` (etag, or size and mtime)
    are what the planner saw, None where it did not look; then `earlier_version` is what an earlier run read, if any
    did, and an item that still has it is skipped. `columns` are the source's own further columns.
    `input` is what a runner needs besides the URI: a text, or where in an archive a member lies.
    `failure` is set when the plan itself already knows that the item cannot be done (UnsafeId, DuplicateId).
    """

    row: int
    id: str
    uri: str
    page: int | None = None
    size_bytes: int | None = None
    version: str | None = None
    columns: Mapping[str, Scalar] = field(default_factory=dict)
    failure: ItemFailure | None = None
    earlier_version: str | None = None
    input: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemResult:
    """How an item ended. `payload` is the engine's result (JSON-able) when it succeeded, else None; `data` are the
    bytes that go with it (an encoder's rows), None where there are none."""

    item: PlannedItem
    status: Status
    payload: Mapping[str, Any] | None = None
    failure: ItemFailure | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    version_read: str | None = None
    data: bytes | None = field(default=None, repr=False)


class Outcome(NamedTuple):
    """How an item ended, as far as the item index needs to know; `version` is what was read, else what was planned."""

    id: str
    version: str | None
    status: str
    error_class: str | None

    @classmethod
    def of(cls, result: ItemResult) -> Outcome:
        failure = result.failure
        version = result.version_read or result.item.version
        return cls(result.item.id, version, result.status, failure.error_class if failure else None)
