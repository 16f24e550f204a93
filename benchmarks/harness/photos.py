"""Large photographs for measuring encoders: crops of real ones from packages, as JPEG files of 1024 × 1536 pixels.

Layer: `benchmarks.harness`. The files are kept below `place.work`.
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from benchmarks.harness.place import Place

SIZE_PX = (1536, 1024)
COUNT = 96
QUALITY = 90
_SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg")


def photos(place: Place) -> list[Path]:
    """The files, in name order; the same on every machine."""
    folder = place.work / "photos"
    if not folder.is_dir():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            _picture(number).save(new / f"photo_{number:03}.jpg", quality=QUALITY)
        new.rename(folder)
    return sorted(folder.glob("*.jpg"))


def _picture(number: int) -> Image.Image:
    """A crop of a photograph, enlarged, with a little grain so that JPEG has as much to do as with a real one."""
    from importlib.resources import files

    chance = random.Random(number)  # noqa: S311
    source = Image.open(str(files("skimage.data").joinpath(_SOURCES[number % len(_SOURCES)]))).convert("RGB")
    share = chance.uniform(0.6, 1.0)
    width, height = int(source.width * share), int(source.height * share)
    left, top = chance.randint(0, source.width - width), chance.randint(0, source.height - height)
    crop = source.crop((left, top, left + width, top + height)).resize(SIZE_PX, Image.Resampling.BICUBIC)
    grain = Image.effect_noise(SIZE_PX, 12).convert("RGB")
    return Image.blend(crop, grain, 0.06)
