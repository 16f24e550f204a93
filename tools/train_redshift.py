"""Makes the sample of tensor jobs: synthetic galaxies as partitions, and a small redshift model trained on others.

    .venv/bin/python tools/train_redshift.py demo/redshift          two minutes on two cores

Writes `partitions/1.pt` to `N.pt` in the reference study's form (a TensorDataset of pictures float32 [n, 5, 32, 32],
magnitudes float64 [n, 5] and redshifts float64 [n]), the model as `redshift.safetensors`, `redshift.pt2` and
`redshift.ts.pt`, and `training.json` with the loss of each epoch. All of it is made up by the code below.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from pagemill_worker.embed.infer.adapters import CONFIG_KEY
from pagemill_worker.embed.infer.redshift import BANDS, SIDE_PX, RedshiftNet

# The middles of the bands u, g, r, i, z of the Sloan survey, and the break in the spectra of old stars, in angstrom.
BAND_ANGSTROM = np.array([3551.0, 4686.0, 6166.0, 7480.0, 8932.0])
BREAK_ANGSTROM = 4000.0
MAX_REDSHIFT = 0.6
NOISE_FLUX = 2e-4
WIDTH = 16
BATCH = 128
CHUNK = 1000  # galaxies made at once: 20 MB of pictures


@dataclass(frozen=True, slots=True)
class Galaxies:
    """Pictures float32 (n, 5, 32, 32) as flux, magnitudes float64 (n, 5), redshifts float64 (n,)."""

    pictures: NDArray[np.float32]
    magnitudes: NDArray[np.float64]
    redshifts: NDArray[np.float64]


def make_galaxies(count: int, seed: int) -> Galaxies:
    """Discs of random size, shape and angle, with noise, whose break moves through the bands with redshift."""
    rng = np.random.default_rng(seed)
    chunks = [_chunk(min(CHUNK, count - start), rng) for start in range(0, count, CHUNK)]
    return Galaxies(
        np.concatenate([chunk.pictures for chunk in chunks]),
        np.concatenate([chunk.magnitudes for chunk in chunks]),
        np.concatenate([chunk.redshifts for chunk in chunks]),
    )


def _chunk(count: int, rng: np.random.Generator) -> Galaxies:
    redshifts = rng.uniform(0.02, MAX_REDSHIFT, count)
    rest = BAND_ANGSTROM / (1 + redshifts[:, None])
    below = 1 / (1 + np.exp((rest - BREAK_ANGSTROM) / 250))
    depth = rng.uniform(0.5, 0.9, (count, 1))
    slope = rng.normal(0.6, 0.25, (count, 1))
    brightness = 0.4 * 10 ** rng.normal(0, 0.15, (count, 1)) / (0.3 + redshifts[:, None]) ** 2
    flux = brightness * (rest / 5500) ** slope * (1 - depth * below)
    shapes = _discs(count, redshifts, rng)
    pictures = flux[:, :, None, None] * shapes[:, None] + rng.normal(0, NOISE_FLUX, (count, BANDS, SIDE_PX, SIDE_PX))
    magnitudes = 22.5 - 2.5 * np.log10(flux) + rng.normal(0, 0.03, flux.shape)
    return Galaxies(pictures.astype(np.float32), magnitudes, redshifts)


def _discs(count: int, redshifts: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Shape (count, 32, 32), each of sum 1; farther galaxies are smaller."""
    at = np.arange(SIDE_PX) - (SIDE_PX - 1) / 2
    x, y = at[None, None, :], at[None, :, None]
    angle, flat = rng.uniform(0, np.pi, (count, 1, 1)), rng.uniform(0.4, 1.0, (count, 1, 1))
    size = rng.uniform(1.0, 2.0, (count, 1, 1)) / (0.3 + redshifts[:, None, None])
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / flat
    shapes = np.exp(-np.sqrt(along**2 + across**2 + 0.5) / size)
    return np.asarray(shapes / shapes.sum(axis=(1, 2), keepdims=True))


def train(galaxies: Galaxies, epochs: int, seed: int, width: int = WIDTH) -> tuple[RedshiftNet, list[float]]:
    """A trained model, in evaluation mode, and the mean squared error of each epoch."""
    torch.manual_seed(seed)
    mean, spread = galaxies.magnitudes.mean(axis=0).tolist(), float(galaxies.magnitudes.std())
    model = RedshiftNet(width, mean, spread)
    pictures, magnitudes = torch.from_numpy(galaxies.pictures), torch.from_numpy(galaxies.magnitudes)
    truth = torch.from_numpy(galaxies.redshifts).to(torch.float32)[:, None]
    steps = epochs * -(-len(truth) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=max(steps, 2))
    losses = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.split(torch.randperm(len(truth)), BATCH):
            loss = torch.nn.functional.mse_loss(model([pictures[rows], magnitudes[rows]]), truth[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(truth))
    return model.eval(), losses


def save_model(model: RedshiftNet, folder: Path) -> None:
    """Write the model in the three forms that need no trust."""
    weights: dict[str, Tensor] = {key: value.contiguous() for key, value in model.state_dict().items()}
    config = {
        "width": len(weights["image.0.bias"]),
        "mean": weights["mean"].tolist(),
        "spread": float(weights["spread"]),
    }
    safetensors.torch.save_file(weights, folder / "redshift.safetensors", metadata={CONFIG_KEY: json.dumps(config)})
    (folder / "redshift.safetensors").chmod(0o644)  # safetensors makes it readable by its owner alone
    example = [torch.zeros(2, BANDS, SIDE_PX, SIDE_PX), torch.zeros(2, BANDS, dtype=torch.float64)]
    rows = torch.export.Dim("rows")
    exported = torch.export.export(model, (example,), dynamic_shapes=([{0: rows}, {0: rows}],))
    torch.export.save(exported, folder / "redshift.pt2")
    with warnings.catch_warnings():  # torch would rather have torch.export, which stands beside it
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(model), folder / "redshift.ts.pt")


def save_partitions(galaxies: Galaxies, folder: Path, rows: int) -> int:
    """Write 1.pt, 2.pt, … of `rows` rows each, the last perhaps short. Returns: how many."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(galaxies.redshifts), rows)
    for number, start in enumerate(starts, 1):
        part = slice(start, start + rows)
        tensors = (galaxies.pictures[part], galaxies.magnitudes[part], galaxies.redshifts[part])
        torch.save(TensorDataset(*(torch.from_numpy(values.copy()) for values in tensors)), folder / f"{number}.pt")
    return len(starts)


def main() -> int:
    """Make the sample; print where it is."""
    parser = argparse.ArgumentParser(description="Make partitions of synthetic galaxies and train a redshift model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=6000, help="galaxies to train on")
    parser.add_argument("--rows", type=int, default=4300, help="galaxies to write as partitions")
    parser.add_argument("--partition-rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=WIDTH, help="of the network; 64 takes ten times as long")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    model, losses = train(make_galaxies(given.train, given.seed), given.epochs, given.seed, given.width)
    save_model(model, given.folder)
    count = save_partitions(
        make_galaxies(given.rows, given.seed + 1), given.folder / "partitions", given.partition_rows
    )
    report = {"epochs": given.epochs, "seed": given.seed, "galaxies": given.train, "mean_squared_error": losses}
    (given.folder / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(f"{count} partitions and the model are in {given.folder}; last loss {losses[-1]:.5f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
