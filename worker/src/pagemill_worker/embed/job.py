"""What an EmbeddingJob's file means for its encoders: settings, and what decides the bytes of its rows.

Layer: `worker.embed`, its door for `kinds`; imports no machine-learning package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pagemill_core.api.v1alpha1 import EmbeddingJob
from pagemill_core.api.v1alpha1.models import Encoder, Normalize
from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings, Side


def visual_settings(job: EmbeddingJob, cache: Path) -> EncoderSettings | None:
    """The encoder of pictures, None when the job has none."""
    encoder = job.spec.visual
    return None if encoder is None else _settings("visual", encoder, job.spec.effective_visual_normalize, cache)


def text_settings(job: EmbeddingJob, cache: Path) -> EncoderSettings | None:
    """The encoder of texts, None when the job has none."""
    encoder = job.spec.text
    if encoder is None:
        return None
    return replace(
        _settings("text", encoder, job.spec.effective_text_normalize, cache),
        max_tokens=encoder.max_tokens,
        prompt=encoder.effective_prompt,
        on_too_long=encoder.effective_on_too_long,
    )


def _settings(side: Side, encoder: Encoder, normalize: Normalize, cache: Path) -> EncoderSettings:
    model, batch_size = encoder.model, encoder.effective_batch_size
    return EncoderSettings(
        side=side,
        model=ModelSettings(
            name=model.name,
            uri=model.uri,
            revision=model.revision,
            digest=model.digest,
            loader=model.loader,
            trust=model.effective_trust,
            cache=cache,
        ),
        normalize=normalize == "l2",
        dtype=encoder.effective_dtype,
        pooling=encoder.pooling,
        dim=encoder.dimensions,
        precision=encoder.effective_precision,
        batch_size=batch_size if isinstance(batch_size, int) else None,
        device=encoder.effective_device,
    )
