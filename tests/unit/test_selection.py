"""Expressions that say which models are meant, and what is said of those that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.domain.errors import ConfigurationError
from tasks.domain.recipe import Recipe
from tasks.selection import parse_selection
from tests.flows.conftest import LINEAR


def recipe(name: str, *tags: str, **changes: Any) -> Recipe:
    return Recipe.model_validate(LINEAR | {"name": name, "tags": tags} | changes)


RECIPES = (
    recipe("resnet-18", "vision", "small"),
    recipe("resnet-50", "vision"),
    recipe("bert", "text"),
    recipe("iris"),
)
STALE = {"resnet-50", "iris"}


def meant(text: str) -> str:
    selection = parse_selection(text)
    selection.check(RECIPES)
    return " ".join(each.name for each in RECIPES if selection.fits(each, each.name in STALE))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", "resnet-18 resnet-50 bert iris"),
        ("stale", "resnet-50 iris"),
        ("tag:vision", "resnet-18 resnet-50"),
        ("tag:*", "resnet-18 resnet-50 bert"),
        ("name:resnet*", "resnet-18 resnet-50"),
        ("iris", "iris"),
        ("resnet-1?", "resnet-18"),
        ("tag:vision stale", "resnet-50"),
        ("tag:vision and stale", "resnet-50"),
        ("tag:vision,iris", "resnet-18 resnet-50 iris"),
        ("tag:text or tag:vision stale", "resnet-50 bert"),
        ("(tag:text or tag:vision) stale", "resnet-50"),
        ("not stale", "resnet-18 bert"),
        ("not (tag:vision, iris)", "bert"),
        ("not not iris", "iris"),
        ("tag:vision not tag:small", "resnet-50"),
    ],
)
def test_an_expression_means_these_models(text: str, names: str) -> None:
    assert meant(text) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "",
            "at character 1 (expected a word such as 'stale', 'tag:vision' or 'name:resnet*', got",
        ),
        ("tag:vision or", "at character 14 (expected a word"),
        ("and stale", "at character 1 (expected a word"),
        ("(stale", "at character 7 (expected ')', got the end)"),
        ("stale)", "at character 6 (expected the end, or 'and', 'or', ',', got ')')"),
        ("task:vision", "at character 1 (expected 'all', 'stale', 'tag:PATTERN'"),
        ("tag:", "got 'tag:')"),
        ("stale, Name:X", "at character 8"),
        ("(" * 600, "at character 21 (expected at most 20 levels of brackets and 'not'"),
        ("not " * 600, "at character 81 (expected at most 20 levels"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_selection(text)

    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "resnet-81",
            "no recipe's name fits 'resnet-81'. Did you mean 'resnet-18'? There are: bert",
        ),
        ("stale, tag:visoin", "no recipe's tag fits 'visoin'. Did you mean 'vision'?"),
    ],
)
def test_a_pattern_that_fits_nothing_is_an_error_that_names_what_there_is(
    text: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        meant(text)

    assert words in str(raised.value)


def test_the_store_need_not_be_asked_about_what_names_and_tags_rule_out() -> None:
    selection = parse_selection("tag:vision stale")

    assert [each.name for each in RECIPES if selection.might_fit(each)] == [
        "resnet-18",
        "resnet-50",
    ]
