"""Every cross-field rule, both ways, in both of its forms: Python on the model, CEL on the file's values."""

from __future__ import annotations

import functools
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from pydantic import ValidationError

from pagemill_core.api.rules import RULES, Rule
from pagemill_core.api.v1alpha1 import Stage
from pagemill_core.api.v1alpha1.base import ApiModel


def all_models(base: type[ApiModel] = ApiModel) -> dict[str, type[ApiModel]]:
    found = {base.__name__: base}
    for model in base.__subclasses__():
        found |= all_models(model)
    return found


MODELS = all_models()
# Scopes that no file holds by themselves: the type inside a field, and the base of both specs.
STAND_INS: dict[str, type[ApiModel]] = {"CountOrAuto": Stage, "JobSpec": MODELS["OcrJobSpec"]}


def wrapped(rule: Rule, example: Any) -> Any:
    return {"name": "write", "batchSize": example} if rule.scope == "CountOrAuto" else example


def messages(rule: Rule, example: Any) -> list[str]:
    """What the model says to an example."""
    model = STAND_INS.get(rule.scope) or MODELS[rule.scope]
    try:
        model.model_validate(wrapped(rule, example))
    except ValidationError as error:
        return [details["msg"] for details in error.errors()]
    return []


@functools.cache
def compiled(expression: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression))


def cel_holds(expression: str, **values: Any) -> bool:
    """The expression's value, explicit nulls dropped as the API server does."""
    return bool(compiled(expression).evaluate({name: json_to_cel(pruned(value)) for name, value in values.items()}))


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: pruned(inner) for name, inner in value.items() if inner is not None}
    return value


def cases(which: str) -> list[Any]:
    return [
        pytest.param(rule, example, id=f"{rule.scope}-{number}-{index}")
        for number, rule in enumerate(RULES)
        for index, example in enumerate(getattr(rule, which))
    ]


@pytest.mark.parametrize(("rule", "example"), cases("good"))
def test_rule_good_example_is_accepted_by_the_model(rule: Rule, example: Any) -> None:
    assert messages(rule, example) == []


@pytest.mark.parametrize(("rule", "example"), cases("bad"))
def test_rule_bad_example_is_refused_by_the_model_with_the_message(rule: Rule, example: Any) -> None:
    assert any(rule.message in message for message in messages(rule, example))


@pytest.mark.parametrize(("rule", "example"), cases("good"))
def test_rule_good_example_is_accepted_by_the_cel_form(rule: Rule, example: Any) -> None:
    assert cel_holds(rule.cel, self=example)


@pytest.mark.parametrize(("rule", "example"), cases("bad"))
def test_rule_bad_example_is_refused_by_the_cel_form(rule: Rule, example: Any) -> None:
    assert not cel_holds(rule.cel, self=example)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.scope)
def test_rule_has_both_kinds_of_examples_and_belongs_to_a_model(rule: Rule) -> None:
    assert rule.good
    assert rule.bad
    assert rule.scope in STAND_INS or rule.scope in MODELS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.scope)
def test_rule_message_is_one_line_without_capital_and_full_stop(rule: Rule) -> None:
    assert "\n" not in rule.message
    assert rule.message[0].islower()
    assert not rule.message.endswith(".")


def test_rule_several_broken_at_once_are_all_reported() -> None:
    with pytest.raises(ValidationError) as caught:
        MODELS["ModelRef"].model_validate({"name": "x", "trust": "pickle"})
    problems = caught.value.errors()[0]["ctx"]["problems"]
    assert len(problems) == 2


def test_count_or_auto_boolean_is_refused() -> None:
    with pytest.raises(ValidationError, match="a whole number above 0"):
        Stage.model_validate({"name": "write", "batchSize": True})
