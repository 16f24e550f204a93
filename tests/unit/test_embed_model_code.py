"""Models that bring their own code: ModelImpl folders, which need trust, and plug-ins, which somebody installed."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagemill_core.errors import EncoderFailed, EngineFailed, EngineUnavailableError, InvalidSpecError
from pagemill_worker.embed import plugins
from pagemill_worker.embed.digest import digest_of, file_digests
from pagemill_worker.embed.encoder import EncodedText, EncoderFacts, EncoderSettings, ModelSettings
from pagemill_worker.embed.fingerprint import fingerprint
from pagemill_worker.embed.load import load_text, load_visual
from pagemill_worker.images.page import PageImage

MODEL = """
import numpy as np
from PIL import Image

import beside

class ModelImpl:
    def load(self):
        self.calls = []

    def warmup(self):
        assert self.calls == []

    def batch_size(self):
        return 2

    def batch_wait_s(self):
        return 0.003

    def encode(self, batch):
        self.calls.append(len(batch))
        rows = []
        for one in batch:
            if one["image"] is None:
                rows.append([float(len(one["text"])), 1.0, beside.THREE])
            else:
                assert isinstance(one["image"], Image.Image)
                rows.append([float(v) for v in np.asarray(one["image"]).mean((0, 1))])
        return rows
"""


def write_model(folder: Path, code: str = MODEL, config: str = '{"name": "mine"}') -> ModelSettings:
    (folder / "config.json").write_text(config)
    (folder / "model.py").write_text(code)
    (folder / "beside.py").write_text("THREE = 3.0\n")
    return ModelSettings(uri=str(folder), trust="python", digest=digest_of(file_digests(folder)))


def page(value: int) -> PageImage:
    return PageImage(np.full((4, 6, 3), value, np.uint8))


def settings(model: ModelSettings, side: Any = "visual", **fields: Any) -> EncoderSettings:
    return EncoderSettings(side=side, model=model, **{"normalize": False, **fields})


def test_model_impl_encodes_pictures_in_batches_of_its_own_size(tmp_path: Path) -> None:
    encoder = load_visual(settings(write_model(tmp_path)))
    prepared = [encoder.prepare(page(value)) for value in (1, 2, 3)]

    rows = encoder.encode(prepared)

    np.testing.assert_allclose(rows, [[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    assert (encoder.facts.dim, encoder.facts.batch_size) == (3, 2)
    assert encoder.facts.fingerprint["model"]["loader"] == "modelImpl"  # type: ignore[index]


def test_model_impl_encodes_texts_and_scales_when_asked(tmp_path: Path) -> None:
    encoder = load_text(settings(write_model(tmp_path), "text", normalize=True, prompt="ab"))

    rows, told = encoder.encode(["cd"])

    np.testing.assert_allclose(rows[0], np.array([4, 1, 3]) / np.sqrt(26), rtol=1e-6)
    assert told == [EncodedText(0)]


@pytest.mark.parametrize(
    ("code", "config", "error"),
    [
        ("class Other: pass", '{"name": "mine"}', InvalidSpecError),
        ("class ModelImpl:\n    def load(self): pass", '{"name": "mine"}', InvalidSpecError),
        (MODEL, "{}", InvalidSpecError),
        ("raise OSError('no such weights')", '{"name": "mine"}', EngineUnavailableError),
        ("syntax error(", '{"name": "mine"}', EngineUnavailableError),
    ],
    ids=["no-class", "no-encode", "no-name", "raises", "no-python"],
)
def test_model_impl_that_cannot_be_used_is_refused(
    tmp_path: Path, code: str, config: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        load_visual(settings(write_model(tmp_path, code, config)))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("[[1.0, 2.0, float('nan')]] * len(batch)", EncoderFailed),
        ("[[1.0, 2.0, 3.0]]", EncoderFailed),
        ("[1.0] * len(batch)", EncoderFailed),
        ("1 / 0", EngineFailed),
    ],
    ids=["nan", "count", "scalars", "raises"],
)
def test_model_impl_with_a_bad_answer_fails_the_items(tmp_path: Path, answer: str, error: type[Exception]) -> None:
    good = "[[1.0, 2.0, 3.0]] * len(batch)"
    code = f"""
class ModelImpl:
    seen = 0
    def load(self): pass
    def encode(self, batch):
        self.seen += 1
        return {good} if self.seen == 1 else {answer}
"""
    encoder = load_visual(settings(write_model(tmp_path, code)))

    with pytest.raises(error):
        encoder.encode([page(1).pixels, page(2).pixels])


def test_code_that_changed_after_its_digest_was_taken_never_runs(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    (tmp_path / "beside.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w').close()\nTHREE = 3.0\n")

    with pytest.raises(Exception, match="not sha256:"):
        load_visual(settings(model))
    assert not (tmp_path / "witness").exists()


class Brightness:
    """A plug-in's encoder: one number a picture."""

    def __init__(self, settings: EncoderSettings, folder: Path) -> None:
        self.scale = float(json.loads((folder / "scale.json").read_text())["scale"])
        self.facts = EncoderFacts(dim=1, batch_size=8, device="cpu", precision=settings.precision)

    def prepare(self, page: PageImage) -> np.ndarray:
        return page.pixels

    def encode(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([[one.mean() * self.scale] for one in pictures], np.float32)

    def close(self) -> None:
        pass


class Installed(importlib.metadata.EntryPoint):
    """An installed entry point without its distribution's files."""

    made: Any = Brightness

    def load(self) -> Any:
        return type(self).made


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> type[Installed]:
    point = Installed("brightness", "some_package:Brightness", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == plugins.GROUP else [])
    monkeypatch.setattr(Installed, "made", Brightness)
    return Installed


def test_a_plug_in_is_loaded_by_its_name(tmp_path: Path, plugin: type[Installed]) -> None:
    (tmp_path / "scale.json").write_text('{"scale": 2}')
    asked = settings(ModelSettings(uri=str(tmp_path), loader="brightness"))

    encoder = load_visual(asked)

    np.testing.assert_allclose(encoder.encode([page(5).pixels]), [[10]])
    assert fingerprint(asked)["model"]["loader"] == "brightness"


def test_a_plug_in_that_makes_no_encoder_is_refused(
    tmp_path: Path, plugin: type[Installed], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scale.json").write_text('{"scale": 2}')
    monkeypatch.setattr(Installed, "made", lambda _settings, _folder: object())

    with pytest.raises(InvalidSpecError, match="is no encoder"):
        load_visual(settings(ModelSettings(uri=str(tmp_path), loader="brightness")))
