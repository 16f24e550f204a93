"""The operator's settings, metrics, health and logs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from pagemill_core.errors import InvalidSpecError
from pagemill_core.testing.fake_clock import FakeClock
from pagemill_operator.health import Health
from pagemill_operator.logs import JsonFormatter
from pagemill_operator.metrics import HELP, Metrics
from pagemill_operator.settings import OperatorSettings, parse_config, read_config


def test_settings_file_is_read_with_short_images(tmp_path: Path) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(
        """
        pools:
          - {name: cpu, cpu: 4, memory: 8Gi, pricePerHour: "0.20", maxMemory: 16Gi}
        images:
          engines: {rapidocr: worker@sha256:1}
          default: {image: other, models: [{mountPath: /models, claimName: models}]}
        outputs: {"*": ["s3://out/{namespace}"]}
        """
    )

    found = read_config(path)

    pool = found.pool("cpu")
    assert pool is not None
    assert (pool.cores, pool.max_memory_bytes) == (4, 16 << 30)
    assert found.images.engines["rapidocr"].image == "worker@sha256:1"
    assert found.images.default is not None
    assert found.images.default.models[0].claim_name == "models"


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"pools": []}, "pools"),
        ({"pools": [{"name": "cpu", "pricePerHour": "cheap"}]}, "pools.0.pricePerHour"),
        ({"pools": [{"name": "cpu", "memory": "lots"}]}, "pools.0.memory"),
        ({"poools": []}, "poools"),
        ({"images": {"engines": {"x": {"img": "y"}}}}, "images.engines.x"),
        ("text", "settings"),
    ],
    ids=["no-pool", "price", "quantity", "typo", "image", "no-mapping"],
)
def test_settings_that_are_wrong_name_their_field(given: object, want: str) -> None:
    with pytest.raises(InvalidSpecError, match=want):
        parse_config(given)


def test_settings_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpecError, match="operator.yaml"):
        read_config(tmp_path / "operator.yaml")


def test_process_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEMILL_NAMESPACES", "books, comics,")
    monkeypatch.setenv("PAGEMILL_WORKERS", "3")

    found = OperatorSettings()

    assert found.served_namespaces == ("books", "comics")
    assert found.workers == 3


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.api_call("GET", 200)
    metrics.api_call("GET", 200)
    metrics.pass_over("changed", 0.02)
    metrics.gauge("pagemill_operator_queue_depth", lambda: {(): 3.0})

    lines = metrics.render().splitlines()

    assert 'pagemill_operator_api_calls_total{code="200",verb="GET"} 2' in lines
    assert 'pagemill_operator_reconcile_seconds_bucket{le="0.025"} 1' in lines
    assert 'pagemill_operator_reconcile_seconds_bucket{le="+Inf"} 1' in lines
    assert "pagemill_operator_queue_depth 3" in lines
    assert "# TYPE pagemill_operator_queue_depth gauge" in lines


def test_metric_names_say_their_unit() -> None:
    for name in HELP:
        assert name.startswith("pagemill_operator_")
        assert name.endswith(("_total", "_seconds", "_depth", "_jobs", "_children", "_open"))


def test_health_follows_its_own_facts() -> None:
    clock = FakeClock()
    health = Health(clock, resync_every_s=30.0)
    assert "not listed yet" in health.unready()
    health.resynced()
    health.beat()
    assert (health.unready(), health.trouble()) == ("", "")

    clock.advance(100)
    health.beat()
    assert "no complete list" in health.unready()
    assert health.trouble() == ""
    clock.advance(100)
    health.beat()
    assert "no complete list" in health.trouble()
    health.resynced()
    clock.advance(40)
    assert "gone round" in health.trouble()


def test_log_line_is_one_json_object_with_fields() -> None:
    record = logging.makeLogRecord({"name": "pagemill", "levelname": "INFO", "msg": "Committed shard", "job": "a"})

    line = json.loads(JsonFormatter().format(record))

    assert (line["message"], line["job"], line["level"]) == ("Committed shard", "a", "INFO")
