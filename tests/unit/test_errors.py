"""Errors cross from a worker to its caller as a class and a message; nothing else survives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.serializers import JSONSerializer

from tasks.domain import errors
from tasks.domain.errors import (
    DigestMismatchError,
    LostRunError,
    ReleaseError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def family(error: type[ReleaseError]) -> Iterator[type[ReleaseError]]:
    yield error
    for child in error.__subclasses__():
        yield from family(child)


@pytest.mark.parametrize("error", list(family(ReleaseError)), ids=lambda error: error.__name__)
def test_an_error_survives_the_trip_home(error: type[ReleaseError]) -> None:
    serializer: JSONSerializer[ReleaseError] = JSONSerializer()

    returned = serializer.loads(serializer.dumps(error("what, where, what next")))

    assert type(returned) is error
    assert str(returned) == "what, where, what next"


@pytest.mark.parametrize("error", list(family(ReleaseError)), ids=lambda error: error.__name__)
def test_the_tree_in_the_docstring_names_every_error(error: type[ReleaseError]) -> None:
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


def test_only_an_absent_store_and_a_lost_run_are_worth_another_try() -> None:
    transient = {each for each in family(ReleaseError) if each.transient}

    assert transient == {StorageUnavailableError, LostRunError}


def test_a_digest_mismatch_names_the_file_and_both_digests() -> None:
    error = DigestMismatchError.of("iris/1/onnx/model.onnx", expected="a" * 64, got="b" * 64)

    assert str(error) == (
        "iris/1/onnx/model.onnx: content changed since it was recorded "
        "(expected sha256 aaaaaaaaaaaa, got bbbbbbbbbbbb). "
        "Publish under a new version; a published key is never overwritten."
    )
