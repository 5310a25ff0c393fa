"""Prefect's settings are the same in the local stack, the compose file and the manifests."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from prefect.settings.legacy import _get_settings_fields
from prefect.settings.models.root import Settings

from deployments import tuning
from deployments.automations import SILENCE_SECONDS
from deployments.local import LocalStack

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONFIG_MAPS = {
    each["metadata"]["name"]: each["data"]
    for each in yaml.safe_load_all(
        (ROOT / "deployments" / "kubernetes" / "settings.yaml").read_text()
    )
}
PAGE = (ROOT / "docs" / "machines" / "measured.md").read_text()
SERVER = tuning.SERVER | tuning.APART


def in_compose(anchor: str) -> dict[str, str]:
    default = re.compile(r"\$\{\w+:-([^}]*)\}")
    return {name: default.sub(r"\1", str(value)) for name, value in COMPOSE[anchor].items()}


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        pytest.param(SERVER, in_compose("x-server"), id="server-compose"),
        pytest.param(SERVER, CONFIG_MAPS["conveyor-server"], id="server-kubernetes"),
        pytest.param(tuning.CLIENT, in_compose("x-client"), id="client-compose"),
        pytest.param(tuning.CLIENT, CONFIG_MAPS["conveyor-client"], id="client-kubernetes"),
    ],
)
def test_the_settings_stand_in(wanted: Mapping[str, str], there: Mapping[str, str]) -> None:
    assert wanted.items() <= there.items()


def test_the_local_stack_has_them_and_looks_for_runs_more_often(tmp_path: Path) -> None:
    here = LocalStack(tmp_path).full_environment()

    other = {name for name, value in (tuning.SERVER | tuning.CLIENT).items() if here[name] != value}

    assert other == {"PREFECT_WORKER_QUERY_SECONDS"}
    assert float(here["PREFECT_WORKER_QUERY_SECONDS"]) < 2


@pytest.mark.parametrize("name", sorted(SERVER | tuning.CLIENT))
def test_prefect_knows_the_setting_and_the_page_says_why(name: str) -> None:
    assert name in _get_settings_fields(Settings)
    assert f"`{name.removeprefix('PREFECT_')}`" in PAGE


def test_prefect_reads_them_as_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SERVER | tuning.CLIENT).items():
        monkeypatch.setenv(name, value)

    read = Settings()

    vacuum = read.server.services.db_vacuum
    assert vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert vacuum.retention_period == timedelta(days=90)
    assert vacuum.event_retention_overrides == {"prefect.flow-run.heartbeat": timedelta(days=1)}
    assert read.client.retry_extra_codes == {500}
    assert read.flows.heartbeat_frequency is not None
    assert 3 * read.flows.heartbeat_frequency <= SILENCE_SECONDS
