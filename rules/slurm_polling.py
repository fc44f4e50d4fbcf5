"""An upper bound for the waits between SLURM's status checks, which Snakemake's plugin lacks.

The plugin (2.8.0) asks again 10 s later than the last time, and takes no notice of Snakemake's own
`--seconds-between-status-checks`: a job of minutes that ends is noticed up to a minute later, and
those that wait for it stand still.
"""

import asyncio
import sys
from typing import Any

PLUGIN = "snakemake_executor_plugin_slurm"


def bound_waits() -> None:
    """Let the SLURM plugin never wait longer than `seconds-between-status-checks`.

    Where Snakemake has not loaded the plugin, nothing is done.
    """
    if plugin := sys.modules.get(PLUGIN):
        plugin.Executor.sleep = _sleep


async def _sleep(executor: Any) -> None:
    """Wait as long as the plugin wants, or as the user allows if that is shorter."""
    allowed = executor.workflow.remote_execution_settings.seconds_between_status_checks
    await asyncio.sleep(min(allowed, executor.next_seconds_between_status_checks))
