"""The sample model: redshifts of galaxies from a picture in five bands and the five magnitudes.

Layer: `worker.embed.infer`. A small network of the reference study's shape, so that the whole path of tensor jobs runs
on a real model; `tools/train_redshift.py` trains it. Its weights are worth nothing to an astronomer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BANDS = 5
SIDE_PX = 32


class RedshiftNet(nn.Module):
    """Convolutions over the picture and a small network over the magnitudes, joined into one number a row.

    Takes a list of pictures, float32 of shape (rows, 5, 32, 32), and magnitudes, shape (rows, 5) in any float type.
    Gives redshifts of shape (rows, 1), float32.
    """

    def __init__(self, width: int = 16, mean: Sequence[float] = (0.0,) * BANDS, spread: float = 1.0) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(BANDS, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.magnitudes = nn.Sequential(nn.Linear(2 * BANDS - 1, 2 * width), nn.GELU())
        self.joined = nn.Sequential(nn.Linear(10 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, 1), nn.Softplus())
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(float(spread)))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Redshifts of `[pictures, magnitudes]`."""
        image, magnitudes = inputs[0], inputs[1].to(torch.float32)
        pictures = torch.asinh(image * 1000.0) / 5.0  # astronomers' own scale: linear for faint, log for bright
        colours = magnitudes[:, 1:] - magnitudes[:, :-1]
        scaled = (magnitudes - self.mean) / self.spread  # type: ignore[operator]
        facts = torch.cat([scaled, colours], dim=1)
        return self.joined(torch.cat([self.image(pictures), self.magnitudes(facts)], dim=1))  # type: ignore[no-any-return]
