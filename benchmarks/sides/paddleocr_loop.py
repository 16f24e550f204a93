"""The loop of PaddleOCR's own documentation: one pipeline, `predict` on one file after the other.

A program: the work as JSON on standard input, the moments at which pages were finished as JSON on standard output.
Everything is the package's default, but for the folders of the models (nothing is downloaded) and the runtime.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """Run the loop."""
    from paddleocr import PaddleOCR

    work: dict[str, Any] = json.loads(sys.stdin.read())
    pipeline = PaddleOCR(
        use_doc_orientation_classify=False,  # as in the documentation's first example
        use_doc_unwarping=False,
        use_textline_orientation=False,
        text_detection_model_name=work["detector"]["name"],
        text_detection_model_dir=work["detector"]["folder"],
        text_recognition_model_name=work["recogniser"]["name"],
        text_recognition_model_dir=work["recogniser"]["folder"],
        engine="onnxruntime",
    )
    finished, regions = [], 0
    for path in work["pages"]:
        (result,) = pipeline.predict(path)
        regions += len(result["rec_texts"])
        finished.append(time.time())
    sys.stdout.write(json.dumps({"finished": finished, "regions": regions}))


if __name__ == "__main__":
    main()
