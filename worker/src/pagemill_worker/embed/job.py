"""What an EmbeddingJob's file means for its encoders: settings, and what decides the bytes of its rows.

Layer: `worker.embed`, its door for `kinds`; imports no machine-learning package.
"""

from __future__ import annotations

from pathlib import Path

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.api.v1alpha1.models import Encoder, ModelRef
from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings


def visual_settings(job: EmbeddingJob, cache: Path) -> EncoderSettings | None:
    """The encoder of pictures, None when the job has none."""
    encoder = job.spec.visual
    if encoder is None:
        return None
    return EncoderSettings(
        side="visual",
        model=_model(encoder.model, cache),
        normalize=job.spec.effective_visual_normalize == "l2",
        dtype=encoder.effective_dtype,
        pooling=encoder.pooling,
        dim=encoder.dimensions,
        precision=encoder.effective_precision,
        batch_size=_batch_size(encoder),
        device=encoder.effective_device,
    )


def text_settings(job: EmbeddingJob, cache: Path) -> EncoderSettings | None:
    """The encoder of texts, None when the job has none."""
    encoder = job.spec.text
    if encoder is None:
        return None
    return EncoderSettings(
        side="text",
        model=_model(encoder.model, cache),
        normalize=job.spec.effective_text_normalize == "l2",
        dtype=encoder.effective_dtype,
        pooling=encoder.pooling,
        dim=encoder.dimensions,
        precision=encoder.effective_precision,
        batch_size=_batch_size(encoder),
        device=encoder.effective_device,
        max_tokens=encoder.max_tokens,
        prompt=encoder.effective_prompt,
        on_too_long=encoder.effective_on_too_long,
    )


def _model(given: ModelRef, cache: Path) -> ModelSettings:
    return ModelSettings(
        name=given.name,
        uri=given.uri,
        revision=given.revision,
        digest=given.digest,
        loader=given.loader,
        trust=given.effective_trust,
        cache=cache,
    )


def _batch_size(encoder: Encoder) -> int | None:
    wanted = encoder.effective_batch_size
    return wanted if isinstance(wanted, int) else None
