"""What every test may use: child processes that live as long as the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.isolation import Children

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as all_of_them:
        yield all_of_them
