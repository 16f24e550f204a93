"""`metadata.json`: what the merged table holds and which models made it.

Layer: `worker.finalize`; pure but for the markers it reads. The outer fields `num_samples`, `model` and `timestamp` are
what existing readers know; the rest is Pagemill's own.
"""

from __future__ import annotations

from typing import Any

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.api.v1alpha1.models import Encoder
from pagemill_core.clock import from_iso
from pagemill_core.work.records import PlanPointer, Totals
from pagemill_worker.finalize.embedding import EmbeddingKind
from pagemill_worker.finalize.embedding_table import FAILURES_KEY, TableFiles


def metadata_of(kind: EmbeddingKind, pointer: PlanPointer, totals: Totals, files: TableFiles) -> dict[str, Any]:
    """The content of metadata.json; the same for every finalizer of the run.

    `timestamp` is when the last shard was finished, seconds since 1970: an instant that does not depend on who merges.
    """
    models = model_facts(kind.job)
    finished = max((from_iso(marker.finished) for marker in kind.markers()), default=from_iso(pointer.planned_at))
    sides = kind.shape.sides
    return {
        "num_samples": files.rows,
        "model": next(iter(models.values()))["model"] if models else "",
        "timestamp": finished.timestamp(),
        "failed": files.failures,
        "considered": totals.items.planned + pointer.already_done,
        "max_items": kind.job.spec.max_items,
        "dim": sides[0].dim if sides else None,
        "dtype": sides[0].dtype if sides else None,
        "normalized": sides[0].is_unit if sides else None,
        "models": models,
        "sides": {side.side: {"dim": side.dim, "dtype": side.dtype, "normalized": side.is_unit} for side in sides},
        "columns": files.columns,
        "files": files.keys,
        "failures": FAILURES_KEY,
        "run": pointer.run,
        "fingerprint": pointer.fingerprint,
    }


def model_facts(job: EmbeddingJob) -> dict[str, dict[str, Any]]:
    """The job's encoders by side, as its file names them."""
    spec = job.spec
    encoders: dict[str, Encoder | None] = {"visual": spec.visual, "text": spec.text}
    return {side: _facts(encoder) for side, encoder in encoders.items() if encoder is not None}


def _facts(encoder: Encoder) -> dict[str, Any]:
    model = encoder.model
    return {
        "model": model.name or model.uri or "",
        "revision": model.revision,
        "digest": model.digest,
        "pooling": encoder.pooling,
        "precision": encoder.effective_precision,
    }
