"""What makes a release one that strangers can check: its provenance, and its signing key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.host import host_facts
from tasks.package_versions import tool_versions
from tasks.settings import local_settings
from tasks.storage.keys import signing_key
from tasks.storage.sealing import Seal

if TYPE_CHECKING:
    from tasks.domain.provenance import Statement
    from tasks.domain.recipe import Recipe
    from tasks.domain.release import ReleaseFile


def seal_of(recipe: Recipe) -> Seal:
    """Return the seal of the current flow run's release, and tell whose key it has.

    Raises:
        ConfigurationError: The signing key can be neither read nor made.
    """
    key = signing_key(local_settings())
    if key is None:
        get_run_logger().warning("%s: will not be signed: CONVEYOR_SIGNING is off", recipe.name)
    else:
        words = "%s: will be signed by the key %s; verify it with\n%s"
        get_run_logger().info(words, recipe.name, key.fingerprint, key.public_pem.strip())

    def statement_for(files: tuple[ReleaseFile, ...]) -> Statement:
        from tasks.domain.provenance import statement_of

        run = FlowRunContext.get()
        return statement_of(
            recipe,
            files,
            parameters=flow_run.parameters,
            tools=tool_versions(),
            host=host_facts(),
            flow_run=flow_run.id,
            started=run.start_time if run else datetime.now(UTC),
            finished=datetime.now(UTC),
        )

    return Seal(statement_for, key)
