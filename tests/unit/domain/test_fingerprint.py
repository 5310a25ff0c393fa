"""A fingerprint's value: no order, no ambiguity, and its changes in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.domain.fingerprint import Fingerprint, leaves
from tasks.domain.release import Standing

if TYPE_CHECKING:
    import random

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text('ab.[]"0', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('ab.[]"0', max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def fingerprint(**parts: str) -> Fingerprint:
    return Fingerprint.of({"recipe.opset": "17", "tool onnx": "1.22.0"} | parts)


@given(JSON, JSON)
def test_two_values_that_differ_never_have_the_same_leaves(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (dict(leaves("recipe", one)) == dict(leaves("recipe", other))) is same


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.randoms())
def test_the_order_of_the_parts_changes_nothing(
    parts: dict[str, str], chance: random.Random
) -> None:
    names = list(parts)
    chance.shuffle(names)

    assert Fingerprint.of({name: parts[name] for name in names}) == Fingerprint.of(parts)


def test_a_fingerprint_comes_back_from_json_as_it_went() -> None:
    made = fingerprint()

    assert Fingerprint.model_validate_json(made.model_dump_json()) == made


def test_a_digest_that_is_not_of_the_parts_is_refused() -> None:
    text = fingerprint().model_dump_json().replace('"17"', '"18"')

    with pytest.raises(ValidationError, match="not the one of the parts"):
        Fingerprint.model_validate_json(text)


def test_a_long_list_stands_as_a_digest_that_every_element_changes() -> None:
    labels = [f"label {number}" for number in range(1000)]

    ((name, text),) = leaves("recipe.labels", labels)
    ((_, other),) = leaves("recipe.labels", [*labels[:-1], "label 1000"])

    assert name == "recipe.labels"
    assert text.startswith("1000 values, sha256 ")
    assert text != other


def test_nothing_changed_says_nothing() -> None:
    assert fingerprint().changes_since(fingerprint()) == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"recipe.opset": "17"}, {"recipe.opset": "20"}, "recipe.opset 17 -> 20"),
        ({"tool onnx": "1.22.0"}, {"tool onnx": "1.23.2"}, "onnx 1.22.0 -> 1.23.2"),
        ({}, {"tool skops": "0.14"}, "skops is new: 0.14"),
        ({"tool skops": "0.14"}, {}, "skops is gone: it was 0.14"),
        (
            {"code tasks/steps": "a" * 64},
            {"code tasks/steps": "b" * 64},
            "code of tasks/steps changed",
        ),
        ({}, {"code our/converters": "b" * 64}, "code of our/converters is new"),
        ({"code our/converters": "b" * 64}, {}, "code of our/converters is gone"),
        (
            {"parity.base.rtol": "5e-06"},
            {"parity.base.rtol": "1e-05"},
            "parity.base.rtol 5e-06 -> 1e-05",
        ),
        (
            {"recipe.source.download.sha256": f'"{"a" * 64}"'},
            {"recipe.source.download.sha256": f'"{"b" * 64}"'},
            f'recipe.source.download.sha256 "{"a" * 12}" -> "{"b" * 12}"',
        ),
        (
            {"recipe.labels": f"9 values, sha256 {'a' * 64}"},
            {"recipe.labels": f"9 values, sha256 {'b' * 64}"},
            "recipe.labels changed",
        ),
    ],
)
def test_a_change_is_said_in_words(old: dict[str, str], new: dict[str, str], said: str) -> None:
    changes = fingerprint(**new).changes_since(fingerprint(**old))

    assert changes == (said,)


def test_a_long_value_is_cut_short_in_words() -> None:
    (change,) = fingerprint(**{"recipe.description": "b" * 150}).changes_since(
        fingerprint(**{"recipe.description": "a" * 150})
    )

    assert change == f"recipe.description {'a' * 60}… -> {'b' * 60}…"


def test_what_people_wrote_comes_before_what_they_installed() -> None:
    old = fingerprint(**{"code tasks/steps": "a" * 64, "parity.base.rtol": "1"})
    new = fingerprint(
        **{
            "code tasks/steps": "b" * 64,
            "parity.base.rtol": "2",
            "recipe.opset": "20",
            "tool onnx": "1.23.2",
        }
    )

    changes = new.changes_since(old)

    assert [change.split()[0] for change in changes] == [
        "recipe.opset", "parity.base.rtol", "onnx", "code",
    ]  # fmt: skip


def test_a_standing_says_the_first_changes_and_how_many_more() -> None:
    changes = tuple(f"change {number}" for number in range(5))

    text = Standing(fingerprint=fingerprint(), version=3, changes=changes).summary()

    assert text == "since version 3: change 0; change 1; change 2; and 2 more"
