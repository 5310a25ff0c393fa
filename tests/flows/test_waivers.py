"""A recipe's waivers on their way through a whole run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows.release_model import release_model
from tasks.catalogue import load_recipe
from tasks.domain.errors import ConfigurationError
from tasks.settings import local_settings, store_settings
from tasks.standing import find_up_to_date
from tasks.storage.publishing import latest
from tasks.storage.s3 import open_store

if TYPE_CHECKING:
    from collections.abc import Callable


def waivers(days: int) -> list[dict[str, Any]]:
    """Return waivers of all that dropping a bias does, which hold for ``days`` from today."""
    last = datetime.now(UTC).date() + timedelta(days=days)
    return [
        {
            "kinds": ["numbers", "ranks", "labels", "task-metric"],
            "reason": "the intercept is added by the caller",
            "owner": "ada@example.org",
            "expires": last.isoformat(),
        }
    ]


def test_a_waived_release_says_so_and_by_whom(catalogue: Callable[..., str]) -> None:
    model = catalogue(converters={"onnx": ["drops-bias"]}, waivers=waivers(30))

    release_model(model)

    store = open_store(store_settings())
    manifest = latest(store, model)
    assert manifest is not None
    (onnx,) = manifest.formats
    assert onnx.parity.passed
    assert onnx.parity.waived
    assert {each.owner for _, each in onnx.parity.waived} == {"ada@example.org"}
    report = store.read(f"{model}/1/parity/report.html").content.decode()
    assert "the intercept is added by the caller" in report
    assert "ada@example.org" in report


def test_an_expired_waiver_ends_the_run_before_it_does_anything(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(waivers=waivers(-1))

    with pytest.raises(ConfigurationError, match=r"waivers\[0\].expires: .*expired") as caught:
        release_model(model)

    assert f"{model}.yaml" in str(caught.value)
    assert latest(open_store(store_settings()), model) is None


def test_what_was_released_by_a_waiver_is_not_up_to_date_once_it_has_expired(
    catalogue: Callable[..., str],
) -> None:
    model = catalogue(converters={"onnx": ["drops-bias"]}, waivers=waivers(0))
    release_model(model)
    recipe = load_recipe(model, local_settings().catalogue)
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)

    assert model in find_up_to_date([recipe])
    assert model not in find_up_to_date([recipe], today=tomorrow)
