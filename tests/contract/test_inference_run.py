"""Tensor jobs through the command: the same rows whatever the cut, reports that add up, losses that are seen."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import train_redshift
import yaml
from torch.utils.data import DataLoader

from pagemill_cli.testing.command import Told, run_command, s3_environment
from pagemill_core.errors import EXIT_BUG
from pagemill_core.testing.seaweed import SeaweedServer
from pagemill_worker.embed.infer.redshift import RedshiftNet

BATCH = 16
BITS_A_ROW = 164_160
NET = "pagemill_worker.embed.infer.redshift:RedshiftNet"


class Touch:
    """A partition that makes a folder when it is loaded by an unpickler that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@dataclass(frozen=True)
class Library:
    """Eleven partitions of 30 rows (the last has 13), a model with random weights, and its rows by a bare loop."""

    folder: Path
    want: np.ndarray[Any, Any]
    truth: np.ndarray[Any, Any]

    def job(self, output: str, changes: Mapping[str, Any] | None = None, **source: Any) -> Path:
        spec: dict[str, Any] = {
            "source": {"tensors": {"uri": "partitions", "order": "natural", **source}},
            "inference": {
                "adapter": "safetensors",
                "weights": "net.safetensors",
                "digest": f"sha256:{hashlib.sha256((self.folder / 'net.safetensors').read_bytes()).hexdigest()}",
                "modelClass": NET,
                "batchSize": BATCH,
                "labels": "2",
                **(changes or {}),
            },
            "output": {"uri": output, "formats": ["parquet", "rankFiles", "pt"]},
        }
        job = {"apiVersion": "pagemill.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": {"name": "r"}, "spec": spec}
        path = self.folder / f"{output}.yaml"
        path.write_text(yaml.safe_dump(job))
        return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("inference")
    torch.manual_seed(0)
    model = RedshiftNet(4).eval()
    safetensors.torch.save_file(model.state_dict(), folder / "net.safetensors", metadata={"config": '{"width": 4}'})
    galaxies = train_redshift.make_galaxies(313, seed=2)
    assert train_redshift.save_partitions(galaxies, folder / "partitions", 30) == 11
    rows = []
    for number in range(1, 12):
        dataset = torch.load(folder / "partitions" / f"{number}.pt", weights_only=False)
        with torch.inference_mode():
            rows += [model([image, magnitudes]) for image, magnitudes, _ in DataLoader(dataset, batch_size=BATCH)]
    return Library(folder, torch.cat(rows).numpy(), galaxies.redshifts)


@dataclass(frozen=True)
class Run:
    told: Told
    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / "results" / name).read_text())


@pytest.fixture(scope="module")
def runs(library: Library) -> Mapping[str, Run]:
    """The same partitions cut into row ranges for two processes, and whole for one."""
    told = {
        "rows": run_command("run", library.job("rows", {"worldSize": 4}), "-q", "-p", 2, "-o", "json"),
        "files": run_command("run", library.job("files", split="files"), "-q", "-p", 1, "-o", "json"),
    }
    assert {name: one.status for name, one in told.items()} == {"rows": 0, "files": 0}, told
    return {name: Run(one, library.folder / name) for name, one in told.items()}


@pytest.mark.parametrize("name", ["rows", "files"])
def test_predictions_are_those_of_a_bare_loop_in_order(runs: Mapping[str, Run], library: Library, name: str) -> None:
    table = pq.read_table(runs[name].folder / "predictions.parquet")

    assert np.allclose(table.column("prediction").to_numpy(), library.want[:, 0], atol=1e-6)
    assert np.array_equal(table.column("label").to_numpy(), library.truth)
    places = list(zip(table.column("partition").to_pylist(), table.column("partition_row").to_pylist(), strict=True))
    assert places == [(partition, row) for partition in range(11) for row in range(30 if partition < 10 else 13)]
    assert pq.read_table(runs[name].folder / "dataset").num_rows == 313


@pytest.mark.parametrize("name", ["rows", "files"])
def test_predictions_of_each_partition_are_a_plain_tensor(runs: Mapping[str, Run], library: Library, name: str) -> None:
    eleventh = torch.load(runs[name].folder / "predictions" / "11.pt")

    assert (eleventh.shape, eleventh.dtype) == ((13, 1), torch.float32)
    assert np.allclose(eleventh.numpy(), library.want[300:], atol=1e-6)


def test_ranks_have_the_files_and_totals_of_the_reference(runs: Mapping[str, Run]) -> None:
    combined = runs["rows"].json("combined_data.json")

    assert [report["rank"] for report in combined] == [0, 1, 2, 3]
    assert [[Path(path).stem for path in report["data_path"]] for report in combined] == [
        ["1", "2", "3"],
        ["4", "5", "6"],
        ["7", "8", "9"],
        ["10", "11"],
    ]
    assert combined == [runs["rows"].json(f"{rank}.json") for rank in range(4)]
    assert [report["rows"] for report in combined] == [90, 90, 90, 43]
    assert [report["num_batches"] for report in combined] == [6, 6, 6, 3]
    bits = sum(report["throughput_bps"] * report["total_cpu_time (seconds)"] for report in combined)
    assert bits == pytest.approx(313 * BITS_A_ROW)
    assert sum(report["sample_persec"] * report["total_cpu_time (seconds)"] for report in combined) == pytest.approx(
        313
    )


def test_without_a_world_size_each_partition_is_a_rank(runs: Mapping[str, Run]) -> None:
    combined = runs["files"].json("combined_data.json")

    assert [Path(report["data_path"]).name for report in combined] == [f"{number}.pt" for number in range(1, 12)]
    assert {report["world_size"] for report in combined} == {11}


@pytest.mark.parametrize("name", ["rows", "files"])
def test_metrics_are_those_of_the_predictions(runs: Mapping[str, Run], library: Library, name: str) -> None:
    found = runs[name].json("Results.json")

    error = library.want[:, 0].astype(np.float64) - library.truth
    assert found["metrics"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert found["metrics"]["bias"] == pytest.approx((error / (1 + library.truth)).mean(), rel=1e-5)
    assert (found["rows"], found["metrics"]["rows"], found["partitions"]) == (313, 313, 11)
    assert (runs[name].folder / "results" / "inference.png").read_bytes().startswith(b"\x89PNG")


def test_outputs_are_verified_and_done_work_is_not_done_again(runs: Mapping[str, Run], library: Library) -> None:
    verified = run_command("verify", runs["files"].folder)
    again = run_command("run", library.folder / "files.yaml", "-q", "-o", "json")

    assert verified.status == 0, verified.all
    assert (again.status, again.json["worked"]) == (0, False)


def test_partition_that_cannot_be_read_fails_by_name_and_its_rank_is_missed(library: Library, tmp_path: Path) -> None:
    job = library.job("missed")
    job.write_text(job.read_text().replace("uri: partitions", f"uri: {tmp_path / 'bad'}"))
    document = yaml.safe_load(job.read_text())
    document["spec"]["retries"] = {"maxFailedItems": "100%"}
    job.write_text(yaml.safe_dump(document))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.pt").write_bytes((library.folder / "partitions" / "11.pt").read_bytes())
    torch.save(Touch(tmp_path / "touched"), tmp_path / "bad" / "2.pt")

    told = run_command("run", job, "-q", "-p", 1)

    assert told.status == 3, told.all
    assert "1 of 2 ranks have no result, rank 1 first" in told.err
    assert not (tmp_path / "touched").exists()
    rows = pq.read_table(library.folder / "missed" / "dataset").to_pylist()
    assert [(row["id"].partition("#")[0], row["status"]) for row in rows] == [("1", "succeeded")] * 13 + [
        ("2", "failed")
    ]
    assert rows[-1]["error_class"] == "PartUnreadable"
    assert rows[-1]["prediction"] is None


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"digest": "sha256:" + "0" * 64}, "has the digest"),
        ({"adapter": "pickle"}, "trust: pickle"),
        ({"weights": "nowhere.pt"}, "nowhere.pt"),
    ],
    ids=["digest", "untrusted", "missing"],
)
def test_model_that_may_not_be_loaded_is_refused_before_any_work(
    library: Library, changes: dict[str, Any], want: str
) -> None:
    told = run_command("run", library.job("refused", changes), "-q")

    assert told.status not in (0, EXIT_BUG), told.all
    assert want in told.err
    assert not (library.folder / "refused" / "dataset").exists()


@pytest.mark.s3
def test_tensors_of_a_store_are_retried_into_one_result(library: Library, s3_server: SeaweedServer) -> None:
    bucket = s3_server.fresh_bucket()
    store = s3_server.store(bucket, "sky")
    for number in (9, 10, 11):
        store.put(f"in/{number}.pt", (library.folder / "partitions" / f"{number}.pt").read_bytes())
    whole = store.get("in/10.pt").data
    store.put("in/10.pt", whole[: len(whole) // 2])
    store.put("net.safetensors", (library.folder / "net.safetensors").read_bytes())
    job = library.job("stored", {"weights": f"s3://{bucket}/sky/net.safetensors", "worldSize": 1})
    document = yaml.safe_load(job.read_text())
    document["spec"]["source"]["tensors"]["uri"] = f"s3://{bucket}/sky/in"
    document["spec"]["output"]["uri"] = f"s3://{bucket}/sky/out"
    document["spec"]["retries"] = {"maxFailedItems": "100%"}
    job.write_text(yaml.safe_dump(document))
    environment = s3_environment(s3_server.server.settings("worker"))

    first = run_command("run", job, "-q", "-p", 1, environment=environment)
    lacking = json.loads(store.get("out/results/0.json").data)
    store.put("in/10.pt", whole)
    second = run_command("retry", "--failed", job, "-q", environment=environment)

    assert (first.status, second.status) == (0, 0), first.all + second.all
    assert (lacking["rows"], lacking["failed_items"]) == (43, 1)
    (report,) = json.loads(store.get("out/results/combined_data.json").data)
    assert (report["rows"], report["failed_items"]) == (73, 0)
    assert [Path(path).name for path in report["data_path"]] == ["9.pt", "10.pt", "11.pt"]
    assert report["s3_num_requests"] >= 3
    table = pq.read_table(io.BytesIO(store.get("out/predictions.parquet").data))
    assert np.allclose(table.column("prediction").to_numpy(), library.want[240:, 0], atol=1e-6)
