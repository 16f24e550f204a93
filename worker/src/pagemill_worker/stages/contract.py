"""A stage of one's own: the class that a user writes. The contract stands here.

Layer: the bottom of `worker.stages`; imports no engine and no model. A stage's module is also imported by whoever plans
and checks the job, so it imports heavy packages inside `setup`, never at its top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pagemill_worker.images.page import PageImage
from pagemill_worker.items import Scalar
from pagemill_worker.ocr.engine import PageText

__all__ = ["PageImage", "PageText", "Stage", "StageItem", "Vector"]


@dataclass(frozen=True, slots=True)
class Vector:
    """The row that an encoder made of an item, read-only; the picture's where there is a picture and a text."""

    values: NDArray[np.floating[Any]]
    side: Literal["visual", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageItem:
    """What goes into a stage and comes out of it.

    `id` names the item of the source, and what comes out keeps it: several with one id are pieces of one item.
    `notes` is what the stage says of it, by names of its own; it lands in the results under the stage's name.
    `filtered` says why the item goes no further, empty when it does. `offset_px` is where a piece of a picture lies in
    the picture it was cut from, (x, y) from the top left; boxes found on the piece are moved by it.
    """

    id: str
    value: Any
    notes: Mapping[str, Scalar] = field(default_factory=dict)
    filtered: str = ""
    offset_px: tuple[int, int] = (0, 0)

    def with_value(self, value: Any, **notes: Scalar) -> StageItem:
        """This item with another value, and notes beside those it has."""
        return replace(self, value=value, notes={**self.notes, **notes})

    def with_notes(self, **notes: Scalar) -> StageItem:
        """This item with notes beside those it has."""
        return replace(self, notes={**self.notes, **notes})

    def drop(self, reason: str, **notes: Scalar) -> StageItem:
        """This item, to go no further: it is recorded as failed, FilteredByStage, with `reason` and the notes."""
        return replace(self, filtered=reason or "no reason was given", notes={**self.notes, **notes})


class Stage:
    """Subclass this. Set `takes` and `gives`, write `process`; the rest may stay as it is.

    The constructor gets the job's `options` as keyword arguments, all of them texts, and only looks at them: it is also
    called where the job is checked. It raises ValueError for an option that makes no sense.
    """

    takes: ClassVar[type]
    """What comes in: PageImage, PageText, Vector or str."""
    gives: ClassVar[type]
    """What goes out; what the stage behind takes."""
    batch_size: int = 1
    """Items worth handing over at once; a job's `batchSize` overrides it. Stages of 1 in front of the model run beside
    it, in the threads that fetch and decode; a larger batch is made in the model's own thread."""
    version: ClassVar[str] = ""
    """Raised when the same input gives another result; "" means every new version of the package or the module does."""

    def setup_on_node(self) -> None:
        """Prepare what the processes of one machine share, such as a file on its disk. Called once before the others
        go on."""

    def setup(self) -> None:
        """Load what one process needs. Called once a process, before the first item."""

    def process(self, items: Sequence[StageItem]) -> Sequence[StageItem]:
        """Do the stage's work on up to `batch_size` items: N in, M out.

        Each item comes out at least once, in the order in which they came in, all pieces of one together. An item that
        shall go no further comes out as `item.drop(reason)`. Called by one thread at a time.

        Raises: anything. Whatever it raises is tried again as `attempts` says, then recorded for the item as
        EngineFailed with a digest of the traceback; errors of Pagemill's own tree keep their names.
        """
        raise NotImplementedError

    def shutdown(self) -> None:
        """Free what `setup` took. Called once a process, when its work is done; not when it is killed."""
