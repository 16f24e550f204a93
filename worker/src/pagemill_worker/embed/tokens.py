"""Tokenizers, as functions from texts to windows of token ids.

Layer: `worker.embed`. Nothing is cut off without its being seen: every tokenizer here gives the rest as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pagemill_core.errors import InvalidSpecError

Windows = Callable[[Sequence[str]], list[list[list[int]]]]


def transformers_windows(
    folder: Path, max_tokens: int, clean: Callable[[str], str] = lambda text: text
) -> tuple[Windows, int]:
    """(windows, id of padding) of the tokenizer in a transformers folder. Raises: InvalidSpecError."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if not getattr(tokenizer, "is_fast", False):
        raise InvalidSpecError(
            f"{folder} has a tokenizer in an old format", advice="save it with `tokenizer.json`, which is one file"
        )
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise InvalidSpecError(f"text.maxTokens: {max_tokens} leaves no room beside {special} special tokens")
    tokenizer.truncation_side = "right"
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    def windows(texts: Sequence[str]) -> list[list[list[int]]]:
        read = tokenizer(
            [clean(text) for text in texts],
            truncation=True,
            max_length=max_tokens,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        owners = zip(read["overflow_to_sample_mapping"], read["input_ids"], strict=True)
        # A text without a single token still needs one for a model to look at.
        return [[list(ids) or [pad] for _, ids in group] for _, group in groupby(owners, key=lambda pair: pair[0])]

    return windows, int(pad)


def clip_windows(tokenizer: Any, max_tokens: int) -> tuple[Windows, int]:
    """(windows, id of padding) of open_clip's own tokenizer."""

    def windows(texts: Sequence[str]) -> list[list[list[int]]]:
        return [_wrapped(tokenizer.encode(text)) for text in texts]

    def _wrapped(ids: list[int]) -> list[list[int]]:
        step = max_tokens - 2
        starts = range(0, max(1, len(ids)), step)
        return [[tokenizer.sot_token_id, *ids[at : at + step], tokenizer.eot_token_id] for at in starts]

    if max_tokens < 3:
        raise InvalidSpecError(f"text.maxTokens: {max_tokens} leaves no room beside 2 special tokens")
    return windows, 0
