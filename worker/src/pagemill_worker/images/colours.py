"""Every colour model as 8-bit RGB over white: what engines see must not depend on how a page was stored.

Layer: `worker.images`. Works in strips, so that a large page never exists in a third copy. Profiles are not applied:
recognition does not need them, and results must not depend on a colour engine's version.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagemill_core.errors import ImageUnsupported
from pagemill_worker.images.decoded import Pixels

_STRIP_PX = 1 << 20  # about 3 MB of RGB a strip: in cache, and few enough calls
_WHITE = (255, 255, 255)
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_PLAIN_MODES = frozenset({"1", "P", "CMYK", "YCbCr", "RGBX", "HSV"})


def to_rgb(image: Image.Image, *, deep_bits: int = 16) -> Pixels:
    """The loaded `image` as writable (height, width, 3) pixels.

    Transparency is laid over white; samples of more than 8 bits keep their highest 8, out of `deep_bits`; floats count
    from 0 (black) to 1 (white).
    Raises: ImageUnsupported for 32-bit integers and floats outside 0 to 1, whose white no reader can know.
    """
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    convert = _converter(image, deep_bits)
    rows = max(1, _STRIP_PX // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = convert(image.crop((0, top, width, bottom)))
    return pixels


def cmyk_to_rgb(inks: NDArray[np.uint8], *, inverted: bool) -> Pixels:
    """(height, width, 4) inks as RGB by the plain formula (1-C)(1-K); `inverted` inks are stored as 255 - ink."""
    height, width = inks.shape[:2]
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PX // width)
    raw_mode = "CMYK;I" if inverted else "CMYK"
    for top in range(0, height, rows):
        strip = np.ascontiguousarray(inks[top : top + rows])
        image = Image.frombytes("CMYK", (width, strip.shape[0]), strip.tobytes(), "raw", raw_mode)
        pixels[top : top + rows] = np.asarray(image.convert("RGB"))
    return pixels


def _converter(image: Image.Image, deep_bits: int) -> Callable[[Image.Image], NDArray[np.uint8]]:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        return lambda strip: _from_deep(strip, deep_bits, transparent)
    if image.mode in _ALPHA_MODES or transparent is not None:
        return _over_white
    if image.mode == "RGB":
        return np.asarray
    if image.mode == "L":
        return lambda strip: np.asarray(strip)[:, :, None]
    if image.mode in _PLAIN_MODES:
        return lambda strip: np.asarray(strip.convert("RGB"))
    if image.mode == "F":
        return _from_float
    raise ImageUnsupported(f"pictures of mode {image.mode} do not say which value is white", advice="convert it to PNG")


def _over_white(strip: Image.Image) -> NDArray[np.uint8]:
    if strip.mode in ("La", "PA"):
        strip = strip.convert("LA" if strip.mode == "La" else "RGBA")
    coloured = strip.convert("RGBA")
    page = Image.new("RGB", coloured.size, _WHITE)
    page.paste(coloured, mask=coloured.getchannel("A"))
    return np.asarray(page)


def _from_deep(strip: Image.Image, bits: int, transparent: object) -> NDArray[np.uint8]:
    samples = np.asarray(strip)
    grey = (samples >> (bits - 8)).astype(np.uint8)
    if isinstance(transparent, int):
        grey[samples == transparent] = 255
    return grey[:, :, None]


def _from_float(strip: Image.Image) -> NDArray[np.uint8]:
    samples = np.asarray(strip)
    if not bool(np.all((samples >= 0) & (samples <= 1))):
        raise ImageUnsupported("floating-point samples outside 0 to 1 do not say which value is white")
    return (samples * 255 + 0.5).astype(np.uint8)[:, :, None]
