"""sentence-transformers' `encode` with its defaults, over all texts at once.

A program: the work as JSON on standard input, seconds and rows as JSON on standard output; the vectors go to the file
`vectors` of the work, for comparing.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the loop."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    work: dict[str, Any] = json.loads(sys.stdin.read())
    model = SentenceTransformer(work["model"])
    texts = [json.loads(line)["text"] for line in Path(work["texts"]).read_text(encoding="utf-8").splitlines()]
    model.encode(texts[:64])
    started = time.time()
    vectors = model.encode(texts)
    seconds = time.time() - started
    np.save(work["vectors"], vectors)
    sys.stdout.write(json.dumps({"seconds": seconds, "rows": len(texts)}))


if __name__ == "__main__":
    main()
