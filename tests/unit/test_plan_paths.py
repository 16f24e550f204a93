"""Where a manifest's paths lead: prefix, bucket, or the manifest's own place, always verbatim."""

from __future__ import annotations

import pytest

from pagemill_worker.plan.paths import PathRules, check_uri
from pagemill_worker.plan.request import ManifestRequest


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("a/b.png", "s3://lib/pages/a/b.png"),
        ("./b.png", "s3://lib/pages/./b.png"),
        ("a%20b #1/ê.png", "s3://lib/pages/a%20b #1/ê.png"),
        ("s3://other/b.png", "s3://other/b.png"),
        ("S3://other/b.png", "s3://other/b.png"),
        ("http://h/b.png?x#y", "http://h/b.png?x#y"),
        ("https://h/b.png", "https://h/b.png"),
        ("/abs/b.png", "/abs/b.png"),
        ("file:///abs/b%20c.png", "/abs/b c.png"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("prefix", ["s3://lib/pages", "s3://lib/pages/", "s3://lib/pages//"])
def test_path_with_prefix_is_joined_with_one_slash_unless_settled(prefix: str, path: str, want: str) -> None:
    assert PathRules.of(ManifestRequest(uri="/x/m.csv", path_prefix=prefix)).resolve(path) == want


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("lib/a/b.png", "s3://lib/a/b.png"),
        ("a/b.png", "s3://lib/a/b.png"),
        ("library/b.png", "s3://lib/library/b.png"),
        ("s3://other/b.png", "s3://other/b.png"),
        ("/abs/b.png", "/abs/b.png"),
    ],
)
def test_path_with_bucket_is_a_key_of_it(path: str, want: str) -> None:
    assert PathRules.of(ManifestRequest(uri="s3://x/m.csv", bucket="lib")).resolve(path) == want


@pytest.mark.parametrize(
    ("uri", "prefix", "want"),
    [
        ("/data/in/m.csv", "", "/data/in/a.png"),
        ("file:///data/my%20in/m.csv", "", "/data/my in/a.png"),
        ("/data/in/m.csv", "pages", "/data/in/pages/a.png"),
        ("/data/in/m.csv", "/", "/a.png"),
        ("/data/in/m.csv", "../p", "/data/in/../p/a.png"),
        ("/m.csv", "", "/a.png"),
        ("s3://lib/in/m.csv", "", "s3://lib/in/a.png"),
        ("s3://lib/m.csv", "pages", "s3://lib/pages/a.png"),
    ],
)
def test_path_that_stays_relative_starts_at_the_manifest(uri: str, prefix: str, want: str) -> None:
    assert PathRules.of(ManifestRequest(uri=uri, path_prefix=prefix)).resolve("a.png") == want


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("", "ImageMissing"),
        ("/a\0b", "ImageMissing"),
        ("gs://b/k", "FetchFailed"),
        ("ftp://h/k", "FetchFailed"),
        ("s3://b/k", None),
        ("https://h/k", None),
        ("/a/b", None),
        ("/a/b://c", None),
    ],
)
def test_uri_that_nothing_can_read_fails_as_an_item(uri: str, want: str | None) -> None:
    failure = check_uri(uri)
    assert (failure.error_class if failure else None) == want
