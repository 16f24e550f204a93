"""Tensor models on real partitions: what is read, loaded, refused, and rows that are those of a bare loop."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import train_redshift
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pagemill_core.errors import (
    EncoderFailed,
    EngineFailed,
    EngineUnavailableError,
    IntegrityError,
    InvalidSpecError,
    PartUnreadable,
    SourceChanged,
)
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.embed.infer.adapters import Adapter, load_adapter
from pagemill_worker.embed.infer.calling import Inputs, arranged, as_rows
from pagemill_worker.embed.infer.loop import batch_memory, predict
from pagemill_worker.embed.infer.metrics import Metrics
from pagemill_worker.embed.infer.partitions import read_partition, split_labels
from pagemill_worker.embed.infer.rank_files import PartFacts
from pagemill_worker.embed.infer.redshift import RedshiftNet
from pagemill_worker.embed.infer.rows import PredictionFacts, Predictions, pack, unpack
from pagemill_worker.embed.infer.runner import InferenceRunner, make_runner
from pagemill_worker.embed.infer.settings import InferenceSettings
from pagemill_worker.embed.infer.setup import RUNNER, setup_message
from pagemill_worker.fetch.fetched import Fetched, local_version
from pagemill_worker.items import PlannedItem

NET = "pagemill_worker.embed.infer.redshift:RedshiftNet"


class Touch:
    """A pickle that makes a file when it is loaded by an unpickler that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


class TwoInputs(nn.Module):
    """A pickled module of the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.scale * a.sum(dim=1) + b.sum(dim=1).float()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of docs/guide/inference.md made small: a hardly trained model, 3 partitions of 50, 50 and 23 rows."""
    folder = tmp_path_factory.mktemp("redshift")
    torch.set_num_threads(1)
    model, losses = train_redshift.train(train_redshift.make_galaxies(384, seed=1), epochs=10, seed=1)
    train_redshift.save_model(model, folder)
    train_redshift.save_partitions(train_redshift.make_galaxies(123, seed=2), folder / "partitions", 50)
    assert losses[-1] < losses[0]
    return folder


def saved(path: Path, value: object, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def settings_of(path: Path, adapter: Any, **more: Any) -> InferenceSettings:
    return InferenceSettings(adapter=adapter, weights=path, **more)


# Partitions


@pytest.mark.parametrize(
    ("value", "want_names"),
    [
        (torch.arange(6.0).reshape(3, 2), None),
        ((torch.arange(6.0).reshape(3, 2), torch.arange(3)), None),
        ([torch.arange(6.0).reshape(3, 2)], None),
        ({"a": torch.arange(6.0).reshape(3, 2), "b": torch.arange(3)}, ("a", "b")),
        (TensorDataset(torch.arange(6.0).reshape(3, 2), torch.arange(3, dtype=torch.float64)), None),
    ],
    ids=["tensor", "tuple", "list", "dict", "tensor-dataset"],
)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older-format"])
def test_partition_of_each_form_is_read_whole_and_by_rows(
    tmp_path: Path, value: object, want_names: tuple[str, ...] | None, is_zip: bool
) -> None:
    path = saved(tmp_path / "1.pt", value, _use_new_zipfile_serialization=is_zip)

    whole, rows, from_bytes = read_partition(path), read_partition(path, rows=(1, 3)), read_partition(path.read_bytes())

    assert (whole.rows, whole.names) == (3, want_names)
    assert torch.equal(whole.tensors[0], torch.arange(6.0).reshape(3, 2))
    assert torch.equal(rows.tensors[0], torch.tensor([[2.0, 3.0], [4.0, 5.0]]))
    assert [torch.equal(a, b) for a, b in zip(whole.tensors, from_bytes.tensors, strict=True)] == [True] * len(
        whole.tensors
    )


def test_partition_that_is_a_malicious_pickle_does_nothing(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    paths = [
        saved(tmp_path / "zip.pt", Touch(touched)),
        saved(tmp_path / "old.pt", Touch(touched), _use_new_zipfile_serialization=False),
        saved(tmp_path / "inside.pt", {"a": torch.ones(2), "b": Touch(touched)}),
    ]
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Touch(touched), protocol=2))

    for path in [*paths, tmp_path / "bare.pt"]:
        with pytest.raises(PartUnreadable):
            read_partition(path)
        with pytest.raises(PartUnreadable):
            read_partition(path.read_bytes())

    assert not touched.exists()


def test_partition_class_beyond_those_allowed_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "1.pt", TwoInputs())

    with pytest.raises(PartUnreadable, match=r"1\.pt: not read"):
        read_partition(path)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ((torch.ones(3), torch.ones(4)), r"3, 4\] rows"),
        (torch.tensor(1.0), "without rows"),
        ({"a": torch.ones(2), "b": "text"}, "holds Tensor, str"),
        ([], "holds nothing"),
        (torch.ones(3, 3).to_sparse(), "sparse"),
    ],
    ids=["unequal", "scalar", "text", "empty", "sparse"],
)
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:Validating sparse:UserWarning")
def test_partition_without_rows_of_tensors_is_refused(tmp_path: Path, value: object, want: str) -> None:
    with pytest.raises(PartUnreadable, match=want):
        read_partition(saved(tmp_path / "1.pt", value))


def test_partition_cut_short_at_any_place_is_unreadable_and_never_wrong(tmp_path: Path) -> None:
    data = saved(tmp_path / "1.pt", TensorDataset(torch.randn(8, 3))).read_bytes()

    for size in [0, 1, 3, 10, 100, len(data) // 2, len(data) - 30, len(data) - 1]:
        (tmp_path / "cut.pt").write_bytes(data[:size])
        with pytest.raises(PartUnreadable):
            read_partition(tmp_path / "cut.pt")
        with pytest.raises(PartUnreadable):
            read_partition(data[:size])


def test_partition_rows_past_its_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PartUnreadable, match="it has 3 rows, and rows 2 to 5 were planned"):
        read_partition(saved(tmp_path / "1.pt", torch.ones(3, 2)), rows=(2, 5))


@pytest.mark.parametrize(("labels", "want_shape"), [("z", (3,)), ("1", (3,)), ("0", (3,))])
def test_labels_are_a_key_or_a_position(tmp_path: Path, labels: str, want_shape: tuple[int, ...]) -> None:
    value = {"x": torch.ones(3, 1), "z": torch.ones(3, dtype=torch.float64)}

    inputs, truth = split_labels(read_partition(saved(tmp_path / "1.pt", value)), labels)

    assert truth is not None
    assert (truth.shape, truth.dtype, len(inputs.tensors)) == (want_shape, np.float64, 1)
    assert inputs.names == (("z",) if labels == "0" else ("x",))


@pytest.mark.parametrize(("labels", "want"), [("w", "no labels"), ("7", "no labels"), ("x", "shape")])
def test_labels_that_are_not_there_are_refused(tmp_path: Path, labels: str, want: str) -> None:
    partition = read_partition(saved(tmp_path / "1.pt", {"x": torch.ones(3, 2), "z": torch.ones(3)}))

    with pytest.raises(PartUnreadable, match=want):
        split_labels(partition, labels)


# Adapters


@pytest.mark.parametrize(
    ("file", "adapter"),
    [("redshift.ts.pt", "torchScript"), ("redshift.pt2", "torchExport"), ("redshift.safetensors", "safetensors")],
)
def test_adapter_rows_equal_those_of_a_bare_loop(sample: Path, file: str, adapter: str) -> None:
    path = sample / file
    loaded = load_adapter(settings_of(path, adapter, digest=digest_of(path), model_class=NET))
    model = bare_model(sample)

    for number, rows in ((1, 50), (2, 50), (3, 23)):
        part = sample / "partitions" / f"{number}.pt"
        inputs, truth = split_labels(read_partition(part), "2")
        found, facts = predict(loaded, inputs, batch_size=16)
        whole = torch.load(part, weights_only=False)
        with torch.inference_mode():
            want = torch.cat([model([x, m]) for x, m, _ in DataLoader(whole, batch_size=16)]).numpy()

        assert found.shape == (rows, 1)
        assert np.allclose(found, want, atol=1e-5)
        assert (facts.rows, facts.batches, facts.input_bits) == (rows, -(-rows // 16), rows * 164_160)
        assert truth is not None
        assert np.array_equal(truth, whole.tensors[2].numpy())


def bare_model(sample: Path) -> RedshiftNet:
    with safetensors.safe_open(sample / "redshift.safetensors", framework="pt") as opened:
        config = json.loads(opened.metadata()["config"])
    model = RedshiftNet(**config)
    model.load_state_dict(safetensors.torch.load_file(sample / "redshift.safetensors"))
    return model.eval()


def test_sample_model_learns_and_its_metrics_say_so(sample: Path) -> None:
    loaded = load_adapter(settings_of(sample / "redshift.safetensors", "safetensors", model_class=NET))
    metrics = Metrics()
    for number in (1, 2, 3):
        inputs, truth = split_labels(read_partition(sample / "partitions" / f"{number}.pt"), "2")
        assert truth is not None
        metrics.add(predict(loaded, inputs, 512)[0][:, 0], truth)

    assert metrics.as_json()["rows"] == 123
    assert metrics.as_json()["mae"] < 0.2


def test_adapter_row_ranges_give_the_rows_of_the_whole(sample: Path) -> None:
    loaded = load_adapter(settings_of(sample / "redshift.safetensors", "safetensors", model_class=NET))
    part = sample / "partitions" / "1.pt"
    whole, _ = predict(loaded, split_labels(read_partition(part), "2")[0], 16)

    ranges = [predict(loaded, split_labels(read_partition(part, rows=at), "2")[0], 16)[0] for at in ((0, 32), (32, 50))]

    assert np.allclose(np.concatenate(ranges), whole, atol=1e-6)


def test_adapter_with_another_digest_is_refused_before_loading(sample: Path) -> None:
    settings = settings_of(sample / "redshift.ts.pt", "torchScript", digest="sha256:" + "0" * 64)

    with pytest.raises(IntegrityError, match="and the job pins sha256:000"):
        load_adapter(settings)


def pickled(path: Path, value: object) -> InferenceSettings:
    saved(path, value)
    return settings_of(path, "pickle", trust="pickle", digest=digest_of(path))


def test_pickled_module_without_trust_or_digest_never_runs(tmp_path: Path) -> None:
    trusted = pickled(tmp_path / "model.pt", Touch(tmp_path / "touched"))

    for refused in (replace(trusted, trust="none"), replace(trusted, trust="python"), replace(trusted, digest=None)):
        with pytest.raises(InvalidSpecError, match="trust: pickle and a pinned digest"):
            load_adapter(refused)
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes() + b"\0")
    with pytest.raises(IntegrityError):
        load_adapter(trusted)

    assert not (tmp_path / "touched").exists()


def test_pickled_module_with_trust_and_digest_computes(tmp_path: Path) -> None:
    loaded = load_adapter(pickled(tmp_path / "model.pt", nn.DataParallel(TwoInputs())))

    found = loaded([torch.ones(3, 2), torch.ones(3, 1, dtype=torch.float64)])

    assert found.tolist() == [[5.0], [5.0], [5.0]]
    assert found.dtype == np.float32


def test_pickled_object_that_is_no_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="holds a dict"):
        load_adapter(pickled(tmp_path / "model.pt", {"weight": torch.ones(1)}))


@pytest.mark.parametrize("adapter", ["torchScript", "torchExport", "safetensors", "onnx"])
def test_adapter_given_a_malicious_pickle_does_nothing(tmp_path: Path, adapter: str) -> None:
    path = saved(tmp_path / "model.pt2", Touch(tmp_path / "touched"))

    with pytest.raises(EngineUnavailableError):
        load_adapter(settings_of(path, adapter, model_class=NET))

    assert not (tmp_path / "touched").exists()


def rewritten(
    source: Path, to: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None
) -> Path:
    """A torch.export file with some of its members changed or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as new:
        folder = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
        for name, data in (extra or {}).items():
            new.writestr(f"{folder}/{name}", data)
    return to


def crafted_exports(sample: Path, tmp_path: Path) -> dict[str, Path]:
    """Files of torch.export that would do more than compute, were they loaded as torch loads them."""
    source, touched = sample / "redshift.pt2", tmp_path / "touched"
    bomb = io.BytesIO()
    torch.save(Touch(touched), bomb)

    def edit(text: str, old: str, new: str) -> Path:
        def change(name: str, data: bytes) -> bytes:
            return data.replace(old.encode(), new.encode()) if name == text else data

        return rewritten(source, tmp_path / f"{len(list(tmp_path.iterdir()))}.pt2", change)

    def sample_inputs(name: str, data: bytes) -> bytes:
        return bomb.getvalue() if name.startswith("data/sample_inputs") else data

    return {
        "sample-inputs": rewritten(source, tmp_path / "inputs.pt2", sample_inputs),
        "native-code": rewritten(
            source, tmp_path / "so.pt2", lambda _, data: data, {"data/aotinductor/model/a.so": b"x"}
        ),
        "opaque": rewritten(
            source, tmp_path / "opaque.pt2", lambda _, data: data, {"data/constants/opaque_obj_0": b"x"}
        ),
        "legacy": rewritten(source, tmp_path / "legacy.pt2", lambda _, data: data, {"data/weights/model.pt": b"x"}),
        "operator": edit("models/model.json", "torch.ops.aten.asinh.default", "torch.hub.load"),
        "expression": edit("models/model.json", '"expr_str": "', '"expr_str": "exec(chr(112))+'),
    }


def test_exported_file_that_could_do_more_than_compute_is_refused(sample: Path, tmp_path: Path) -> None:
    refused = {}
    for name, path in crafted_exports(sample, tmp_path).items():
        with pytest.raises(IntegrityError) as caught:
            load_adapter(settings_of(path, "torchExport"))
        refused[name] = caught.value.message

    assert "holds more than tensors" in refused["sample-inputs"]
    assert "aotinductor" in refused["native-code"]
    assert "torch.hub.load" in refused["operator"]
    assert "no size expression" in refused["expression"]
    assert {"opaque", "legacy"} <= set(refused)
    assert not (tmp_path / "touched").exists()


def test_safetensors_with_other_keys_names_what_differs(sample: Path, tmp_path: Path) -> None:
    weights = safetensors.torch.load_file(sample / "redshift.safetensors")
    weights["odd"] = weights.pop("joined.0.bias")
    safetensors.torch.save_file(weights, tmp_path / "odd.safetensors", metadata={"config": '{"width": 16}'})

    with pytest.raises(EngineUnavailableError, match=r"2 weights do not fit .*missing joined.0.bias; unknown odd"):
        load_adapter(settings_of(tmp_path / "odd.safetensors", "safetensors", model_class=NET))


@pytest.mark.parametrize(
    ("model_class", "error", "want"),
    [
        (None, InvalidSpecError, "weights alone"),
        ("os:system", InvalidSpecError, "not among the allowed packages"),
        ("pagemill_worker.embed.infer.redshiftx:Net", InvalidSpecError, "not among the allowed packages"),
        ("pagemill_worker.embed.infer.redshift:Nothing", EngineUnavailableError, "has no class Nothing"),
        ("pagemill_worker.embed.infer.redshift.deep:Net", EngineUnavailableError, "cannot be imported"),
    ],
)
def test_safetensors_class_outside_allowed_packages_is_refused(
    sample: Path, model_class: str | None, error: type[Exception], want: str
) -> None:
    with pytest.raises(error, match=want):
        load_adapter(settings_of(sample / "redshift.safetensors", "safetensors", model_class=model_class))


def onnx_model(path: Path) -> Path:
    """y = sum(a, 1) + sum(b, 1), made by hand: exporting would need another package."""
    from onnx import TensorProto, helper

    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceSum", ["a", "axes"], ["sa"], keepdims=1),
        helper.make_node("ReduceSum", ["b", "axes"], ["sb"], keepdims=1),
        helper.make_node("Add", ["sa", "sb"], ["y"]),
    ]
    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "ab")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])
    graph = helper.make_graph(nodes, "sum", [a, b], [y], initializer=[axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_onnx_model_computes_by_place_and_by_name(tmp_path: Path) -> None:
    loaded = load_adapter(settings_of(onnx_model(tmp_path / "m.onnx"), "onnx"))
    a, b = torch.ones(3, 2), torch.full((3, 2), 2.0, dtype=torch.float64)

    assert loaded([a, b]).tolist() == [[6.0]] * 3
    assert loaded([b, a], names=["b", "a"]).tolist() == [[6.0]] * 3
    with pytest.raises(PartUnreadable, match="is float32"):
        loaded([torch.ones(3, 2, dtype=torch.complex64), b])


@pytest.mark.parametrize(
    ("inputs", "count", "names", "want"),
    [
        (Inputs(("x",), is_list=True), 2, None, "list"),
        (Inputs(("x",)), 2, None, "list"),
        (Inputs(("x",)), 1, None, "place"),
        (Inputs(("x", "y")), 2, None, "place"),
        (Inputs(("x", "y")), 2, ("y", "x"), "name"),
        (Inputs(("x", "y")), 2, ("a", "b"), "place"),
        (Inputs((), is_open=True), 3, None, "place"),
    ],
)
def test_tensors_are_given_as_the_model_takes_them(
    inputs: Inputs, count: int, names: tuple[str, ...] | None, want: str
) -> None:
    by_place, by_name = arranged(inputs, [torch.ones(1)] * count, names)

    shape = "name" if by_name else "list" if isinstance(by_place[0], list) else "place"
    assert shape == want


def test_more_tensors_than_inputs_is_refused_with_advice() -> None:
    with pytest.raises(PartUnreadable, match="takes 2 inputs") as caught:
        arranged(Inputs(("x", "y")), [torch.ones(1)] * 3, None)

    assert "inference.labels" in caught.value.advice


@pytest.mark.parametrize(
    ("output", "want"),
    [
        (torch.ones(4), (4, 1)),
        ((torch.ones(4, 2),), (4, 2)),
        ({"z": torch.ones(4, 1, dtype=torch.float64)}, (4, 1)),
        (np.ones((4, 3), np.float32), (4, 3)),
        (torch.ones(4, 2, 3), (4, 6)),
        (torch.ones(4, dtype=torch.bool), (4, 1)),
    ],
)
def test_answer_of_each_form_becomes_rows(output: object, want: tuple[int, int]) -> None:
    found = as_rows(output, 4)

    assert (found.shape, found.dtype) == (want, np.float32)


@pytest.mark.parametrize("output", [torch.ones(3), torch.tensor(1.0), "text", (torch.ones(4), torch.ones(4)), None])
def test_answer_without_a_row_for_each_input_is_refused(output: object) -> None:
    with pytest.raises(EncoderFailed):
        as_rows(output, 4)


def test_model_that_raises_fails_its_item_alone(sample: Path) -> None:
    loaded = load_adapter(settings_of(sample / "redshift.safetensors", "safetensors", model_class=NET))

    with pytest.raises(EngineFailed, match="redshift.safetensors raised"):
        loaded([torch.ones(3, 1), torch.ones(3, 5)])


def test_partition_without_rows_gives_no_batch(sample: Path, tmp_path: Path) -> None:
    loaded: Adapter = load_adapter(settings_of(sample / "redshift.safetensors", "safetensors", model_class=NET))
    empty = read_partition(saved(tmp_path / "0.pt", TensorDataset(torch.ones(0, 5, 32, 32), torch.ones(0, 5))))

    rows, facts = predict(loaded, empty, 512)

    assert (rows.shape, facts.batches, facts.rows) == ((0, 0), 0, 0)


def test_batch_memory_is_what_the_profiler_counts(sample: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load_adapter(settings_of(sample / "redshift.safetensors", "safetensors", model_class=NET))
        inputs, _ = split_labels(read_partition(sample / "partitions" / "1.pt"), "2")
        found = batch_memory(loaded, inputs, 16)

    assert found.rows == 16
    assert found.total_bytes > 16 * 16 * 16 * 16 * 4  # the first convolution's output alone
    assert found.profile.startswith("<FunctionEventAvg key=Total")


# The runner of a child


class CountingFetcher:
    """Gives the bytes of a local file for any address, and counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fetched: list[str] = []

    def fetch(self, uri: str, *, expected_version: str | None = None, max_bytes: int) -> Fetched:
        self.fetched.append(uri)
        return Fetched(self.path.read_bytes(), expected_version, uri)


def runner_of(sample: Path, **more: Any) -> InferenceRunner:
    settings = settings_of(sample / "redshift.safetensors", "safetensors", model_class=NET, batch_size=16, **more)
    message = setup_message(settings, S3Settings(), (), 1 << 30)
    assert message["runner"] == RUNNER
    return make_runner(json.loads(json.dumps(message["settings"])))


def item_of(uri: str, *rows: int, version: str | None = None) -> PlannedItem:
    given = {"start": rows[0], "stop": rows[1], "rows": 50} if rows else {}
    return PlannedItem(0, "1", uri, version=version, input={"partition": 0, "rank": 0, **given})


def processed(runner: InferenceRunner, item: PlannedItem) -> tuple[PartFacts, Predictions]:
    (found,) = runner.process([runner.prepare(item)])
    assert found.payload is not None
    facts = PredictionFacts.model_validate(found.payload["predictions"])
    return PartFacts.model_validate(found.payload["part"]), unpack(facts, found.data, "here")


def test_runner_gives_predictions_labels_and_what_it_measured(sample: Path) -> None:
    part = sample / "partitions" / "1.pt"

    facts, found = processed(
        runner_of(sample, labels="2"), item_of(str(part), 16, 50, version=local_version(part.stat()))
    )

    whole = torch.load(part, weights_only=False)
    with torch.inference_mode():
        want = bare_model(sample)([whole.tensors[0][16:], whole.tensors[1][16:]]).numpy()
    assert np.allclose(found.values, want, atol=1e-5)
    assert found.labels is not None
    assert np.array_equal(found.labels, whole.tensors[2][16:].numpy())
    assert (facts.rows, facts.batches, facts.input_bits, facts.device) == (34, 3, 34 * 164_160, "cpu")
    assert facts.allocated_bytes > facts.rows * 1000
    assert facts.fetch is not None
    assert facts.fetch.total_s > 0


def test_runner_reads_a_stored_partition_once_for_all_of_its_rows(sample: Path) -> None:
    runner = runner_of(sample, labels="2")
    runner._fetcher = fetcher = CountingFetcher(sample / "partitions" / "1.pt")  # type: ignore[assignment]

    parts = [processed(runner, item_of("s3://sky/1.pt", *rows, version="v")) for rows in ((0, 32), (32, 50))]
    whole, _ = processed(runner, item_of("s3://sky/2.pt", version="v"))

    assert [facts.rows for facts, _ in parts] == [32, 18]
    assert (whole.rows, fetcher.fetched) == (50, ["s3://sky/1.pt", "s3://sky/2.pt"])
    assert np.allclose(
        np.concatenate([found.values for _, found in parts]),
        processed(runner, item_of(str(sample / "partitions" / "1.pt")))[1].values,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("uri", "version", "error", "want"),
    [
        ("partitions/1.pt", "other", SourceChanged, "changed after it was planned"),
        ("partitions/77.pt", None, PartUnreadable, "cannot be read"),
    ],
)
def test_runner_refuses_a_partition_that_changed_or_went(
    sample: Path, uri: str, version: str | None, error: type[Exception], want: str
) -> None:
    with pytest.raises(error, match=want):
        runner_of(sample).prepare(item_of(str(sample / uri), version=version))


def test_runner_of_a_model_that_refuses_its_tensors_fails_that_item(sample: Path, tmp_path: Path) -> None:
    runner = runner_of(sample)
    odd = saved(tmp_path / "odd.pt", (torch.ones(3, 2), torch.ones(3, 5)))

    (found,) = runner.process([runner.prepare(item_of(str(odd)))])

    assert (found.status, found.failure and found.failure.error_class) == ("failed", "EngineFailed")


def test_predictions_of_another_size_than_told_are_refused() -> None:
    facts, data = pack(Predictions(np.ones((3, 2), np.float32), np.ones(3)))

    assert np.array_equal(unpack(PredictionFacts.model_validate(facts), data, "x").values, np.ones((3, 2)))
    with pytest.raises(IntegrityError, match="x: 47 bytes do not hold 3 rows of 2"):
        unpack(PredictionFacts.model_validate(facts), data[:-1], "x")
