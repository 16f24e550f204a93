"""Structured logs: one JSON object a line, constant messages, values as fields, nothing that is named like a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pagemill_worker import logs

LOG = logging.getLogger("pagemill.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    logger = logging.getLogger(logs.LOGGER)
    before = (logger.handlers[:], logger.level, logger.propagate)
    stream = io.StringIO()
    logs.set_up("INFO", stream)
    yield stream
    logger.handlers[:], logger.level, logger.propagate = before


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_log_line_has_time_level_message_and_fields(stream: io.StringIO) -> None:
    LOG.info("Committed shard", extra={"shardIndex": 7, "durationSeconds": 0.5})
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")  # type: ignore[attr-defined]
    assert line == {
        "level": "INFO",
        "logger": "pagemill.test",
        "message": "Committed shard",
        "shardIndex": 7,
        "durationSeconds": 0.5,
    }


@pytest.mark.parametrize("name", ["secretKey", "api_key", "apiKey", "password", "sessionToken", "Authorization"])
def test_log_fields_named_like_secrets_are_masked(stream: io.StringIO, name: str) -> None:
    LOG.info("Read settings", extra={name: "planted"})
    assert "planted" not in stream.getvalue()
    assert lines(stream)[0][name] == "***"


def test_log_of_an_exception_is_still_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        LOG.exception("Step failed by a bug")
    (line,) = lines(stream)
    assert "ValueError: line one" in str(line["exception"])


def test_log_values_that_json_cannot_say_are_written_as_text(stream: io.StringIO) -> None:
    LOG.info("Saw a thing", extra={"thing": object(), "place": "名前\n"})
    assert str(lines(stream)[0]["thing"]).startswith("<object object")


def test_log_below_the_level_is_not_written_and_setting_up_twice_does_not_double(stream: io.StringIO) -> None:
    logs.set_up("WARNING", stream)
    LOG.info("Not this")
    LOG.warning("This")
    assert [line["message"] for line in lines(stream)] == ["This"]
