"""ONNX models, run by ONNX Runtime.

Layer: `worker.embed.infer`. The file is loaded from its bytes, so weights kept in other files beside it are not found
and such a model is refused: what runs is what the digest covers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from pagemill_core.errors import EngineUnavailableError, PartUnreadable
from pagemill_worker.embed.infer.calling import Inputs
from pagemill_worker.ocr.guard import load_boundary

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def load_onnx(name: str, data: bytes, device: str, threads: int) -> tuple[Callable[..., Any], Inputs]:
    """The model's call and what it takes. Raises: EngineUnavailableError."""
    import onnxruntime

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise EngineUnavailableError(
            f"ONNX Runtime has no {provider} here", advice="install onnxruntime-gpu, or set inference.device: cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with load_boundary(name):
        session = onnxruntime.InferenceSession(data, options, providers=[provider])
    inputs = session.get_inputs()
    unknown = sorted({given.type for given in inputs} - set(_DTYPES))
    if unknown or len(session.get_outputs()) != 1:
        raise EngineUnavailableError(
            f"{name}: inputs of {', '.join(unknown) or 'known types'} and {len(session.get_outputs())} outputs",
            advice="export a model that takes tensors of numbers and gives one tensor",
        )
    output = session.get_outputs()[0].name
    names = tuple(given.name for given in inputs)
    dtypes = {given.name: _DTYPES[given.type] for given in inputs}

    def call(*tensors: Tensor, **named: Tensor) -> Any:
        given = {**dict(zip(names, tensors, strict=False)), **named}
        feeds = {key: _as_dtype(key, tensor, dtypes[key]) for key, tensor in given.items()}
        return session.run([output], feeds)[0]

    return call, Inputs(names)


def _as_dtype(name: str, tensor: Tensor, dtype: Any) -> Any:
    """The values in the model's own type: ONNX refuses all others. Raises: PartUnreadable for a change of kind."""
    values = np.ascontiguousarray(tensor.numpy())
    if np.dtype(dtype) == values.dtype:
        return values
    if not np.can_cast(values.dtype, dtype, casting="same_kind"):
        raise PartUnreadable(
            f"the model's input {name} is {np.dtype(dtype)}, and the partition's tensor {values.dtype}"
        )
    return values.astype(dtype)
