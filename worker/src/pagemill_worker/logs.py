"""Structured logs: one JSON object a line, a constant message, values as fields.

Layer: the worker's bottom. Set up only by a `main`. Values named like secrets are never written.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import IO, Any

from pagemill_core.clock import iso

LOGGER = "pagemill"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_WORDS = ("secret", "password", "token", "apikey", "api_key", "authorization", "credential")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": iso(dt.datetime.fromtimestamp(record.created, dt.UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = "***" if any(word in name.lower() for word in _SECRET_WORDS) else value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str = "INFO", stream: IO[str] | None = None) -> logging.Logger:
    """Send Pagemill's log to `stream` (standard error) as JSON lines. Returns: its logger."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    return logger
