"""Real photographs that installed packages ship, for the search demo.

Project tooling; nothing is fetched and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

# Photographs and scans alone: the packages' test patterns and drawings would only look odd among the answers.
PHOTOS = {
    "skimage.data": (
        *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
        *("coins.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "moon.png"),
        *("motorcycle_left.png", "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
    ),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}


def all_photos() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each photograph."""
    for package, names in PHOTOS.items():
        for name in names:
            yield Path(name).name, files(package).joinpath(name).read_bytes()
