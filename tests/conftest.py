"""What every test may use: child processes and servers that live as long as the session."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from deployments.local import LocalStack
from deployments.s3_server import S3Server
from tasks.isolation import Children
from tests.support import second_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.settings import StoreSettings

# Nothing is timed in tests: a busy machine is no fault of what is tried on it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before Prefect is imported: tests neither see nor touch the profile of the person who runs them.
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["CONVEYOR_SIGNING_KEY"] = f"{os.environ['PREFECT_HOME']}/keys/signing.pem"
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("children")) as all_of_them:
        yield all_of_them


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Start the servers, the deployments and the workers; 10 s."""
    with LocalStack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start a real S3 server with one empty bucket; 2 to 5 s."""
    with S3Server(tmp_path_factory.mktemp("s3"), grace_seconds=0) as server:
        yield server


@pytest.fixture(scope="session")
def second_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[second_store.MiniStack]:
    """Start an S3 server of another make; 3 s."""
    with second_store.MiniStack(tmp_path_factory.mktemp("second")) as server:
        yield server


@pytest.fixture(params=["seaweedfs", "ministack"])
def either_store(request: pytest.FixtureRequest) -> StoreSettings:
    """Run a test on each S3 server that runs here."""
    name = {"seaweedfs": "s3_server", "ministack": "second_server"}[request.param]
    settings: StoreSettings = request.getfixturevalue(name).settings
    return settings
