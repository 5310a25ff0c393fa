"""The table of settings in the docs is the settings, all of them, in their words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.settings import GpuSettings, LocalSettings, StoreSettings

TABLE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
SETTINGS = {
    f"{settings.model_config['env_prefix']}{name}".upper(): field.description
    for settings in (StoreSettings, LocalSettings, GpuSettings)
    for name, field in settings.model_fields.items()
}


@pytest.mark.parametrize("variable", SETTINGS)
def test_a_setting_is_documented_in_its_own_words(variable: str) -> None:
    (row,) = [line for line in TABLE.splitlines() if line.startswith(f"| `{variable}` |")]

    assert row.endswith(f"| {SETTINGS[variable]} |")


def test_the_table_names_no_setting_that_does_not_exist() -> None:
    assert set(re.findall(r"^\| `(CONVEYOR_\w+)`", TABLE, re.MULTILINE)) == set(SETTINGS)


def test_a_secret_is_not_shown() -> None:
    settings = StoreSettings(secret_access_key="hunter2")

    assert "hunter2" not in repr(settings)
