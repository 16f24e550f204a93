"""A bare PyTorch loop over partitions: read one, call the model batch by batch, keep what it says.

A program: the work as JSON on standard input; rows, seconds in the loops and seconds in all as JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """Run the loop."""
    import torch

    work: dict[str, Any] = json.loads(sys.stdin.read())
    torch.set_num_threads(1)
    model = torch.export.load(work["model"]).module()
    batch, rows, loop_s, loop_cpu_s, kept = int(work["batch"]), 0, 0.0, 0.0, []
    started = time.perf_counter()
    with torch.inference_mode():
        for path in work["partitions"]:
            images, magnitudes, _ = torch.load(path, weights_only=False).tensors
            before, cpu_before = time.perf_counter(), time.process_time()
            for start in range(0, len(images), batch):
                kept.append(model([images[start : start + batch], magnitudes[start : start + batch]]))
            loop_s += time.perf_counter() - before
            loop_cpu_s += time.process_time() - cpu_before
            rows += len(images)
    wall_s = time.perf_counter() - started
    total = float(torch.cat(kept).sum())
    answer = {"rows": rows, "loop_s": loop_s, "loop_cpu_s": loop_cpu_s, "wall_s": wall_s, "total": total}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
