"""What programs of others say of the chart: helm, helm-unittest, helm-docs, kube-score, checkov, hadolint, promtool."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charttools import dashboard, programs
from charttools.pytest_plugin import CHART, ROOT, helm, render

from pagemill_operator.metrics import HELP

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
EVERYTHING = CHART / "examples" / "everything.yaml"
Findings = dict[str, set[str]]


def run(name: str, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(programs.path_of(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def argued(tool: str) -> Findings:
    """The exceptions that are written down, each with a reason."""
    written = yaml.safe_load((CHART / "tests" / "exceptions.yaml").read_text(encoding="utf-8"))[tool]
    assert all(len(one["why"]) > 30 for one in written)
    return {one["check"]: set(one["objects"]) for one in written}


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    file = tmp_path / "everything.yaml"
    file.write_text(yaml.safe_dump_all(render("--values", EVERYTHING)))
    return file


@pytest.mark.chart("helm", "helm3")
@pytest.mark.parametrize("program", ["helm", "helm3"])
@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
def test_chart_has_no_fault_that_helm_finds(program: str, example: Path | None) -> None:
    values = ["--values", example] if example else []

    made = helm("lint", "--strict", CHART, *values, program=program)

    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.chart("helm", "helm3")
@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
def test_chart_says_the_same_to_helm_3_and_helm_4(example: Path | None) -> None:
    values = ["--values", example] if example else []

    by_name = {
        program: {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one for one in found}
        for program in ("helm", "helm3")
        if (found := render("--include-crds", *values, program=program))
    }

    for found in by_name.values():
        for (kind, *_), one in found.items():  # a certificate is made anew each time
            if kind in ("Secret", "APIService"):
                del (one["data"] if kind == "Secret" else one["spec"])["tls.crt" if kind == "Secret" else "caBundle"]
                one.get("data", {}).pop("tls.key", None)
    assert by_name["helm"] == by_name["helm3"]


@pytest.mark.chart("helm-unittest")
def test_chart_passes_its_own_tests() -> None:
    made = run("helm-unittest", CHART)

    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.chart("helm-docs")
def test_chart_readme_is_what_helm_docs_writes() -> None:
    made = run("helm-docs", "--dry-run", "--log-level=error", "--chart-search-root", CHART)

    assert made.returncode == 0, made.stderr
    want = (CHART / "README.md").read_text(encoding="utf-8").strip()
    assert made.stdout.strip() == want, "write it with `make chart-readme`"


@pytest.mark.chart("helm", "kube-score")
def test_chart_has_no_finding_of_kube_score_but_those_argued(everything: Path) -> None:
    made = run(
        "kube-score",
        "score",
        "--output-format=json",
        "--enable-optional-test=container-security-context-user-group-id",
        everything,
    )

    found: Findings = defaultdict(set)
    for one in json.loads(made.stdout):
        for check in one["checks"]:
            if not check["skipped"] and check["grade"] < 10:
                found[check["check"]["id"]].add(f"{one['type_meta']['kind']}/{one['object_meta']['name']}")
    assert found == argued("kube-score")


@pytest.mark.chart("helm", "checkov")
def test_chart_has_no_finding_of_checkov_but_those_argued(everything: Path) -> None:
    arguments = ("--skip-download", "--framework=kubernetes", "--output=json", "--quiet", "--file")
    made = run("checkov", *arguments, everything)

    found: Findings = defaultdict(set)
    for one in json.loads(made.stdout)["results"]["failed_checks"]:
        kind, _, name = one["resource"].split(".", 2)
        found[one["check_id"]].add(f"{kind}/{name}")
    assert found == argued("checkov")


def test_dockerfiles_have_no_finding_of_hadolint_but_those_argued() -> None:
    files = sorted(path.name for path in ROOT.glob("Dockerfile.*"))
    command = [str(Path(sys.executable).with_name("hadolint")), "--format=json", *files]
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    found: Findings = defaultdict(set)
    for one in json.loads(made.stdout):
        found[one["code"]].add(one["file"])
    assert files == ["Dockerfile.operator", "Dockerfile.worker"]
    assert found == argued("hadolint")


@pytest.mark.chart("promtool")
def test_alerts_fire_when_they_should() -> None:
    checked = run("promtool", "check", "rules", CHART / "files" / "alerts.yaml")
    played = run("promtool", "test", "rules", CHART / "tests" / "rules" / "alerts.yaml")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.chart("helm")
def test_alerts_reach_the_rule_object_word_for_word() -> None:
    (rule,) = [one for one in render("--values", EVERYTHING) if one["kind"] == "PrometheusRule"]

    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))


def test_every_alert_is_played_both_ways() -> None:
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    names = {rule["alert"] for group in rules for rule in group["rules"]}
    played = yaml.safe_load((CHART / "tests" / "rules" / "alerts.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in played for case in test["alert_rule_test"]]

    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def expressions() -> Iterator[str]:
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / dashboard.PATH).read_text(encoding="utf-8"))
    return found


def lost(given: Any, kept: Any, path: str = "$") -> Iterator[str]:
    """Paths that are in `given` and not in `kept`."""
    if isinstance(given, dict):
        for name, value in given.items():
            if not isinstance(kept, dict) or name not in kept:
                yield f"{path}.{name}"
            else:
                yield from lost(value, kept[name], f"{path}.{name}")
    elif isinstance(given, list):
        for number, value in enumerate(given):
            yield from lost(value, kept[number] if isinstance(kept, list) else None, f"{path}[{number}]")
    elif given != kept:
        yield path


def test_dashboard_is_wholly_known_to_grafanas_models() -> None:
    assert list(lost(board(), dashboard.round_trip(board()))) == []


def test_dashboard_with_typos_is_told_from_a_good_one() -> None:
    bad = board()
    bad["titel"] = "x"
    bad["panels"][0]["gridPoz"] = {"h": 1}
    bad["panels"][0]["fieldConfig"]["defaults"]["unitt"] = "s"

    found = list(lost(bad, dashboard.round_trip(bad)))

    assert sorted(found) == ["$.panels[0].fieldConfig.defaults.unitt", "$.panels[0].gridPoz", "$.titel"]


def test_dashboard_and_alerts_name_metrics_that_the_operator_has() -> None:
    alerts = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    texts = [*expressions(), alerts]
    found = {name.removesuffix("_bucket") for text in texts for name in re.findall(r"pagemill_operator_\w+", text)}

    assert found <= HELP.keys()
    assert len(found) >= 12
