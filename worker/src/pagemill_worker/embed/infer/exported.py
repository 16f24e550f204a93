"""Files of `torch.export.save`, looked through before torch loads them.

Layer: `worker.embed.infer`. torch's own loader unpickles parts of such a file freely, evaluates size expressions as
Python, and resolves operators by name anywhere in torch. So a file is only loaded when its pickles pass the restricted
unpickler, its expressions are arithmetic, and its operators are tensor operators.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pagemill_core.errors import EngineUnavailableError, IntegrityError
from pagemill_worker.embed.infer.calling import Inputs
from pagemill_worker.ocr.guard import load_boundary

MODEL = "model"
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|data/weights/weight_\d+|data/constants/tensor_\d+|extra/.*"
)
_CONFIG = re.compile(r"data/(weights|constants)/\w+_config\.json")
_PICKLED = re.compile(r"data/sample_inputs/\w+\.pt")
_GRAPH = re.compile(r"models/\w+\.json")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.(_?sym_\w+|amp\.autocast_mode\.\w+)"
)
_ARITHMETIC = re.compile(r"[A-Za-z0-9_\s+\-*/%(),<>=&|~]*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_SIZE = re.compile(r"[a-z]{1,3}\d+")
_SYMBOL = re.compile(r"Symbol\('([a-z]{1,3}\d+)'(, \w+=(True|False))*\)")
# Python's own functions could be called too, so only the functions of sizes are let through.
_FUNCTION = re.compile(
    r"Add|And|CeilToInt|Eq|Equality|FloorDiv|FloorToInt|Ge|GreaterThan|Gt|IntTrueDiv|Integer|Le|LessThan|Lt|Max|Min|Mod|"
    r"ModularIndexing|Mul|Ne|Not|Or|Pow|PythonMod|Rational|StrictGreaterThan|StrictLessThan|ToFloat|True|False|Unequality"
)
_ADVICE = "export the model anew with torch.export.save, without custom objects, from operators of torch alone"


def load_exported(name: str, data: bytes, device: str) -> tuple[Callable[..., Any], Inputs]:
    """The model of a torch.export file and what it takes.

    Raises: IntegrityError for a file that could do more than compute; EngineUnavailableError for one torch cannot load.
    """
    with load_boundary(name):
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))  # the reader torch itself uses, so both see one file
        records: list[str] = reader.get_all_records()
        read: Callable[[str], bytes] = reader.get_record
        _check(name, records, read)

        # Not torch.export.load: on an error it goes on to an older format, which nobody has looked through.
        from torch.export.pt2_archive._package import load_pt2

        programs = load_pt2(io.BytesIO(data)).exported_programs
    if set(programs) != {MODEL}:
        raise EngineUnavailableError(f"{name}: it holds {sorted(programs) or 'no'} models", advice=_ADVICE)
    program = programs[MODEL]
    module = program.module()
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        module = move_to_device_pass(program, device).module()
    return module, _inputs(program)


def _inputs(program: Any) -> Inputs:
    arguments = program.call_spec.in_spec.child(0)
    names = tuple(program.graph_signature.user_inputs)
    is_list = arguments.num_children == 1 and arguments.child(0).num_children > 0
    return Inputs(names[:1] if is_list else names, is_list=is_list)


def _check(name: str, records: list[str], read: Callable[[str], bytes]) -> None:
    if "archive_format" not in records or read("archive_format") != b"pt2":
        raise EngineUnavailableError(f"{name}: no file of torch.export.save", advice=_ADVICE)
    for record in records:
        if _GRAPH.fullmatch(record):
            _check_graph(name, json.loads(read(record)))
        elif _CONFIG.fullmatch(record):
            folder = record.rpartition("/")[0]
            for payload in json.loads(read(record))["config"].values():
                if payload["use_pickle"]:
                    _check_pickle(name, f"{folder}/{payload['path_name']}", read)
        elif _PICKLED.fullmatch(record):
            _check_pickle(name, record, read)
        elif not _PLAIN.fullmatch(record):
            raise IntegrityError(f"{name}: it holds {record}, which is more than weights and a graph", advice=_ADVICE)


def _check_pickle(name: str, record: str, read: Callable[[str], bytes]) -> None:
    data = read(record)
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise IntegrityError(f"{name}: {record} holds more than tensors", advice=_ADVICE) from error


def _check_graph(name: str, graph: object) -> None:
    for key, value in _pairs(graph):
        if key == "target" and isinstance(value, str) and not _OPERATOR.fullmatch(value):
            raise IntegrityError(f"{name}: it calls {value[:80]}, which is no tensor operator", advice=_ADVICE)
        if key == "expr_str":
            _check_expression(name, str(value))
        if key == "range_constraints" and isinstance(value, dict):
            for expression in value:
                _check_expression(name, expression)


def _check_expression(name: str, expression: str) -> None:
    plain = _SYMBOL.sub(r"\1", expression)
    is_known = all(_SIZE.fullmatch(word) or _FUNCTION.fullmatch(word) for word in _NAME.findall(plain))
    if not is_known or not _ARITHMETIC.fullmatch(plain):
        raise IntegrityError(f"{name}: {expression[:80]} is no size expression", advice=_ADVICE)


def _pairs(node: object) -> Iterator[tuple[str, object]]:
    """Every key of every object in a JSON document with its value."""
    stack = [node]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            yield from found.items()
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)
