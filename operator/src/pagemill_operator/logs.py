"""Structured logs: one JSON object a line, a constant message, values as fields.

Layer: the operator's bottom. Set up only by `main`.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any

from pagemill_core.clock import iso

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# kopf says much on INFO that is about itself; its warnings are about us.
_QUIET = ("kopf", "kubernetes", "aiohttp", "botocore", "urllib3")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": iso(dt.datetime.fromtimestamp(record.created, dt.UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Send everything to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
