"""Results that are gone with the record of their checksum, told from those that were never made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecal.core import cli
from prunecal.core.errors import PrunecalError
from prunecal.storage import files
from prunecal.study.cells import load_study
from prunecal.study.design import Design
from prunecal.study.paths import RESULTS, Paths
from prunecal.study.report_items import png_twins, report_items

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from prunecal.study.settings import Study

BENCHMARKED = "benchmark/benchmark.json"  # of no study
FIRST_PAGE = "summary.html"  # which is made when all results are there


def sources(results: Path, every: Collection[Path] = ()) -> Iterator[Path]:
    """Yield the results that are gone, though others were made from them.

    Comparisons of studies are left out: one of the studies may have been deleted.

    Args:
        results: folder of all results.
        every: the files that its studies have, see `files_of_studies`; empty if none is known.
    """
    for path in files.written_files(results):
        if path.is_file() and results / "studies" not in path.parents:
            for source in files.sources_of(path):
                known = source in every if every else results in source.parents
                if known and not source.is_file():
                    yield source


def files_of_studies(results: Path) -> set[Path]:
    """Return the files of all studies whose settings lie in a folder of results, there or not."""
    listed = [(*paths.every_result(), *shown(paths)) for _, paths in _studies(results)]
    every = {place(results, path) for paths in listed for path in paths}
    return every | {results / BENCHMARKED} if every else every


def files_of_others(results: Path, study: Study) -> set[Path]:
    """Return the files of other studies whose settings lie in a folder, which a study lacks."""
    own: set[Path] = set()
    others: set[Path] = set()
    for written, paths in [(None, Paths(Design(study))), *_studies(results)]:
        listed = (place(results, path) for path in (*paths.every_result(), *shown(paths)))
        mine = written in (None, results / study.study / "study.json")
        (own if mine else others).update(listed)
    return others - own


def of_finished_studies(results: Path) -> Iterator[Path]:
    """Yield the missing files of each study that was finished with its present settings.

    A study's first page tells that all its results were there, and its report that all figures,
    tables and pages were, as long as each was made with the settings that the study has now.
    """
    for written, paths in _studies(results):
        reported = _made_with(results.parent / paths.report, written)
        if reported or _made_with(written.with_name(FIRST_PAGE), written):
            listed = [*paths.every_result(), *(shown(paths) if reported else ())]
            every = [place(results, path) for path in listed]
            yield from (path for path in every if not path.is_file())


def _studies(results: Path) -> Iterator[tuple[Path, Paths]]:
    """Yield the written settings and the paths of each study of a folder of results."""
    for written in (results / "study.json", *sorted(results.glob("[!.]*/study.json"))):
        if not written.is_file():
            continue
        try:
            study = load_study(dict(files.read_json(written)))
        except (PrunecalError, ValueError, TypeError) as error:
            cli.log.debug("what %s needs is not known: %s", written, error)
            continue
        if results / study.study / "study.json" == written:
            yield written, Paths(Design(study))


def place(results: Path, path: str) -> Path:
    """Return where a file of a study, named as the rules do, lies in a folder of results."""
    return results / path.removeprefix(f"{RESULTS}/")


def report(results: Path, study: Study) -> Path:
    """Return the path of a study's report."""
    return results.parent / Paths(Design(study)).report


def shown(paths: Paths) -> list[str]:
    """List the figures, tables and pages that the report shows, figures also as PNG."""
    items = report_items(paths)
    return [*items, *png_twins(items)]


def _made_with(path: Path, settings: Path) -> bool:
    """Tell whether a file was made with the settings that its study has now."""
    made_from = files.sources_of(path)
    return settings in made_from and made_from[settings] == files.recorded(settings)
