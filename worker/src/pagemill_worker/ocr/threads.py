"""The environment an engine's process needs before it imports anything.

Layer: `worker.ocr`. OpenMP, BLAS and Paddle read these variables once, while their libraries load; set later they do
nothing. So the supervisor, not an adapter, puts them into the child's environment. This module only says what they
are and touches no environment itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pagemill_worker.ocr.settings import OcrSettings

# N processes of one thread read more pages than one process of N threads with every engine, and Tesseract alone is
# five times slower when OpenMP may use more threads than its process has cores.
ONE_THREAD: Mapping[str, str] = MappingProxyType(
    {
        "OMP_NUM_THREADS": "1",
        "OMP_THREAD_LIMIT": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
    }
)

# Nothing is ever fetched while a page is read: models come from installed packages or from folders.
_OFFLINE: Mapping[str, str] = MappingProxyType(
    {
        "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # ONNX Runtime's official builds send usage events to their vendor unless this is set before they load.
        "ORT_DISABLE_TELEMETRY": "1",
    }
)


def engine_environment(paths: OcrSettings) -> dict[str, str]:
    """The variables to add to the environment of a process that will load an engine.

    The folders that Paddle and EasyOCR create on import are moved below `paths.cache_dir`, because a pod's home is
    often read-only.
    """
    return {
        **ONE_THREAD,
        **_OFFLINE,
        "PADDLE_PDX_CACHE_HOME": str(paths.cache_dir / "paddlex"),
        "EASYOCR_MODULE_PATH": str(paths.cache_dir / "easyocr"),
        "MODELSCOPE_CACHE": str(paths.cache_dir / "modelscope"),
        "MPLCONFIGDIR": str(paths.cache_dir / "matplotlib"),
    }
