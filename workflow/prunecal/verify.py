"""Check every result against its recorded checksum, and against what it was made from.

Each file of a stage has its SHA-256 beside it, in a hidden file that `sha256sum --check` reads too.
A model's files are compared with its manifest wherever they are: trained, local, in a cache.
Undamaged files are compared with the current code, features and cells with weights and inputs
(`caching.lineage`), tables and score files with the predictions that they summarise, by checksums
(`caching.outdated`) and by values (`statistics.recomputed`), all files of a study with its
settings, data sets and imported cells with their local files. Of a finished study every file must
be there (`caching.missing`).
"""

import argparse
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from prunecal.caching import library_versions, lineage, missing, outdated
from prunecal.caching.cell_store import FILES as CELL_FILES
from prunecal.caching.cell_store import RANKING_FILES, misplaced_cells
from prunecal.caching.lineage import Foreign
from prunecal.core import cli, plugins
from prunecal.core.errors import PrunecalError
from prunecal.core.parameters import local_paths
from prunecal.imports.unlike import other_answers
from prunecal.sources import model_folder, weights
from prunecal.statistics import recomputed
from prunecal.storage import files
from prunecal.study.cells import load_study
from prunecal.study.design import Design
from prunecal.study.model_settings import tower_name
from prunecal.study.paths import CELL_STORE, RANKING_STORE, Paths
from prunecal.study.settings import Study

WRITTEN = (  # where stages write what decides the numbers, below the folder of results
    *(f"datasets/*/{name}.parquet" for name in ("questions", "images")),
    "models/*/manifest.json",
    "*/*/features.safetensors",
    "*/*/signals/*.safetensors",
    "*/*/*/ranking.safetensors",
    *(f"{below}/{name}" for below in ("*/*/*/*", ".cells/*/*") for name in CELL_FILES),
    *(f".rankings/*/*/{name}" for name in RANKING_FILES),
    *(f"{study}scores/*/*.safetensors" for study in ("", "*/")),
    *(
        f"{study}{name}"
        for study in ("", "*/")
        for name in ("metrics.*", "comparisons.*", "detectable.*", "claims.json", "study.json")
    ),
)


def damaged_files(results: Path, study: Study | None = None) -> list[Path]:
    """List results that are missing, differ from their checksum or have none, sorted.

    Args:
        results: folder of all results.
        study: tells which figures and pages should have a checksum.
    """
    every = missing.files_of_studies(results)
    gone = {*missing.sources(results, every), *missing.of_finished_studies(results)}
    shown = _shown(results, study) if study else ()
    paths = sorted({*files.written_files(results), *_unchecked(results), *gone, *shown})
    checked = cli.progress(paths, total=len(paths), what="verify", unit="file")
    return [path for path in checked if not files.undamaged(path)]


def _unchecked(results: Path) -> Iterator[Path]:
    """Yield the results that have no checksum beside them, told from other files by their names."""
    for place in WRITTEN:
        for path in results.glob(place):
            hidden = any(part.startswith(".") for part in path.relative_to(results).parts)
            if (not hidden or place.startswith(".")) and not files.checksum_file(path).is_file():
                yield path


def _shown(results: Path, study: Study) -> Iterator[Path]:
    """Yield the figures and pages of a study that are there, and its report."""
    for item in missing.shown(Paths(Design(study))):
        path = missing.place(results, item)
        if path.is_file():
            yield path
    report = missing.report(results, study)
    if report.is_file() or files.checksum_file(report).is_file():
        yield report


def damaged_weights(results: Path, study: Study | None = None) -> Iterator[tuple[Path, Path, str]]:
    """Yield a model's manifest and each file that differs from it, or itself, and how.

    Args:
        results: folder of all results.
        study: tells where a model in a local folder lies; its manifest does not.
    """
    models = study.models if study else []
    local = {model.name: model.path for model in models if model.path} | {
        tower_name(model.name): model.text_tower.path
        for model in models
        if model.text_tower and model.text_tower.path
    }
    for manifest in sorted(results.glob("models/*/manifest.json")):
        if not files.undamaged(manifest):
            continue  # it is on the list of damaged files
        try:
            described, name = files.read_object(manifest), manifest.parent.name
            whole = model_folder.digest_of(described["files"]) == described["digest"]
        except PrunecalError as error:
            yield manifest, manifest, f"is no manifest ({error})"
            continue
        if not whole:
            yield manifest, manifest, model_folder.OTHER_DIGEST
        source = {key: described[key] for key in ("repo", "revision", "train") if key in described}
        if not source and name not in local:
            cli.log.info("the weights of %s are not checked: no model of this study", name)
            continue
        try:
            listed = [file["name"] for file in described["files"]]
            found = source or {"path": local[name]}
            place = weights.folder(found, manifest.parent / "weights", listed)
        except PrunecalError as error:
            cli.log.info("the weights of %s are not checked: %s", name, error)
            continue
        if not place.is_dir() and "train" not in source:
            cli.log.info("the weights of %s are not checked: %s is not there", name, place)
            continue
        faults = list(model_folder.faults(place, described))
        for path, fault in faults:
            yield manifest, path, fault
        mean = described.get("image_mean")
        if mean is not None and not faults and mean != model_folder.image_mean(place):
            yield manifest, manifest, "states another image_mean than its image processor"


def other_data(results: Path, study: Study, damaged: Collection[Path]) -> Iterator[Foreign]:
    """Yield the data sets whose local files differ from those that were read."""
    for dataset in study.datasets:
        questions = results / "datasets" / dataset.name / "questions.parquet"
        loader = plugins.load("datasets", dataset.loader)
        params = loader.Params(**(dataset.model_extra or {}))
        paths = [path for _, value in params for path in local_paths(value)]
        if not paths or not questions.is_file() or questions in damaged:
            continue
        missing = [path for path in paths if not path.exists()]
        if missing:
            cli.log.info("data set %s is not checked: %s is not there", dataset.name, missing[0])
            continue
        try:
            revision = loader.load(params).revision
        except PrunecalError as error:
            yield Foreign(questions, f"from files that are not whole now: {error}")
            continue
        if revision != files.read_facts(questions).get("revision"):
            yield Foreign(questions, f"from other files than lie in {paths[0]} now")


def outdated_files(
    results: Path, settings: dict[str, Any] | None, damaged: Collection[Path]
) -> list[Foreign]:
    """List the whole files that this checkout would not make from what is here now, sorted."""
    rows = [
        *lineage.foreign_files(results, damaged),
        *outdated.from_other_sources(results, damaged, missing.files_of_studies(results)),
    ]
    if settings is not None:
        study = load_study(settings)
        rows += outdated.of_other_settings(results, study, settings, damaged)
        rows += other_data(results, study, damaged)
        rows += other_answers(results, study, damaged, recomputed.first_difference)
    rows += [Foreign(*row) for row in recomputed.other_values(results, damaged)]
    return sorted({row.path: row for row in reversed(rows)}.values())


def main(arguments: argparse.Namespace) -> None:
    """Name damaged and outdated files; remove some of them, as the option says."""
    results = arguments.results
    if arguments.record:
        if not results.is_file():
            raise PrunecalError(f"{results} is not a file; name one to record its checksum")
        files.record(results)
        return
    if not results.is_dir():
        raise PrunecalError(f"{results} is not a folder; name the one with the results")
    settings = json.loads(arguments.settings) if arguments.settings else None
    study = load_study(settings) if settings else None
    damaged = damaged_files(results, study)
    damaged += misplaced_cells(results / Path(CELL_STORE).name, damaged)
    damaged += misplaced_cells(results / Path(RANKING_STORE).name, damaged, RANKING_FILES)
    for path in damaged:
        unknown = path.is_file() and not files.checksum_file(path).is_file()
        fault = "has no checksum beside it" if unknown else "is missing or not as it was written"
        cli.log.warning("%s %s", path, fault)
    unfit = list(damaged_weights(results, study))
    for manifest, path, fault in unfit:
        so = "" if path == manifest else f", so {manifest} does not describe it"
        cli.log.warning("%s %s%s", path, fault, so)
    if arguments.repair:
        _repair(results, damaged, unfit)
        return
    if arguments.other_versions:
        _remove_other_versions(results)
        return
    wrong = [path for manifest, path, _ in unfit if path == manifest]
    old = outdated_files(results, settings, [*damaged, *wrong])
    for path, reason in old:
        cli.log.warning("%s was made %s", path, reason)
        if arguments.outdated:
            _remove(path)
    if arguments.outdated:
        cli.log.info("removed %d outdated files", len(old))
        return
    command = arguments.command
    for remark in library_versions.version_remarks(results):
        cli.log.warning("%s; `%s repair_versions` removes those of other versions", remark, command)
    given = [path for _, path, _ in unfit if results not in path.parents]  # the user's, the Hub's
    here = [path for _, path, _ in unfit if results in path.parents]
    others = missing.files_of_others(results, study) if study else set()
    kinds = {
        "damaged": ("repair", [*damaged, *here]),
        "outdated": ("repair_outdated", [path for path, _ in old]),
    }
    faults = [
        f"{count} {kind} files: `{command} {target}` removes them, `{command}` makes them again"
        for kind, (target, paths) in kinds.items()
        if (count := sum(path not in others for path in paths))
    ]
    theirs = sorted({path for _, paths in kinds.values() for path in paths} & others)
    if theirs:
        faults.append(
            f"{len(theirs)} files of other studies, {theirs[0]} among them: run each with its own "
            "--configfile, with names of their own for data sets and models that differ, or delete "
            "its folder"
        )
    if given:
        faults.append(
            f"{len(given)} files of models that no manifest describes: restore them, or have them "
            f"described or fetched again by `{command} repair` and then `{command}`"
        )
    if faults:
        raise PrunecalError("; ".join(faults))
    cli.log.info("0 damaged files")


def _repair(results: Path, damaged: list[Path], unfit: list[tuple[Path, Path, str]]) -> None:
    for path in damaged:
        _remove(path)
    dropped = 0
    for manifest in {manifest for manifest, path, _ in unfit if path != manifest}:
        dropped += _drop_unchecked(results, files.read_object(manifest)["digest"])
        trained = manifest.parent / "weights"
        for path in [manifest, *(path for _, path, _ in unfit if trained in path.parents)]:
            _remove(path)
        _remove(trained / "model.safetensors")  # by which the workflow knows a trained model
    for manifest in {manifest for manifest, path, _ in unfit if path == manifest}:
        _remove(manifest)
    cli.log.info("removed %d files", len(damaged) + len(unfit))
    if dropped:
        cli.log.info("removed %d cells whose weights were not checked when loaded", dropped)


def _drop_unchecked(results: Path, digest: str) -> int:
    """Remove a model's cells that may have been computed with damaged weights; return how many."""
    dropped = 0
    for below in (lineage.CELLS_BELOW, lineage.STORED_BELOW):
        for provenance in results.glob(below):
            made_from = files.read_object(provenance).get(lineage.MADE_FROM, {})
            predictions = provenance.with_name("predictions.parquet")
            if not predictions.is_file() or made_from.get(lineage.WEIGHTS) == digest:
                continue
            if files.read_facts(predictions).get("model_digest") == digest:
                _remove(predictions)
                _remove(provenance)
                dropped += 1
    return dropped


def _remove(path: Path) -> None:
    for one in (path, files.checksum_file(path)):
        if one.is_dir() and not one.is_symlink():
            raise PrunecalError(f"{one} is a folder in the place of a file; move it away")
        one.unlink(missing_ok=True)


def _remove_other_versions(results: Path) -> None:
    """Remove the cells that others than the installed versions made, out of the store too."""
    cells = library_versions.cells_of_other_versions(results)
    for folder in [
        *cells,
        *library_versions.cells_of_other_versions(results, lineage.STORED_BELOW),
    ]:
        shutil.rmtree(folder)
    versions = " and ".join(library_versions.LIBRARIES)
    cli.log.info("removed %d cells of other versions of %s", len(cells), versions)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("results", type=Path, help="folder to check, or the file to record")
    parser.add_argument("--settings", help="JSON: the study's settings, to check against")
    parser.add_argument(
        "--command", default="snakemake --cores 1", help="how Snakemake is called, for advice"
    )
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--repair", action="store_true", help="remove damaged files")
    wish.add_argument("--outdated", action="store_true", help="remove outdated files")
    wish.add_argument("--record", action="store_true", help="write the checksum of one file")
    wish.add_argument(
        "--other-versions",
        action="store_true",
        help="remove the cells that others than the installed torch and transformers made",
    )
    cli.run(main, parser.parse_args())
