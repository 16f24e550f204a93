"""What lies below an output, as tables and matrices.

Layer: `pagemill`. Of each item the newest success of all finished runs counts, by the rule that merged tables follow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pagemill_cli.output.standing import ledger_of
from pagemill_cli.output.target import Target, job_of_plan, no_run, open_target
from pagemill_cli.settings import read_settings
from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.errors import InvalidSpecError, ObjectNotFoundError
from pagemill_core.work.layout import RunLayout
from pagemill_core.work.plan import read_plan
from pagemill_core.work.records import PlanPointer
from pagemill_worker.finalize.embedding_table import EmbeddingTable, part_tables
from pagemill_worker.finalize.embedding_union import counted_parts
from pagemill_worker.finalize.embedding_vectors import list_matrix
from pagemill_worker.plan.origin import original_job
from pagemill_worker.views.book_record import tensor_key

if TYPE_CHECKING:
    import pandas as pd
    import torch

VECTORS = {"visual": "embedding", "text": "text_embedding"}


def read(uri: str, *, job: str = "") -> Output:
    """The output at `uri`: s3://…, file:///…, a folder, or a job's YAML file (`job` chooses among several in it).

    Nothing is read yet. Stores are reached as the command reaches them, by PAGEMILL_S3_… or AWS's own variables.
    Raises: InvalidSpecError; ObjectNotFoundError when no run has finished there.
    """
    target = open_target(uri, read_settings(), job)
    finished = next((held for held in ledger_of(target).history() if held.entry.state == "Finished"), None)
    pointer = read_plan(target.writer, RunLayout(finished.run)) if finished is not None else None
    if pointer is None:
        raise no_run(target)
    return Output(target, pointer)


@dataclass(frozen=True)
class Output:
    """The results of an OcrJob or EmbeddingJob; `pointer` is the newest finished run's plan."""

    target: Target
    pointer: PlanPointer

    @property
    def uri(self) -> str:
        """Where the results are."""
        return self.target.uri

    @property
    def run(self) -> str:
        """The newest finished run."""
        return self.pointer.run

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in input order, some thousand at a time: url, key, caption, embedding, meta_… of an EmbeddingJob;
        of an OcrJob the dataset's columns. `columns`: only those."""
        for table in self._tables():
            yield table if columns is None else table.select(list(columns))

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in memory."""
        tables = list(self.batches(columns))
        if tables:
            return pa.concat_tables(tables)
        schema = self._table.schema if self._is_embedding else pa.schema([])
        return schema.empty_table() if columns is None else schema.empty_table().select(list(columns))

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows as a data frame."""
        return self.to_arrow(columns).to_pandas()

    def vectors(self, side: str = "visual") -> NDArray[Any]:
        """The vectors in row order, shape (rows, dim), in the job's number format. `side`: visual or text.

        Raises: InvalidSpecError when the job has no such side.
        """
        column = self._column(side)
        matrices = [list_matrix(table.column(column)) for table in self._tables() if len(table)]
        return np.concatenate(matrices) if matrices else np.empty((0, 0), np.float32)

    def to_torch(self, side: str = "visual") -> torch.Tensor:
        """The same as a tensor."""
        import torch

        return torch.from_numpy(self.vectors(side))

    def book(self, book: str) -> dict[str, torch.Tensor]:
        """The tensors of one book by side. Raises: ObjectNotFoundError when it has none; its record says why."""
        import torch

        found = {}
        for side in VECTORS:
            blob = self.target.writer.get(tensor_key(side, book))
            if blob is not None:
                found[side] = torch.load(io.BytesIO(blob.data), weights_only=True)
        if not found:
            raise ObjectNotFoundError(
                f"{self.uri} holds no tensors of the book {book!r}", advice=f"records/{book}.json says why"
            )
        return found

    def failures(self) -> pa.Table:
        """What failed and has not succeeded since: url, key, reason, message, id, row, run."""
        return self._table.failures()

    # -- how it is read -------------------------------------------------------------------------------------------

    @property
    def _is_embedding(self) -> bool:
        return self.pointer.kind == "EmbeddingJob"

    @cached_property
    def _job(self) -> EmbeddingJob | None:
        job = job_of_plan(self.pointer)
        if not isinstance(job, EmbeddingJob):
            return None
        environment = self.target.environment_of_run(self.pointer)
        return original_job(environment, job)

    @cached_property
    def _table(self) -> EmbeddingTable:
        writer, job = self.target.writer, self._job
        return EmbeddingTable(
            writer=writer,
            seq=RunLayout(self.pointer.run).seq,
            parts=counted_parts(
                writer,
                fingerprint=self.pointer.fingerprint,
                up_to=RunLayout(self.pointer.run).seq,
                has_books=job is not None and job.spec.items_are_books,
            ),
            fingerprint=self.pointer.fingerprint,
            is_partitioned=False,
            has_captions="caption" in self.pointer.columns,
        )

    def _tables(self) -> Iterator[pa.Table]:
        if self._is_embedding:
            return self._table.tables()
        return (table for one in self._table.parts for table in part_tables(self.target.writer, one))

    def _column(self, side: str) -> str:
        job = self._job
        if job is None:
            raise InvalidSpecError(f"{self.uri} holds text, not vectors", advice="to_pandas() gives its rows")
        given = {"visual": job.spec.visual, "text": job.spec.text}
        sides = [name for name, encoder in given.items() if encoder is not None]
        if side not in sides:
            if side == "visual" and sides == ["text"]:
                return "embedding"  # a job of texts has one column, and who asks for none in particular means it
            raise InvalidSpecError(f"{self.uri} has no {side} rows", advice=f"it has: {', '.join(sides)}")
        return "embedding" if sides[0] == side else "text_embedding"
