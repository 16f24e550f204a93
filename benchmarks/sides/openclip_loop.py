"""The loop of open_clip's own documentation: default preprocessing, float32, one process with every thread.

A program: the work as JSON on standard input, the moments at which pictures were finished as JSON on standard output.
The vectors go to the file `vectors` of the work, for comparing.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """Run the loop."""
    import numpy as np
    import open_clip
    import torch
    from PIL import Image

    work: dict[str, Any] = json.loads(sys.stdin.read())
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{work['model']}")
    model.eval()
    finished, vectors = [], []
    batch = int(work["batch"])
    paths = work["pictures"]
    for start in range(0, len(paths), batch):
        some = paths[start : start + batch]
        images = torch.stack([preprocess(Image.open(path)) for path in some])
        with torch.no_grad():
            features = model.encode_image(images)
            features /= features.norm(dim=-1, keepdim=True)
        vectors.append(features.float().numpy())
        finished += [time.time()] * len(some)
    np.save(work["vectors"], np.concatenate(vectors))
    sys.stdout.write(json.dumps({"finished": finished}))


if __name__ == "__main__":
    main()
