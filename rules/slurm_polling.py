"""An upper bound for the waits between SLURM's status checks, which Snakemake's plugin lacks.

The plugin (2.8.0) asks again 10 s later than the last time, and takes no notice of Snakemake's own
`--seconds-between-status-checks`: a job of minutes that ends is noticed up to a minute later, and
those that wait for it stand still.
"""

import asyncio
import sys
from importlib.metadata import version
from typing import Any

PLUGIN = "snakemake_executor_plugin_slurm"
KNOWN = "2.8."  # the releases whose waits were read; others are left as they are


def bound_waits() -> bool:
    """Let the SLURM plugin never wait longer than `seconds-between-status-checks`.

    Returns:
        Whether waits are bound: Snakemake has loaded the plugin (it is the extra `slurm`), and its
        release is one whose waits are known.
    """
    executor = getattr(sys.modules.get(PLUGIN), "Executor", None)
    if not hasattr(executor, "sleep") or not version(PLUGIN).startswith(KNOWN):
        return False
    executor.sleep = _sleep
    return True


async def _sleep(executor: Any) -> None:
    """Wait as long as the plugin wants, or as the user allows if that is shorter."""
    allowed = executor.workflow.remote_execution_settings.seconds_between_status_checks
    await asyncio.sleep(min(allowed, executor.next_seconds_between_status_checks))
