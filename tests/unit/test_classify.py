"""Pages of books classified: the two models against their arithmetic written out, windows, padding, checkpoints."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError, RowUnusable
from pagemill_worker.embed.classify.classifier import BookRows, Classifier, load_classifier, probabilities_pt
from pagemill_worker.embed.classify.labels import LABELS, labels_json, labels_key, probabilities_key
from pagemill_worker.embed.classify.networks import BookBert, Cosmo
from pagemill_worker.embed.classify.settings import ClassifierConfig, ClassifierSettings, default_config, read_config
from pagemill_worker.embed.classify.windows import Window, merged, windows_of

SMALL = {
    "visual_feature_dim": 12,
    "textual_feature_dim": 8,
    "bert_input_dim": 16,
    "projection_dim": 24,
    "hidden_dim": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_pages": 10,
}


def book(name: str, pages: int, seed: int = 0) -> BookRows:
    rng = np.random.default_rng([seed, pages])
    return BookRows(
        name, rng.normal(size=(pages, 12)).astype(np.float16), rng.normal(size=(pages, 8)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints of both kinds with random weights, and the file of their sizes."""
    folder = tmp_path_factory.mktemp("classify")
    torch.manual_seed(0)
    config = ClassifierConfig(**SMALL)
    (folder / "small.json").write_text(json.dumps(SMALL))
    for name, model in (("bookBert", BookBert(config)), ("cosmo", Cosmo(config))):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.2)
        torch.save(model.state_dict(), folder / f"{name}.pt")
    return folder


def settings_of(folder: Path, model: Any = "bookBert", **more: Any) -> ClassifierSettings:
    given = {"checkpoint": folder / f"{model}.pt", "config": folder / "small.json", "window_overlap": 4, **more}
    return ClassifierSettings(model=model, **given)


def attention(tokens: Tensor, packed: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Self-attention over all tokens, written out; `packed` holds query, key and value one over the other."""
    query, key, value = functional.linear(tokens, packed, bias).chunk(3, dim=-1)
    split = [part.reshape(len(tokens), heads, -1).transpose(0, 1) for part in (query, key, value)]
    weights = (split[0] @ split[1].transpose(1, 2) / split[0].shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ split[2]).transpose(0, 1).reshape(len(tokens), -1)


def norm(tokens: Tensor, weights: Mapping[str, Tensor], name: str, eps: float = 1e-5) -> Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def linear(tokens: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return functional.linear(tokens, weights[f"{name}.weight"], weights[f"{name}.bias"])


def book_bert_by_hand(weights: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    tokens = linear(rows, weights, "input_projection") + weights["pos_embedding.weight"][: len(rows)]
    for layer in range(2):
        at = f"transformer_encoder.layers.{layer}"
        packed, bias = weights[f"{at}.self_attn.in_proj_weight"], weights[f"{at}.self_attn.in_proj_bias"]
        answer = linear(attention(tokens, packed, bias, 2), weights, f"{at}.self_attn.out_proj")
        tokens = norm(tokens + answer, weights, f"{at}.norm1")
        wide = functional.relu(linear(tokens, weights, f"{at}.linear1"))
        tokens = norm(tokens + linear(wide, weights, f"{at}.linear2"), weights, f"{at}.norm2")
    return linear(tokens, weights, "classifier_head").softmax(dim=-1)


def sequential(tokens: Tensor, weights: Mapping[str, Tensor], name: str, steps: str) -> Tensor:
    """Numbered layers: l linear, n norm, g GELU, d dropout."""
    for place, step in enumerate(steps):
        at = f"{name}.{place}"
        if step == "l":
            tokens = linear(tokens, weights, at)
        elif step == "n":
            tokens = norm(tokens, weights, at)
        elif step == "g":
            tokens = functional.gelu(tokens)
    return tokens


def cosmo_by_hand(weights: Mapping[str, Tensor], visual: Tensor, text: Tensor) -> Tensor:
    halves = [
        norm(sequential(side, weights, f"{name}_projection", "lngdlngdl"), weights, "norm")
        for side, name in ((text, "textual"), (visual, "visual"))
    ]
    tokens = torch.stack(halves, dim=1).reshape(2 * len(text), -1)
    at = "bert_encoder.embeddings"
    tokens = tokens + weights[f"{at}.position_embeddings.weight"][: len(tokens)]
    tokens = norm(tokens + weights[f"{at}.token_type_embeddings.weight"][0], weights, f"{at}.LayerNorm", 1e-12)
    for layer in range(2):
        at = f"bert_encoder.encoder.layer.{layer}"
        parts = [f"{at}.attention.self.{name}" for name in ("query", "key", "value")]
        packed = torch.cat([weights[f"{part}.weight"] for part in parts])
        bias = torch.cat([weights[f"{part}.bias"] for part in parts])
        answer = linear(attention(tokens, packed, bias, 2), weights, f"{at}.attention.output.dense")
        tokens = norm(tokens + answer, weights, f"{at}.attention.output.LayerNorm", 1e-12)
        wide = functional.gelu(linear(tokens, weights, f"{at}.intermediate.dense"))
        tokens = norm(tokens + linear(wide, weights, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm", 1e-12)
    return sequential(tokens[1::2], weights, "classifier", "llngdlngdl").softmax(dim=-1)


@pytest.mark.parametrize("order", ["visualText", "textVisual"])
def test_book_bert_gives_the_rows_of_its_arithmetic(folder: Path, order: Any) -> None:
    given = book("a", 7)
    visual, text = torch.from_numpy(given.visual.astype(np.float32)), torch.from_numpy(np.array(given.text))
    weights = torch.load(folder / "bookBert.pt")

    found = load_classifier(settings_of(folder, input_order=order)).classify([given])[0]

    sides = [visual, text] if order == "visualText" else [text, visual]
    assert np.allclose(found, book_bert_by_hand(weights, torch.cat(sides, dim=1)).numpy(), atol=1e-5)
    assert (found.shape, found.dtype) == ((7, 9), np.float32)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)


def test_cosmo_gives_the_rows_of_its_arithmetic(folder: Path) -> None:
    given = book("a", 7)
    visual, text = torch.from_numpy(given.visual.astype(np.float32)), torch.from_numpy(np.array(given.text))
    weights = torch.load(folder / "cosmo.pt")

    found = load_classifier(settings_of(folder, "cosmo")).classify([given])[0]

    assert np.allclose(found, cosmo_by_hand(weights, visual, text).numpy(), atol=1e-5)


@pytest.mark.parametrize("model", ["bookBert", "cosmo"])
def test_rows_of_a_book_do_not_depend_on_the_books_beside_it(folder: Path, model: str) -> None:
    classifier = load_classifier(settings_of(folder, model))
    books = [book(str(pages), pages, seed=pages) for pages in (3, 10, 1, 25, 11, 0, 7)]

    alone = [classifier.classify([one])[0] for one in books]
    together = classifier.classify(books)

    assert [rows.shape for rows in together] == [(len(one.visual), 9) for one in books]
    assert [np.array_equal(a, b) for a, b in zip(alone, together, strict=True)] == [True] * len(books)


@pytest.mark.parametrize("model", ["bookBert", "cosmo"])
@pytest.mark.parametrize("batch", [2, 3, 64])
def test_padding_is_masked(folder: Path, model: Any, batch: int) -> None:
    settings = settings_of(folder, model)
    one_by_one = load_classifier(settings)
    padded = Classifier(one_by_one._model, one_by_one.config, settings, batch_windows=batch)
    books = [book(str(pages), pages, seed=pages) for pages in (3, 10, 1, 25, 11, 7)]

    for alone, beside in zip(one_by_one.classify(books), padded.classify(books), strict=True):
        assert np.allclose(alone, beside, atol=1e-5)


def test_long_book_takes_each_row_from_the_window_that_saw_most_around_it(folder: Path) -> None:
    classifier, given = load_classifier(settings_of(folder)), book("long", 16)

    def window(start: int) -> Any:
        return classifier.classify([BookRows("w", given.visual[start : start + 10], given.text[start : start + 10])])[0]

    found = classifier.classify([given])[0]

    assert windows_of(16, 10, 4) == [Window(0, 10, 0, 8), Window(6, 16, 8, 16)]
    assert np.array_equal(found, np.concatenate([window(0)[:8], window(6)[2:]]))


@pytest.mark.parametrize("overlap", [0, 1, 4, 9])
@pytest.mark.parametrize("pages", [0, 1, 9, 10, 11, 16, 17, 30, 101])
def test_windows_cover_every_page_once_and_share_enough(pages: int, overlap: int) -> None:
    windows = windows_of(pages, 10, overlap)

    assert [page for window in windows for page in range(window.keep_start, window.keep_stop)] == list(range(pages))
    assert all(window.start <= window.keep_start <= window.keep_stop <= window.stop for window in windows)
    assert all(window.stop - window.start <= 10 for window in windows)
    assert all(a.stop - b.start >= overlap for a, b in zip(windows, windows[1:], strict=False))
    numbers = np.arange(pages, dtype=np.float32)[:, None]
    if windows:
        assert np.array_equal(merged(windows, [numbers[w.start : w.stop] for w in windows]), numbers)


def test_windows_that_share_all_their_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot share"):
        windows_of(20, 10, 10)


@pytest.mark.parametrize("form", ["nested", "several-gpus", "safetensors", "position-ids"])
@pytest.mark.parametrize("model", ["bookBert", "cosmo"])
def test_checkpoint_of_each_form_gives_the_same_rows(folder: Path, tmp_path: Path, form: str, model: str) -> None:
    weights = torch.load(folder / f"{model}.pt")
    if form == "nested":
        torch.save({"model_state_dict": weights, "epoch": 3}, tmp_path / "c.pt")
    elif form == "several-gpus":
        torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "c.pt")
    elif form == "safetensors":
        safetensors.torch.save_file(dict(weights), tmp_path / "c.pt")
    else:
        extra = {"bert_encoder.embeddings.position_ids": torch.arange(20)[None]} if model == "cosmo" else {}
        torch.save({**weights, **extra}, tmp_path / "c.pt")

    found = load_classifier(settings_of(folder, model, checkpoint=tmp_path / "c.pt")).classify([book("a", 4)])[0]

    assert np.array_equal(found, load_classifier(settings_of(folder, model)).classify([book("a", 4)])[0])


def test_checkpoint_of_the_other_model_names_what_differs(folder: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"do not fit BookBert: missing .*; \d+ more"):
        load_classifier(settings_of(folder, checkpoint=folder / "cosmo.pt"))


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("value", ["malicious", "module", "list", "damaged"])
def test_checkpoint_that_is_more_than_weights_is_refused(folder: Path, tmp_path: Path, value: str) -> None:
    held: Any = {"malicious": {"a": Touch(tmp_path / "touched")}, "module": nn.Linear(1, 1), "list": [1]}.get(value)
    torch.save(held, tmp_path / "c.pt")
    if value == "damaged":
        (tmp_path / "c.pt").write_bytes((folder / "bookBert.pt").read_bytes()[:5000])

    with pytest.raises(EngineUnavailableError):
        load_classifier(settings_of(folder, checkpoint=tmp_path / "c.pt"))

    assert not (tmp_path / "touched").exists()


def test_checkpoint_with_another_digest_is_refused(folder: Path) -> None:
    digest = f"sha256:{hashlib.sha256((folder / 'bookBert.pt').read_bytes()).hexdigest()}"

    load_classifier(settings_of(folder, digest=digest))
    with pytest.raises(IntegrityError, match="the job pins"):
        load_classifier(settings_of(folder, digest="sha256:" + "1" * 64))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("[]", "no JSON object"),
        ("{", "cannot be read"),
        ('{"layers": 3}', "layers: Extra inputs"),
        ('{"num_attention_heads": 5}', "multiple of num_attention_heads"),
        ('{"labels": ["a", "a"]}', "labels must differ"),
    ],
)
def test_config_that_cannot_be_is_refused(folder: Path, tmp_path: Path, text: str, want: str) -> None:
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(InvalidSpecError, match=want):
        read_config(settings_of(folder, config=tmp_path / "config.json"))


def test_defaults_are_those_of_the_reference_checkpoints() -> None:
    book_bert, cosmo = default_config("bookBert"), default_config("cosmo")

    assert (book_bert.visual_feature_dim, book_bert.textual_feature_dim, book_bert.bert_input_dim) == (1152, 1024, 768)
    assert (book_bert.num_attention_heads, book_bert.num_hidden_layers, book_bert.projection_dim) == (4, 4, 1024)
    assert (book_bert.max_pages, cosmo.max_pages, cosmo.hidden_dim) == (512, 512, 512)
    assert book_bert.labels == (
        "advertisement", "cover", "story", "textstory", "first-page", "credits", "art", "text", "back_cover",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (BookRows("b", np.zeros((3, 12), np.float32), np.zeros((2, 8), np.float32)), "3 visual rows and 2 text rows"),
        (BookRows("b", np.zeros((3, 11), np.float32), np.zeros((3, 8), np.float32)), "reads 12 visual and 8 text"),
        (BookRows("b", np.zeros(12, np.float32), np.zeros((1, 8), np.float32)), "reads 12 visual"),
    ],
)
def test_book_whose_sides_do_not_fit_is_refused(folder: Path, given: BookRows, want: str) -> None:
    with pytest.raises(RowUnusable, match=want):
        load_classifier(settings_of(folder)).classify([given])


@pytest.mark.parametrize(
    ("more", "want"),
    [
        ({"window_overlap": 10}, "classify.windowOverlap: 10 of windows of 10"),
        ({"model": "cosmo", "input_order": "textVisual"}, "classify.inputOrder"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(folder: Path, more: dict[str, Any], want: str) -> None:
    with pytest.raises(InvalidSpecError, match=want):
        load_classifier(settings_of(folder, **more))


def test_written_probabilities_are_one_plain_tensor(folder: Path) -> None:
    rows = load_classifier(settings_of(folder)).classify([book("a", 4)])[0]

    read = torch.load(io.BytesIO(probabilities_pt(rows)))

    assert (read.shape, read.dtype) == ((4, 9), torch.float32)
    assert np.array_equal(read.numpy(), rows)


def test_written_labels_are_the_most_likely_of_each_page() -> None:
    rows = np.full((2, 9), 0.05, np.float32)
    rows[0, 2], rows[1, 8] = 0.6, 0.6

    found = json.loads(labels_json("A book #1, ê…", rows))

    assert found == {
        "book_id": "A book #1, ê…",
        "labels": list(LABELS),
        "pages": [
            {"index": 0, "label": "story", "confidence": 0.6},
            {"index": 1, "label": "back_cover", "confidence": 0.6},
        ],
    }
    assert (labels_key("a/b"), probabilities_key("a/b")) == ("labels/a/b.json", "labels/a/b_probs.pt")
