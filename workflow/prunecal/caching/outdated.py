"""Whole files that were made from other inputs, or with other settings, than are here now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prunecal.caching.lineage import OTHER_FORM, Foreign
from prunecal.core.errors import PrunecalError, brief
from prunecal.core.parameters import portable
from prunecal.core.redaction import hidden
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays
from prunecal.storage.checksums import file_digest
from prunecal.study import budgets
from prunecal.study.cells import cells, imported_cell, load_study
from prunecal.study.design import Design
from prunecal.study.fields import plugin_settings
from prunecal.study.model_settings import tower_name
from prunecal.study.report_items import MECHANISM_TABLES, TRUST_TABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from prunecal.study.model_settings import Model
    from prunecal.study.settings import Study

NEED_SOURCES = (
    "metrics.", "comparisons.", "detectable.", "calibration.", "provenance.csv", "claims.json",
)  # fmt: skip
SCORES = "scores"  # the folder of score files, in a study's folder
SHOWN = {"figures", "tables"}  # likewise


def from_other_sources(
    results: Path, damaged: Collection[Path], every: Collection[Path] = ()
) -> Iterator[Foreign]:
    """Yield the files whose sources have changed since, and files made from these.

    Tables and score files that do not say from what they were made are named as well.

    Args:
        results: folder of all results.
        damaged: files about which nothing can be said, with all that was made from them.
        every: the files of all studies of the folder; empty if no study is known. A file that was
            made from results that are not there and of no study was copied from elsewhere.
    """
    recorded = {path: files.sources_of(path) for path in _whole_files(results, damaged)}
    now = {source: _digest(source) for sources in recorded.values() for source in sources}
    stale: dict[Path, str] = {}
    for path, sources in recorded.items():
        # a missing source is not compared
        changed = [one for one, digest in sources.items() if now[one] not in (digest, None)]
        if changed and changed[0] not in damaged:
            stale[path] = f"from another {_short(changed[0], results)}"
        elif results / "studies" not in path.parents and (
            strays := [one for one in sources if _is_stray(one, results, every)]
        ):
            stale[path] = f"from {_short(strays[0], results)}, which no study here has"
        elif not sources and _needs_sources(path, results):
            stale[path] = "from files that it does not name"
    while True:
        more = {
            path: f"from {_short(source, results)}, which is outdated"
            for path, sources in recorded.items()
            for source in sources
            if path not in stale and source in stale
        }
        if not more:
            break
        stale |= more
    yield from (Foreign(path, reason) for path, reason in stale.items())


def _is_stray(source: Path, results: Path, every: Collection[Path]) -> bool:
    """Tell whether a source is a result that is neither there nor of a study."""
    own = results in source.parents and bool(every)
    return own and source not in every and not source.is_file()


def _whole_files(results: Path, damaged: Collection[Path]) -> list[Path]:
    hidden_folders = (path for path in results.iterdir() if path.name.startswith("."))
    left_out = {*damaged, *hidden_folders}
    written = files.written_files(results)
    return [path for path in written if not left_out & {path, *path.parents}]


def _needs_sources(path: Path, results: Path) -> bool:
    """Tell whether a file is a score file, table, figure or page, which name their sources."""
    place = path.relative_to(results).parts
    is_score = SCORES in place[:2] and path.suffix == ".safetensors"
    is_table = len(place) <= 2 and path.name.startswith(NEED_SOURCES)
    return is_score or is_table or path.suffix == ".html" or bool({*place[:2]} & SHOWN)


def _digest(source: Path) -> str | None:
    """Return the SHA-256 of a source, None if it is missing."""
    return (files.recorded(source) or file_digest(source)) if source.is_file() else None


def _short(path: Path, results: Path) -> str:
    return path.relative_to(results).as_posix() if results in path.parents else str(path)


def of_other_settings(
    results: Path, study: Study, settings: Mapping[str, Any], damaged: Collection[Path] = ()
) -> Iterator[Foreign]:
    """Yield the files of a study that were made with other settings than it has now.

    Args:
        results: folder of all results.
        study: the study as it is now.
        settings: what it was read from.
        damaged: files about which nothing can be said.
    """
    aggregates = results / study.study
    expected: list[tuple[Path, dict[str, Any]]] = []
    design = Design(study)
    for model in study.models:
        expected += _of_model(results, study, model)
    expected += _of_pairs(results, design)
    for dataset in study.datasets:
        params = plugin_settings("datasets", "loader", dataset.loader, dataset.model_extra or {})
        facts = {"loader": dataset.loader, "params": portable(params)}
        folder = results / "datasets" / dataset.name
        expected += [(folder / f"{name}.parquet", facts) for name in ("questions", "images")]
    level = {"level": study.statistics.level}
    expected += [(aggregates / f"{name}.parquet", level) for name in ("metrics", "comparisons")]
    for path, facts in expected:
        if path.is_file() and path not in damaged and (reason := _other(path, facts)):
            yield Foreign(path, reason)
    written = aggregates / "study.json"
    if written.is_file() and written not in damaged:
        read = files.read_json(written)
        before = read if isinstance(read, dict) else {}
        now = json.loads(hidden(json.dumps(dict(settings), ensure_ascii=False)))
        keys = sorted(key for key in before.keys() | now if before.get(key) != now.get(key))
        if keys:
            yield Foreign(written, f"with other settings ({', '.join(keys)})")
        if "statistics" in keys and _judged_otherwise(before, study):
            for name in {**MECHANISM_TABLES, **TRUST_TABLES}:
                path = aggregates / "tables" / f"{name}.csv"
                if path.is_file() and path not in damaged:
                    yield Foreign(path, "with another level or other margins")


def _judged_otherwise(before: Mapping[str, Any], study: Study) -> bool:
    """Tell whether tables that do not say so were made at another level or with other margins."""
    try:
        then, now = load_study(before).statistics, study.statistics
    except PrunecalError:  # of settings that are no longer valid nothing can be said
        return False
    return (then.level, then.margins) != (now.level, now.margins)


def _of_model(results: Path, study: Study, model: Model) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the files of a model and what their metadata should say."""
    source, run = model.source(), model.run_settings()
    kept = {key: source.get(key) for key in ("family", "repo", "revision", "train")}
    yield results / "models" / model.name / "manifest.json", kept
    if model.text_tower:
        source = model.text_tower.source()
        pinned = {key: source.get(key) for key in ("repo", "revision")}
        yield results / "models" / tower_name(model.name) / "manifest.json", pinned
    studied = cells(study, model)
    for dataset in study.datasets:
        folder = results / model.name / dataset.name
        yield folder / "features.safetensors", run
        for cell in studied:
            ranking = {"family": cell.family, "parameters": dict(cell.parameters)}
            yield folder / cell.strategy / "ranking.safetensors", ranking
            facts = {
                "cell": {"model": model.name, "dataset": dataset.name, **cell.settings()},
                "batch_tokens": study.inference.batch_tokens,
                **run,
            }
            yield (
                folder / cell.strategy / budgets.folder(cell.budget) / "predictions.parquet",
                facts,
            )


def _of_pairs(results: Path, design: Design) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield imported cells and score files, and what their metadata should say."""
    for (model, dataset), entries in design.imported.items():
        for entry in entries:
            cell = imported_cell(entry)
            facts = {
                "cell": {"model": model, "dataset": dataset, **cell.settings()},
                "visual_tokens": entry.visual_tokens,
                "tokens_per_layer": entry.tokens_per_layer,
            }
            folder = results / model / dataset / cell.strategy
            yield folder / budgets.folder(cell.budget) / "predictions.parquet", facts
    statistics = design.study.statistics
    for (model, dataset), listed in design.pair_cells.items():
        scored = {
            "model": model,
            "dataset": dataset,
            "cells": _in_order(cell.settings() for cell in listed),
            "resamples": statistics.resamples,
            "seed": statistics.seed,
            "bins": statistics.bins,
            "outcome_of": design.outcome_of(model, dataset) or None,
        }
        folder = results / design.study.study / SCORES / model
        yield folder / f"{dataset}.safetensors", scored


def _other(path: Path, expected: Mapping[str, Any]) -> str | None:
    """Return the first setting that is not in a file's metadata, if any."""
    try:
        facts = _facts(path)
    except PrunecalError as error:
        return f"{OTHER_FORM}: {error}"
    for key, value in json.loads(files.canonical_json(expected)).items():
        if facts.get(key) != value:
            values = f"{brief(facts.get(key))} instead of {brief(value)}"
            return "from other cells than the study's" if key == "cells" else f"with {key} {values}"
    return None


def _facts(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        return files.read_object(path)
    if path.suffix == ".parquet":
        return files.read_facts(path)
    facts = dict(open_arrays(path).facts)
    if "cells" in facts:  # a score file, which says more of each
        keys = ("strategy", "family", "parameters", "budget")
        facts["cells"] = _in_order({key: cell.get(key) for key in keys} for cell in facts["cells"])
        facts["resamples"] = max(facts["resamples"].values(), default=0)
    return facts


def _in_order(settings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(settings, key=files.canonical_json)
