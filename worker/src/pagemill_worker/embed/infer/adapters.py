"""Model adapters: a file of weights becomes a call from a batch of tensors to rows of predictions.

Layer: `worker.embed.infer`. `load_adapter` is the door; one function a format behind it. Loading is strict: a digest
that differs, a key too many or too few, a class outside the allowed packages is refused with what to do about it, and
only `trust: pickle` with a pinned digest lets a pickle build anything but tensors.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pagemill_core.errors import EngineUnavailableError, IntegrityError, InvalidSpecError
from pagemill_worker.embed.infer.calling import Inputs, Predictions, arranged, as_rows, inputs_of
from pagemill_worker.embed.infer.settings import InferenceSettings, check_settings
from pagemill_worker.ocr.guard import load_boundary, page_boundary

CONFIG_KEY = "config"
"""Key of a safetensors file's metadata that holds the arguments of its class as a JSON object."""


class Adapter(Protocol):
    """A loaded tensor model."""

    @property
    def device(self) -> str:
        """Where it computes: cpu or cuda."""

    def __call__(self, batch: Sequence[Tensor], names: Sequence[str] | None = None) -> Predictions:
        """Predictions for a batch of tensors on the CPU: float32 of shape (rows, values a row), in order.

        `names` are the tensors' names where the partition has them. Raises: ItemError for a batch that does not fit
        the model, or on which the model raises.
        """


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An `Adapter` around any callable."""

    name: str
    call: Callable[..., Any]
    inputs: Inputs
    device: str

    def __call__(self, batch: Sequence[Tensor], names: Sequence[str] | None = None) -> Predictions:
        tensors = batch if self.device == "cpu" else [tensor.to(self.device, non_blocking=True) for tensor in batch]
        by_place, by_name = arranged(self.inputs, tensors, names)
        with page_boundary(self.name), torch.inference_mode():
            return as_rows(self.call(*by_place, **by_name), int(batch[0].shape[0]))


def load_adapter(settings: InferenceSettings) -> Adapter:
    """Load the model that a job names, on the settings' device.

    Raises: IntegrityError for another digest; InvalidSpecError for settings that contradict one another;
    EngineUnavailableError for a file that is no such model.
    """
    check_settings(settings)
    torch.set_num_threads(settings.threads)
    name = settings.weights.name
    try:
        data = settings.weights.read_bytes()
    except OSError as error:
        raise EngineUnavailableError(f"{settings.weights} cannot be read: {error.strerror}") from error
    check_digest(name, data, settings.digest)
    call, inputs = _load(settings, name, data)
    return LoadedModel(name, call, inputs, settings.device)


def check_digest(name: str, data: bytes, digest: str | None) -> None:
    """Compare what is about to be loaded with the pinned digest. Raises: IntegrityError."""
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest is not None and found != digest:
        raise IntegrityError(
            f"{name} has digest {found}, and the job pins {digest}",
            advice="name the file that was meant, or pin the new digest once you trust it",
        )


def _load(settings: InferenceSettings, name: str, data: bytes) -> tuple[Callable[..., Any], Inputs]:
    if settings.adapter == "torchScript":
        return _load_script(name, data, settings.device)
    if settings.adapter == "torchExport":
        from pagemill_worker.embed.infer.exported import load_exported

        return load_exported(name, data, settings.device)
    if settings.adapter == "onnx":
        from pagemill_worker.embed.infer.onnx_model import load_onnx

        return load_onnx(name, data, settings.device, settings.threads)
    module = _safetensors(settings, name, data) if settings.adapter == "safetensors" else _pickled(settings, name, data)
    module = module.to(settings.device).eval()
    return module, inputs_of(module.forward)


def _load_script(name: str, data: bytes, device: str) -> tuple[Callable[..., Any], Inputs]:
    """TorchScript runs in its own interpreter, which knows tensors and no Python."""
    with load_boundary(name), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export; files of old stay
        module = torch.jit.load(io.BytesIO(data), map_location=device).eval()  # type: ignore[no-untyped-call]
        arguments = module.forward.schema.arguments[1:]
    required = [argument for argument in arguments if not argument.has_default_value()]
    is_list = len(required) == 1 and required[0].type.kind() == "ListType"
    return module, Inputs(tuple(argument.name for argument in required), is_list=is_list)


def _safetensors(settings: InferenceSettings, name: str, data: bytes) -> nn.Module:
    import safetensors.torch

    made = _class_of(settings)
    with load_boundary(name):
        weights: Mapping[str, Tensor] = safetensors.torch.load(data)
        module: object = made(**_config(data))
    if not isinstance(module, nn.Module):
        raise InvalidSpecError(f"inference.modelClass: {settings.model_class} is no torch.nn.Module")
    load_strictly(module, weights, name)
    return module


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Give a module exactly the weights it has. Raises: EngineUnavailableError naming what differs."""
    held = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    differences = (
        [f"missing {key}" for key in held if key not in given]
        + [f"unknown {key}" for key in given if key not in held]
        + [f"{key} is {given[key]}, not {held[key]}" for key in held if key in given and given[key] != held[key]]
    )
    if differences:
        shown = "; ".join(differences[:5]) + ("" if len(differences) <= 5 else f"; {len(differences) - 5} more")
        raise EngineUnavailableError(
            f"{name}: {len(differences)} weights do not fit {type(module).__name__}: {shown}",
            advice="name the class and configuration with which these weights were saved",
        )
    module.load_state_dict(dict(weights), strict=True)


def _config(data: bytes) -> dict[str, Any]:
    """The class's arguments from the file's metadata; none where it has none."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    config: object = json.loads(header.get("__metadata__", {}).get(CONFIG_KEY, "{}"))
    if not isinstance(config, dict):
        raise ValueError("its config is no JSON object")
    return config


def _class_of(settings: InferenceSettings) -> Callable[..., object]:
    package, _, attribute = str(settings.model_class).partition(":")
    try:
        found = getattr(importlib.import_module(package), attribute, None)
    except ImportError as error:
        raise EngineUnavailableError(
            f"inference.modelClass: {package} cannot be imported: {error}", advice="install it in the worker's image"
        ) from error
    if not isinstance(found, type):
        raise EngineUnavailableError(f"inference.modelClass: {package} has no class {attribute}")
    return found


def _pickled(settings: InferenceSettings, name: str, data: bytes) -> nn.Module:
    """The job says `trust: pickle`, and `data` has the digest it pins: only now may a pickle run."""
    if settings.model_class is not None:
        _class_of(settings)  # some models are found only once their package is imported
    with load_boundary(name):
        loaded: object = torch.load(io.BytesIO(data), map_location=settings.device, weights_only=False)
    if isinstance(loaded, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        loaded = loaded.module
    if not isinstance(loaded, nn.Module):
        raise EngineUnavailableError(
            f"{name}: it holds a {type(loaded).__name__}, and a pickled torch.nn.Module is wanted",
            advice="weights alone are loaded with adapter: safetensors and modelClass",
        )
    return loaded
