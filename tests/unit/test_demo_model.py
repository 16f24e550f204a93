"""The demo's model: built from packages, and the one space that pictures and texts share in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import demo_model
import numpy as np
import pytest

from pagemill_worker.embed.encoder import EncoderSettings, ModelSettings
from pagemill_worker.embed.load import load_text, load_visual
from pagemill_worker.embed.registry import resolve
from pagemill_worker.images.limits import ImageLimits
from pagemill_worker.images.load import load_page


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with demo-conse in it, built and then moved: nothing in it may name where it was built."""
    folder = tmp_path_factory.mktemp("built") / demo_model.NAME
    assert demo_model.build(folder)
    moved = tmp_path_factory.mktemp("models")
    folder.rename(moved / demo_model.NAME)
    return moved


def photographs() -> dict[str, bytes]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.[jp][pn]g"))}


def test_demo_model_finds_photographs_by_what_they_show(cache: Path) -> None:
    model = ModelSettings(name="demo-conse", cache=cache)
    pictures, texts = (EncoderSettings(side=side, model=model, device="cpu") for side in ("visual", "text"))
    encoder, words = load_visual(pictures), load_text(texts)
    names, prepared = [], []
    for name, data in photographs().items():
        names.append(name)
        prepared.append(encoder.prepare(load_page(data, page=None, limits=ImageLimits(), origin=name)))

    rows = encoder.encode(prepared)
    queries, _ = words.encode(["a cup of coffee", "a photo of a cat", "a rocket launch"])

    assert rows.shape == (len(names), 384) and queries.shape == (3, 384)
    assert [names[at] for at in (queries @ rows.T).argmax(1)] == ["coffee.png", "chelsea.png", "rocket.jpg"]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)


def test_demo_model_already_built_is_left_alone(cache: Path) -> None:
    digest = resolve(ModelSettings(name="demo-conse", cache=cache)).digest

    assert not demo_model.build(cache / demo_model.NAME)
    assert resolve(ModelSettings(name="demo-conse", cache=cache)).digest == digest


def test_demo_model_can_be_read_by_another_user(cache: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o444 for path in (cache / demo_model.NAME).iterdir()}

    assert set(modes.values()) == {0o444}
    assert (cache / demo_model.NAME).stat().st_mode & 0o005 == 0o005
