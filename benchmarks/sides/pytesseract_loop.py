"""One Python loop over pytesseract with its defaults: words with boxes of one file after the other.

A program: paths as JSON on standard input, the moments at which pages were finished as JSON on standard output.
"""

from __future__ import annotations

import json
import sys
import time

import pytesseract
from PIL import Image


def main() -> None:
    """Run the loop."""
    finished, words = [], 0
    for path in json.loads(sys.stdin.read()):
        with Image.open(path) as page:
            found = pytesseract.image_to_data(page, output_type=pytesseract.Output.DICT)
        words += sum(1 for text in found["text"] if text.strip())
        finished.append(time.time())
    sys.stdout.write(json.dumps({"finished": finished, "regions": words}))


if __name__ == "__main__":
    main()
