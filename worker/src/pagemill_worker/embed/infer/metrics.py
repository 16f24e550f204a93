"""How good predictions are, given the true values: errors of any regression, and those of redshifts.

Layer: `worker.embed.infer`; pure, numpy only. Sums run over all rows. What needs a sort, and the plot, works on a
sample of at most SAMPLE_ROWS rows, which is all of them until then.

Sources: outliers |dz| / (1 + z) > 0.15: Ilbert et al. 2006, A&A 457, 841. NMAD 1.48 x the median of
|dz - median(dz)| / (1 + z): Brammer et al. 2008, ApJ 686, 1503, here with the factor 1.4826 of a normal distribution
and dz already divided by 1 + z, as Pasquet et al. 2019, A&A 621, A26, who also define the bias as the mean of
dz / (1 + z).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_ROWS = 4_000_000  # 64 MB; beyond it every second row is left out, then every second of the rest, and so on
OUTLIER = 0.15
NORMAL_MAD = 1.4826

Values = NDArray[np.float64]


class Metrics:
    """Collects predictions and true values part by part, in plan order, so that the sample is the same in every run.

    Rows where either is not finite are counted and left out of the figures.
    """

    def __init__(self, sample_rows: int = SAMPLE_ROWS) -> None:
        self._sample_rows = sample_rows
        self._stride = 1
        self._seen = 0
        self._sample: list[NDArray[np.float64]] = []
        self._sampled = 0
        self.rows = 0
        self.rows_not_finite = 0
        self._absolute = self._squared = self._scaled = 0.0
        self._outliers = 0
        self._is_redshift = True
        self._mean = self._spread = 0.0

    def add(self, predicted: NDArray[Any], true: NDArray[Any]) -> None:
        """Take a part: both of shape (rows,). Raises: ValueError when they have unequal shapes."""
        if predicted.shape != true.shape or predicted.ndim != 1:
            raise ValueError(f"predictions of shape {predicted.shape} for true values of shape {true.shape}")
        pairs = np.stack([predicted, true], axis=1).astype(np.float64)
        usable = pairs[np.isfinite(pairs).all(axis=1)]
        self.rows_not_finite += len(pairs) - len(usable)
        if len(usable):
            self._sum(usable[:, 0], usable[:, 1])
            self._keep(usable)

    def sample(self) -> NDArray[np.float64]:
        """Shape (rows, 2): predictions and true values of all rows, or of evenly spaced ones when there are many."""
        return np.concatenate(self._sample) if self._sample else np.zeros((0, 2))

    def as_json(self) -> dict[str, Any]:
        """The figures. Those of redshifts are null where a true value is -1 or less, R² where all are equal."""
        if not self.rows:
            return {"rows": 0, "rows_not_finite": self.rows_not_finite}
        found: dict[str, Any] = {
            "rows": self.rows,
            "rows_not_finite": self.rows_not_finite,
            "mae": self._absolute / self.rows,
            "mse": self._squared / self.rows,
            "rmse": (self._squared / self.rows) ** 0.5,
            "r2": 1 - self._squared / self._spread if self._spread > 0 else None,
        }
        names = ("bias", "nmad", "outlier_fraction")
        redshift = self._redshift() if self._is_redshift else dict.fromkeys(names)
        return {**found, **redshift, "outlier_threshold": OUTLIER, "nmad_rows": self._sampled}

    def _redshift(self) -> dict[str, Any]:
        pairs = self.sample()
        scaled = (pairs[:, 0] - pairs[:, 1]) / (1 + pairs[:, 1])
        return {
            "bias": self._scaled / self.rows,
            "nmad": float(NORMAL_MAD * np.median(np.abs(scaled - np.median(scaled)))),
            "outlier_fraction": self._outliers / self.rows,
        }

    def _sum(self, predicted: Values, true: Values) -> None:
        difference = predicted - true
        self._absolute += float(np.abs(difference).sum())
        self._squared += float((difference**2).sum())
        count, mean = len(true), float(true.mean())
        spread, gap, rows = float(((true - mean) ** 2).sum()), mean - self._mean, self.rows + count
        self._spread += spread + gap**2 * self.rows * count / rows
        self._mean += gap * count / rows
        self.rows = rows
        self._is_redshift = self._is_redshift and bool((true > -1).all())
        if self._is_redshift:
            scaled = difference / (1 + true)
            self._scaled += float(scaled.sum())
            self._outliers += int((np.abs(scaled) > OUTLIER).sum())

    def _keep(self, pairs: NDArray[np.float64]) -> None:
        first = -self._seen % self._stride
        self._seen += len(pairs)
        kept = pairs[first :: self._stride]
        self._sample.append(kept)
        self._sampled += len(kept)
        while self._sampled > self._sample_rows:
            thinned = self.sample()[::2]
            self._sample, self._sampled, self._stride = [thinned], len(thinned), self._stride * 2
