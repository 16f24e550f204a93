"""A job with its surroundings: where relative paths start, which stores are opened, and what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from pagemill_core.api.load import load_jobs
from pagemill_core.api.v1alpha1 import OcrJob
from pagemill_core.api.workkey import work_key
from pagemill_core.errors import InvalidSpecError
from pagemill_core.storage.folder import FolderStore
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.environment import JobEnvironment, reveal, source_fetcher

SECRET = "planted-secret"


def make_environment(source: str, output: str, base: Path) -> JobEnvironment:
    text = (
        "apiVersion: pagemill.dev/v1alpha1\nkind: OcrJob\nmetadata: {name: x}\n"
        f"spec: {{source: {source}, output: {{uri: '{output}'}}}}\n"
    )
    (job,) = load_jobs(text, origin="test")
    assert isinstance(job, OcrJob)
    s3 = S3Settings(access_key="id", secret_key=SecretStr(SECRET), session_token=SecretStr(SECRET))
    return JobEnvironment(job=job, base=base, s3=s3, api_key=SecretStr(SECRET))


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("pages/m.csv", "/base/pages/m.csv"),
        ("/else/m.csv", "/else/m.csv"),
        ("s3://bucket/m.csv", "s3://bucket/m.csv"),
        ("file:///else/m.csv", "file:///else/m.csv"),
    ],
    ids=["relative", "absolute", "s3", "file"],
)
def test_environment_relative_paths_start_at_the_jobs_file(uri: str, want: str) -> None:
    environment = make_environment(f"{{manifest: {{uri: '{uri}'}}}}", "out", Path("/base"))
    assert environment.absolute(uri) == want
    job = environment.absolute_job()
    assert job.spec.source.manifest is not None
    assert job.spec.source.manifest.uri == want
    assert job.spec.output.uri == "/base/out"


def test_environment_images_are_made_absolute_too() -> None:
    job = make_environment("{images: {uri: scans}}", "out", Path("/base")).absolute_job()
    assert job.spec.source.images is not None
    assert job.spec.source.images.uri == "/base/scans"


def test_environment_absolute_job_is_for_reading_and_leaves_the_work_key_alone() -> None:
    here = make_environment("{images: {uri: scans}}", "out", Path("/base"))
    before = work_key(here.job)
    here.absolute_job()
    assert work_key(here.job) == before


def test_environment_opens_the_output_and_the_parent_of_an_object(tmp_path: Path) -> None:
    environment = make_environment("{manifest: {uri: in/m.csv}}", "out", tmp_path)
    output = environment.open_output()
    assert isinstance(output, FolderStore)
    assert output.root == tmp_path / "out"
    store, key = environment.open_parent("in/m.csv")
    assert (store.uri, key) == (str(tmp_path / "in"), "m.csv")


def test_environment_object_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="names no object"):
        make_environment("{images: {uri: x}}", "out", tmp_path).open_parent("s3://bucket/")


def test_environment_shows_no_secret(tmp_path: Path) -> None:
    environment = make_environment("{images: {uri: x}}", "out", tmp_path)
    assert SECRET not in repr(environment)
    assert SECRET not in str(environment.s3)


def test_environment_settings_revealed_for_a_child_make_the_same_settings(tmp_path: Path) -> None:
    s3 = make_environment("{images: {uri: x}}", "out", tmp_path).s3
    assert S3Settings.model_validate(reveal(s3)) == s3
    assert reveal(s3)["secret_key"] == SECRET


def test_environment_allowed_host_that_is_no_host_is_refused() -> None:
    with pytest.raises(InvalidSpecError):
        source_fetcher(S3Settings(), ("http://not a host/",))
