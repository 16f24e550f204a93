"""What kind of picture file some bytes are, for the views that embed them unread.

Layer: `worker.views`; no I/O. Pixels are never decoded here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image

Format = Literal["jpeg", "png", "webp"]


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What a picture file's header says. `mode` is Pillow's."""

    format: Format
    width_px: int
    height_px: int
    mode: str

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"


def read_info(data: bytes) -> PictureInfo:
    """What the header of a JPEG, PNG or WebP says. Raises: ValueError for anything else."""
    formats: dict[str, Format] = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
    try:
        with Image.open(io.BytesIO(data), formats=list(formats)) as image:
            return PictureInfo(formats[str(image.format)], image.width, image.height, image.mode)
    except OSError as error:
        raise ValueError("the picture is neither JPEG nor PNG nor WebP") from error
