"""The files of a new package with one stage and its test, as `pagemill stages new` writes them.

Layer: `cli`; renders text, writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pagemill_core.errors import InvalidSpecError

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_SAMPLES: Mapping[str, str] = {
    "PageText": 'PageText((Region("Once upon a time"),))',
    "PageImage": "PageImage(np.full((40, 60, 3), 255, np.uint8))",
    "Vector": 'Vector(np.ones(4, np.float32) / 2, "visual")',
    "str": '"Once upon a time"',
}
_IMPORTS: Mapping[str, str] = {
    "PageText": (
        "from pagemill_worker.ocr.engine import Region\n"
        "from pagemill_worker.stages.contract import PageText, StageItem\n"
    ),
    "PageImage": "import numpy as np\n\nfrom pagemill_worker.stages.contract import PageImage, StageItem\n",
    "Vector": "import numpy as np\n\nfrom pagemill_worker.stages.contract import StageItem, Vector\n",
    "str": "from pagemill_worker.stages.contract import StageItem\n",
}
TYPES = tuple(_SAMPLES)

_PROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
description = "A stage for Pagemill."
requires-python = ">=3.11"
dependencies = ["pagemill-worker"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
_STAGE = """\
\"\"\"A stage for Pagemill. Heavy packages are imported in `setup`: this module is also loaded to check a job.\"\"\"

from collections.abc import Sequence

from pagemill_worker.stages.contract import {imported}


class {cls}(Stage):
    \"\"\"Says what the stage does, in one line.\"\"\"

    takes = {takes}
    gives = {takes}

    def process(self, items: Sequence[StageItem]) -> Sequence[StageItem]:
        return [item.with_notes(seen=True) for item in items]
"""
_TEST = """\
{imports}from {package}.stages import {cls}


def test_stage_gives_back_what_it_took() -> None:
    stage = {cls}()
    stage.setup()
    (item,) = stage.process([StageItem(id="page", value={sample})])
    assert item.notes == {{"seen": True}}
    stage.shutdown()
"""


def class_name(name: str) -> str:
    """The class of the package's stage."""
    return "".join(part.capitalize() for part in re.split("[_-]", name))


def scaffold(name: str, takes: str) -> dict[str, str]:
    """Texts by path below the package's folder. Raises: InvalidSpecError for a name that no package can have."""
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(
            f"{name}: a package's name is of small letters, digits, _ and -", advice="say, for example, word-count"
        )
    package, cls = name.replace("-", "_"), class_name(name)
    imported = ", ".join(sorted({"Stage", "StageItem", takes} - {"str"}))
    return {
        "pyproject.toml": _PROJECT.format(name=name),
        f"{package}/__init__.py": '"""Stages of our own."""\n',
        f"{package}/stages.py": _STAGE.format(cls=cls, takes=takes, imported=imported),
        "tests/test_stages.py": _TEST.format(imports=_IMPORTS[takes], package=package, cls=cls, sample=_SAMPLES[takes]),
    }
