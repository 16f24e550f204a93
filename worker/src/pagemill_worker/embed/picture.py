"""How a picture becomes a model's input: the model's own recipe, done on 8-bit pixels.

Layer: `worker.embed`. Recipes are read from a model's files without any machine-learning package; torch is imported
only where pixels are resized. Normalising is left to the device: what travels is uint8, a quarter of the bytes.

A JPEG decoder could scale while it decodes. Tried, and left out: at twice the size that is needed it saves 2 ms of 6
for a picture of 1024 x 1536, but rows of the demo model moved to a cosine of 0.997, where 0.999 is promised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pagemill_core.errors import InvalidSpecError

Resize = Literal["shortest", "squash", "longest"]
Pixels = NDArray[np.uint8]
Triple = tuple[float, float, float]

CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
_INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
_PILLOW_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
# A strip is cut to its middle before it is resized: scaled up whole, 1 x 32,766 pixels would take gigabytes. The three
# squares that are kept hold all that the centre crop and the filter's support can see.
_STRIP_RATIO = 4
_STRIP_SQUARES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRecipe:
    """What a vision model wants to see: `height_px` x `width_px`, RGB, (value / 255 - mean) / std.

    `shortest` scales the shorter side to `shortest_px` and cuts out the middle; `squash` ignores the proportions;
    `longest` fits the picture in and fills the rest with `fill` (0 to 255). Where the middle lies between two pixels,
    `floors_middle` takes the upper left one, as transformers does; torchvision rounds.
    """

    height_px: int
    width_px: int
    resize: Resize = "shortest"
    shortest_px: int | None = None
    interpolation: str = "bicubic"
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD
    fill: int = 0
    floors_middle: bool = False

    def __post_init__(self) -> None:
        if self.resize not in ("shortest", "squash", "longest"):
            raise InvalidSpecError(f"the model's preprocessing asks for the unknown resize mode {self.resize}")
        if self.interpolation not in _INTERPOLATIONS:
            raise InvalidSpecError(
                f"the model's preprocessing asks for {self.interpolation} interpolation, which is not offered",
                advice=f"offered are {', '.join(_INTERPOLATIONS)}",
            )
        if min(self.height_px, self.width_px) < 1 or min(self.std) <= 0:
            raise InvalidSpecError("the model's preprocessing names no usable size or scale")

    def as_json(self) -> dict[str, Any]:
        """For fingerprints."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def open_clip_recipe(image_size: object, preprocess: Mapping[str, Any]) -> PictureRecipe:
    """The recipe of an open_clip model: `image_size` of its vision tower, its `preprocess_cfg`."""
    height, width = _sides(image_size)
    return PictureRecipe(
        height_px=height,
        width_px=width,
        resize=preprocess.get("resize_mode") or "shortest",
        shortest_px=height if height == width else None,
        interpolation=preprocess.get("interpolation") or "bicubic",
        mean=_triple(preprocess.get("mean") or CLIP_MEAN),
        std=_triple(preprocess.get("std") or CLIP_STD),
        fill=int(preprocess.get("fill_color") or 0),
    )


def transformers_recipe(config: Mapping[str, Any]) -> PictureRecipe:
    """The recipe in a transformers `preprocessor_config.json`. Raises: InvalidSpecError when batches cannot be made."""
    if not config.get("do_resize", True) or not config.get("do_rescale", True):
        raise InvalidSpecError("a model that wants pictures unresized or unscaled cannot be given batches")
    size = config.get("size")
    crop = config.get("crop_size")
    interpolation = _PILLOW_FILTERS.get(int(config.get("resample", 3)), f"filter {config.get('resample')}")
    plain = not config.get("do_normalize", True)
    mean: Triple = (0.0, 0.0, 0.0) if plain else _triple(config.get("image_mean") or CLIP_MEAN)
    std: Triple = (1.0, 1.0, 1.0) if plain else _triple(config.get("image_std") or CLIP_STD)
    if isinstance(size, Mapping) and "shortest_edge" in size or isinstance(size, int) and config.get("do_center_crop"):
        shortest = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
        if not config.get("do_center_crop", False) and crop is None:
            raise InvalidSpecError(
                "the model's preprocessing cuts no square, so its pictures cannot be given in batches"
            )
        height, width = _sides(crop if crop is not None else shortest)
        if min(height, width) > shortest:
            raise InvalidSpecError("the model's preprocessing cuts out more than it resizes to")
        return PictureRecipe(
            height_px=height,
            width_px=width,
            shortest_px=shortest,
            interpolation=interpolation,
            mean=mean,
            std=std,
            floors_middle=True,
        )
    height, width = _sides(size)
    return PictureRecipe(
        height_px=height, width_px=width, resize="squash", interpolation=interpolation, mean=mean, std=std
    )


def _sides(size: Any) -> tuple[int, int]:
    match size:
        case int():
            return size, size
        case {"height": height, "width": width}:
            return int(height), int(width)
        case [height, width] | (height, width):
            return int(height), int(width)
        case [side]:
            return int(side), int(side)
    raise InvalidSpecError("the model's files do not say how large its pictures are")


def _triple(values: Any) -> Triple:
    numbers = [float(value) for value in (values if isinstance(values, (list, tuple)) else [values] * 3)]
    if len(numbers) != 3:
        raise InvalidSpecError("the model's preprocessing does not name one mean and scale a colour")
    return numbers[0], numbers[1], numbers[2]


def prepare(pixels: Pixels, recipe: PictureRecipe) -> Pixels:
    """Resize and cut `pixels`, of shape (height, width, 3), to the recipe's size; uint8, C-contiguous.

    Equal to Pillow's resampling up to rounding. Safe in threads.
    """
    if recipe.resize == "squash":
        return np.ascontiguousarray(_resized(pixels, recipe.height_px, recipe.width_px, recipe))
    if recipe.resize == "longest":
        return _fitted(pixels, recipe)
    return _cut(pixels, recipe)


def _cut(pixels: Pixels, recipe: PictureRecipe) -> Pixels:
    height, width = pixels.shape[:2]
    high, wide = _scaled_sides(height, width, recipe)
    middle = math.floor if recipe.floors_middle else round
    top, left = middle((high - recipe.height_px) / 2), middle((wide - recipe.width_px) / 2)
    short = min(height, width)
    if max(height, width) > _STRIP_RATIO * short:
        kept = _STRIP_SQUARES * short
        if height > width:
            start, scale = (height - kept) // 2, wide / width
            pixels, top, high = pixels[start : start + kept], top - round(start * scale), round(kept * scale)
        else:
            start, scale = (width - kept) // 2, high / height
            pixels, left, wide = pixels[:, start : start + kept], left - round(start * scale), round(kept * scale)
    resized = _resized(pixels, high, wide, recipe)
    return np.ascontiguousarray(resized[top : top + recipe.height_px, left : left + recipe.width_px])


def _scaled_sides(height: int, width: int, recipe: PictureRecipe) -> tuple[int, int]:
    """Height and width of the whole picture once scaled; the longer side is cut short as torchvision does."""
    if recipe.shortest_px is None:
        ratio = min(height / recipe.height_px, width / recipe.width_px)
        return max(round(height / ratio), recipe.height_px), max(round(width / ratio), recipe.width_px)
    short = recipe.shortest_px
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def _fitted(pixels: Pixels, recipe: PictureRecipe) -> Pixels:
    height, width = pixels.shape[:2]
    ratio = max(height / recipe.height_px, width / recipe.width_px)
    high, wide = max(1, round(height / ratio)), max(1, round(width / ratio))
    whole = np.full((recipe.height_px, recipe.width_px, 3), recipe.fill, np.uint8)
    top, left = (recipe.height_px - high) // 2, (recipe.width_px - wide) // 2
    whole[top : top + high, left : left + wide] = _resized(pixels, high, wide, recipe)
    return whole


def _resized(pixels: Pixels, high: int, wide: int, recipe: PictureRecipe) -> Pixels:
    import torch

    if pixels.shape[:2] == (high, wide):
        return pixels
    source = pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()
    # (height, width, 3) seen as (1, 3, height, width) is channels-last without a copy, torch's fastest way for bytes.
    batch = torch.from_numpy(source).permute(2, 0, 1).unsqueeze(0)
    smooth = recipe.interpolation != "nearest"
    resized = torch.nn.functional.interpolate(
        batch,
        size=(high, wide),
        mode=recipe.interpolation,
        antialias=smooth,
        align_corners=False if smooth else None,
    )
    array: Pixels = resized.squeeze(0).permute(1, 2, 0).numpy()
    return array
