"""Models before anything heavy is imported: catalogue, addresses, digests, recipes, batches, precision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_worker.embed.batches import BatchSize, probe, ran_out_of_memory
from pagemill_worker.embed.catalogue import KnownModel, known_models
from pagemill_worker.embed.digest import digest_of, file_digests
from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings
from pagemill_worker.embed.fingerprint import fingerprint
from pagemill_worker.embed.finish import finish_rows
from pagemill_worker.embed.picture import PictureRecipe, open_clip_recipe, transformers_recipe
from pagemill_worker.embed.precision import cpu_flags, resolve_precision
from pagemill_worker.embed.registry import resolve
from pagemill_worker.embed.sentence import read_sentence_folder

ROOT = Path(__file__).resolve().parents[2]


def test_catalogue_of_the_worker_is_that_of_the_repository() -> None:
    assert list(known_models()) == list(known_models(ROOT / "config" / "models"))
    assert {"demo-conse", "siglip-so400m-patch14-384", "qwen3-embedding-0.6b"} <= known_models().keys()


@pytest.mark.parametrize("model", known_models().values(), ids=lambda model: model.name)
def test_catalogue_names_for_each_model_where_it_comes_from(model: KnownModel) -> None:
    assert model.built_by or (model.hub and model.revision and model.files)
    assert set(model.pooling) == set(model.sides)
    assert "visual" not in model.sides or model.loader in ("openClip", "transformers")


def test_catalogue_entries_hold_no_comment_that_is_lost() -> None:
    for path in sorted((ROOT / "config" / "models").glob("*.yaml")):
        assert path.read_text("utf-8").startswith("# ")
        assert yaml.safe_load(path.read_text("utf-8"))["name"] == path.stem


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidSpecError, match="no model is called clip-vit-xxl") as caught:
        resolve(ModelSettings(name="clip-vit-xxl"))

    assert "dinov2-small" in caught.value.advice


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (ModelSettings(name="dinov2-small"), "`pagemill models fetch dinov2-small` fetches it"),
        (ModelSettings(name="demo-conse"), "`make demo-search` builds it"),
        (ModelSettings(uri="hf://a/b", revision="c0ffee"), "`pagemill models fetch hf://a/b --revision c0ffee`"),
        (ModelSettings(uri="s3://models/mine"), "`pagemill models fetch s3://models/mine`"),
        (ModelSettings(uri="/nowhere/at/all"), "name a folder or a file that is there"),
    ],
    ids=["named", "built", "hub", "store", "path"],
)
def test_a_model_that_is_not_here_is_refused_with_the_way_to_get_it(
    model: ModelSettings, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        resolve(ModelSettings(name=model.name, uri=model.uri, revision=model.revision, cache=tmp_path))

    assert advice in caught.value.advice


def write_open_clip(folder: Path, **vision: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {
        "model_cfg": {
            "embed_dim": 24,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "patch_size": 8, **vision},
            "text_cfg": {"context_length": 16},
        },
        "preprocess_cfg": {"resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_digest_counts_what_is_loaded_and_nothing_else(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "model")
    first = resolve(ModelSettings(uri=str(folder))).digest
    (folder / "README.md").write_text("of no matter")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.json").write_text("{}")

    assert resolve(ModelSettings(uri=str(folder), digest=first)).digest == first
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError, match=f"not {first}"):
        resolve(ModelSettings(uri=str(folder), digest=first))


def test_a_single_file_has_the_digest_that_other_tools_print(tmp_path: Path) -> None:
    (tmp_path / "ViT-B-32.pt").write_bytes(b"")

    assert digest_of(file_digests(tmp_path / "ViT-B-32.pt")) == (
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize(
    ("files", "loader"),
    [
        ({"open_clip_config.json": "{}"}, "openClip"),
        ({"modules.json": "[]", "config.json": '{"model_type": "bert"}'}, "sentenceTransformers"),
        ({"config.json": '{"model_type": "siglip"}'}, "transformers"),
    ],
    ids=["openClip", "sentenceTransformers", "transformers"],
)
def test_a_loader_is_told_from_the_files(tmp_path: Path, files: dict[str, str], loader: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    assert resolve(ModelSettings(uri=tmp_path.as_uri())).loader == loader


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(InvalidSpecError, match="do not say how they are loaded"):
        resolve(ModelSettings(uri=str(tmp_path)))


def test_an_unknown_loader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match=r"model\.loader: magic is unknown"):
        resolve(ModelSettings(uri=str(write_open_clip(tmp_path / "m")), loader="magic"))


def test_code_in_a_folder_needs_trust_and_digest(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "mine"}')
    (tmp_path / "model.py").write_text("raise SystemExit(1)")

    with pytest.raises(InvalidSpecError, match=r"model\.trust"):
        resolve(ModelSettings(uri=str(tmp_path)))
    with pytest.raises(InvalidSpecError, match=r"model\.digest"):
        resolve(ModelSettings(uri=str(tmp_path), trust="python"))


def test_a_fingerprint_is_made_without_any_machine_learning_package(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "model")
    program = f"""
import sys
from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings
from pagemill_worker.embed.fingerprint import fingerprint
model = ModelSettings(uri={str(folder)!r})
for side in ("visual", "text"):
    fingerprint(EncoderSettings(side=side, model=model))
print([name for name in ("torch", "transformers", "open_clip", "timm", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_fingerprint_changes_with_what_decides_rows_and_with_nothing_else(tmp_path: Path) -> None:
    model = ModelSettings(uri=str(write_open_clip(tmp_path / "model")))

    def of(**fields: Any) -> dict[str, Any]:
        return fingerprint(EncoderSettings(side="visual", model=model, **{"device": "cpu", **fields}))

    assert of(precision="float32") == of(precision="float32", batch_size=3, threads=2)
    changes = [{"precision": "bfloat16"}, {"dim": 8}, {"normalize": False}, {"dtype": "float16"}]
    made = [json.dumps(of(**{"precision": "float32", **change}), sort_keys=True) for change in [{}, *changes]]
    assert len(set(made)) == len(made)


# Recipes of pictures


def clip_processor(**fields: Any) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        **fields,
    }


@pytest.mark.parametrize(
    ("config", "want"),
    [
        (clip_processor(), {"height_px": 224, "shortest_px": 224, "interpolation": "bicubic", "resize": "shortest"}),
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, {"height_px": 224, "shortest_px": 224}),
        (clip_processor(size={"shortest_edge": 256}), {"width_px": 224, "shortest_px": 256}),
        ({"size": {"height": 384, "width": 384}, "resample": 2}, {"resize": "squash", "interpolation": "bilinear"}),
        ({"size": {"height": 384, "width": 384}, "do_normalize": False}, {"mean": (0, 0, 0), "std": (1, 1, 1)}),
    ],
    ids=["clip", "clip-old", "dinov2", "siglip", "unnormalised"],
)
def test_transformers_preprocessing_is_read(config: dict[str, Any], want: dict[str, Any]) -> None:
    recipe = transformers_recipe(config).as_json()

    assert {name: tuple(recipe[name]) if isinstance(recipe[name], list) else recipe[name] for name in want} == want


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"height": 8, "width": 8}, "resample": 1},
        {"size": {"shortest_edge": 224}},
        {"size": {"longest_edge": 448}},
        {"do_resize": False},
        clip_processor(size={"shortest_edge": 200}),
    ],
    ids=["lanczos", "no-square", "longest", "unresized", "crop-beyond"],
)
def test_preprocessing_that_is_not_offered_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpecError):
        transformers_recipe(config)


def test_open_clip_preprocessing_is_read_with_its_defaults() -> None:
    assert open_clip_recipe([32, 48], {}) == PictureRecipe(height_px=32, width_px=48)
    assert open_clip_recipe(32, {"resize_mode": "longest", "fill_color": 7}).fill == 7
    with pytest.raises(InvalidSpecError, match="random"):
        open_clip_recipe(32, {"interpolation": "random"})


# Batches


def test_a_batch_out_of_memory_is_halved_and_every_item_done_once() -> None:
    freed, done = [], []

    def call(items: Any) -> list[int]:
        if len(items) > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        done.extend(items)
        return list(items)

    batch = BatchSize(16, lambda: freed.append(1))

    assert [one for part in batch.run(range(20), call) for one in part] == list(range(20)) == done
    assert (batch.size, batch.halvings, len(freed)) == (2, 3, 3)


def test_one_item_too_large_is_a_memory_error_and_other_errors_pass() -> None:
    def full(_items: Any) -> None:
        raise MemoryError

    def wrong(_items: Any) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(MemoryError, match="one item alone"):
        BatchSize(4).run([1, 2, 3], full)
    with pytest.raises(RuntimeError, match="shapes"):
        BatchSize(4).run([1], wrong)


@pytest.mark.parametrize(
    ("seconds_an_item", "fits", "share", "want"),
    [
        (lambda size: 1 / size, 1 << 20, lambda size: size / 1000, 512),
        (lambda size: 1 / size, 100, lambda _size: 0.0, 64),
        (lambda size: 1.0 if size < 32 else 1.01, 1 << 20, lambda _size: 0.0, 8),
        (lambda size: 1 / min(size, 64), 1 << 20, lambda _size: 0.0, 64),
        (lambda size: 1.0, 4, lambda _size: 0.0, 4),
    ],
    ids=["memory-share", "memory-out", "no-gain", "gain-ends", "least-too-large"],
)
def test_a_probe_finds_the_size_that_fits_and_pays(seconds_an_item: Any, fits: int, share: Any, want: int) -> None:
    tried: list[int] = []

    def run(size: int) -> float:
        tried.append(size)
        if size > fits:
            raise MemoryError
        return float(seconds_an_item(size) * size)

    found = probe(run, lambda: float(share(tried[-1])))

    assert found == want


def test_memory_errors_are_told_from_others() -> None:
    assert ran_out_of_memory(MemoryError()) and ran_out_of_memory(RuntimeError("CUDA out of memory."))
    assert not ran_out_of_memory(RuntimeError("index out of range"))
    assert not ran_out_of_memory(ValueError("out of memory"))


# Precision, rows, sentence folders


@pytest.mark.parametrize(
    ("asked", "on_gpu", "norm", "flags", "want"),
    [
        ("auto", False, False, {"avx512_bf16"}, "bfloat16"),
        ("auto", False, False, {"amx_bf16"}, "bfloat16"),
        ("auto", False, False, {"avx2"}, "float32"),
        ("auto", False, True, {"amx_bf16"}, "float32"),
        ("auto", True, False, set(), "bfloat16"),
        ("auto", True, True, set(), "float16"),
        ("float32", True, False, set(), "float32"),
    ],
)
def test_precision_is_resolved_from_the_machine(
    asked: Any, on_gpu: bool, norm: bool, flags: set[str], want: str
) -> None:
    found = resolve_precision(asked, on_gpu=on_gpu, has_batch_norm=norm, flags=frozenset(flags))

    assert found == want


@pytest.mark.parametrize(("asked", "on_gpu"), [("float16", False), ("int8", True)])
def test_precision_that_the_device_lacks_is_refused(asked: Any, on_gpu: bool) -> None:
    with pytest.raises(InvalidSpecError, match=f"precision {asked}"):
        resolve_precision(asked, on_gpu=on_gpu, has_batch_norm=False, flags=frozenset())


def test_cpu_flags_are_read_and_their_lack_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n")

    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512_bf16", "amx_bf16"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_rows_too_large_for_half_precision_are_refused() -> None:
    from pagemill_core.errors import EncoderFailed

    settings = EncoderSettings(side="visual", model=ModelSettings(), normalize=False, dtype="float16")

    with pytest.raises(EncoderFailed, match="float16"):
        finish_rows(np.full((1, 4), 70_000, np.float32), settings)


def write_sentence(folder: Path, pooling: dict[str, Any], kinds: tuple[str, ...] = ("Transformer", "Pooling")) -> Path:
    modules = [{"path": "" if at == 0 else f"{at}_{kind}", "type": f"x.{kind}"} for at, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "want"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "lasttoken"}, "lastToken"),
        ({"pooling_mode_cls_token": True}, "cls"),
    ],
)
def test_a_sentence_folders_pooling_is_read_in_old_and_new_words(tmp_path: Path, pooling: Any, want: str) -> None:
    assert read_sentence_folder(write_sentence(tmp_path, pooling)).pooling == want


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {},
        {"pooling_mode": ["mean", "cls"]},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
    ],
    ids=["max", "two", "none", "list", "prompt-excluded"],
)
def test_a_pooling_that_is_not_offered_is_refused(tmp_path: Path, pooling: Any) -> None:
    with pytest.raises(InvalidSpecError):
        read_sentence_folder(write_sentence(tmp_path, pooling))
