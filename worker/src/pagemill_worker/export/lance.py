"""Rows as a Lance dataset: a new version that holds the output's rows and nothing else.

Layer: `worker.export`, the one module that knows Lance. A version appears whole or not at all.
"""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from pagemill_core.errors import EngineUnavailableError, StoreUnavailableError
from pagemill_core.storage.s3_settings import S3Settings
from pagemill_worker.export.rows import Exported, ExportRows


def export_to_lance(rows: ExportRows, uri: str, s3: S3Settings) -> Exported:
    """Write a dataset in a local folder or below s3://; what was there before becomes an older version of it.

    Raises: EngineUnavailableError without the package; StoreUnavailableError when it could not be written.
    """
    lance = _package()
    started = time.monotonic()
    reader = pa.RecordBatchReader.from_batches(rows.schema, rows.batches())
    options = _storage_options(s3) if uri.startswith("s3://") else None
    try:
        mode = "overwrite" if _is_there(lance, uri, options) else "create"
        written = lance.write_dataset(reader, uri, mode=mode, storage_options=options)
        count = written.count_rows()
    except OSError as error:
        raise StoreUnavailableError(f"{uri} could not be written: {str(error)[:300]}") from error
    return Exported(uri, count, rows.dim, round(time.monotonic() - started, 2))


def _is_there(lance: Any, uri: str, options: dict[str, str] | None) -> bool:
    try:
        lance.dataset(uri, storage_options=options)
    except ValueError:  # what Lance raises where there is no dataset
        return False
    return True


def _package() -> Any:
    try:
        import lance
    except ImportError as error:
        raise EngineUnavailableError("Lance is not installed", advice="install pagemill[export]") from error
    return lance


def _storage_options(s3: S3Settings) -> dict[str, str]:
    """The store's settings in Lance's words; what is not set is looked for in the usual places."""
    given = {
        "aws_access_key_id": s3.access_key,
        "aws_secret_access_key": s3.secret_key.get_secret_value(),
        "aws_session_token": s3.session_token.get_secret_value(),
        "aws_endpoint": s3.endpoint,
        "aws_region": s3.region,
        "allow_http": "true" if s3.endpoint.startswith("http://") else "",
    }
    return {name: value for name, value in given.items() if value}
