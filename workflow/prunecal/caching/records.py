"""Find results of which Snakemake's own record is missing, so that no plan notices a change."""

from base64 import urlsafe_b64encode
from collections.abc import Iterable
from pathlib import Path

METADATA = Path(".snakemake", "metadata")
LONGEST = 254  # characters of a file's name; Snakemake parts what is longer


def unrecorded(paths: Iterable[str], metadata: Path = METADATA) -> list[str]:
    """List the results that are there although Snakemake does not know how they were made.

    Args:
        paths: results, as rules name them.
        metadata: where Snakemake keeps a record of each, named by its path in base 64.
    """
    return [path for path in paths if Path(path).exists() and not _record(path, metadata).exists()]


def _record(path: str, metadata: Path) -> Path:
    name = urlsafe_b64encode(path.encode()).decode()
    parts = [name[start : start + LONGEST] for start in range(0, len(name), LONGEST)]
    return metadata.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])


def missing_record(paths: list[str], command: str) -> str:
    """Say what it means that these results have no record, and what to do.

    Args:
        paths: the results.
        command: how Snakemake is called for their study.
    """
    return (
        f"{len(paths)} results, {paths[0]} among them, have no record in .snakemake: a change of "
        f"settings or code since they were made starts no job. `{command} verify` names those that "
        f"are outdated and `{command} repair_outdated` removes them; `{command} --touch --forceall "
        "results` records all others as up to date"
    )
