"""Stage `check`: what a study needs of this machine, and what is here. Downloads nothing."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prunecal.core import cli, versions
from prunecal.core.errors import PrunecalError
from prunecal.core.host import main_memory
from prunecal.core.redaction import expanded
from prunecal.engine import device
from prunecal.models import check_model
from prunecal.sources import hub, model_folder, text_tower
from prunecal.study import quantization, resources
from prunecal.study.cells import load_study
from prunecal.study.design import Design
from prunecal.study.local_files import local_files, named_paths
from prunecal.study.model_settings import tower_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prunecal.sources.hub import Kind
    from prunecal.study.data_settings import Dataset
    from prunecal.study.model_settings import Model, TextTower
    from prunecal.study.settings import Study

GIGABYTE = 1e9
LIBRARIES = ("torch", "transformers", "huggingface_hub", "snakemake")


class Need(NamedTuple):
    """One line: what is needed, what is here, and the fault if that is too little."""

    what: str
    needed: str
    here: str
    fault: str | None = None


class Source(NamedTuple):
    """Where a model or data set comes from, its bytes, and how many of them are not here yet."""

    place: str
    size: int
    missing: int
    fault: str | None = None


def main(arguments: argparse.Namespace) -> None:
    """Print what the study needs and what is here.

    Raises:
        PrunecalError: something is missing; names all that is.
    """
    study = load_study(json.loads(arguments.settings))
    towers = {
        tower_name(model.name): model.text_tower
        for model in study.models
        if model.text_tower and Design(study).text_signals
    }
    searches = [
        *(partial(_model, model) for model in study.models),
        *(partial(_dataset, dataset) for dataset in study.datasets),
        *(partial(_text_tower, tower) for tower in towers.values()),
    ]
    with ThreadPoolExecutor() as pool:  # without a network each waits for its time-out
        sources = list(pool.map(_found, searches))
    models = {model.name: sources.pop(0) for model in study.models}
    sets = {dataset.name: sources.pop(0) for dataset in study.datasets}
    texts = {name: sources.pop(0) for name in towers}
    needs = [
        *(_need(f"model {name}", source) for name, source in models.items()),
        *(_need(f"text tower {name}", source) for name, source in texts.items()),
        *(_need(f"data set {name}", source) for name, source in sets.items()),
        *_libraries(study),
        *_machine(study, models | texts, sets, arguments.results),
    ]
    width = max(len(need.what) for need in needs)
    for need in needs:
        mark = "MISSING" if need.fault else "ok"
        needed = f"needs {need.needed}; " if need.needed else ""
        cli.log.info("%-7s  %-*s  %shere: %s", mark, width, need.what, needed, need.here)
    if faults := dict.fromkeys(need.fault for need in needs if need.fault):
        raise PrunecalError("; ".join(faults))
    cli.log.info("everything that the study needs is here or can be downloaded")


def _libraries(study: Study) -> Iterator[Need]:
    for model in study.models:
        settings = model.run_settings()
        if library := quantization.library(settings):
            fault = quantization.missing(settings)
            here = "nothing" if fault else f"{library} {versions.installed(library)}"
            yield Need(f"quantization of {model.name}", library, here, fault or None)


def _found(find: Callable[[], Source]) -> Source:
    """Return a source, or one that holds why there is none."""
    try:
        return find()
    except PrunecalError as error:
        return Source("nothing", 0, 0, str(error))


def _need(what: str, source: Source) -> Need:
    size = f"{source.size / GIGABYTE:.1f} GB" if source.size else ""
    return Need(what, size, source.place, source.fault)


def _model(model: Model) -> Source:
    if model.repo is not None and model.revision is not None:
        parts = {"configuration": ("config.json",), **model_folder.REQUIRED}
        return _on_the_hub(model.repo, model.revision, "model", model_folder.PATTERNS, parts)
    if model.path is None:
        return Source("trained by the workflow", 0, 0)
    folder = expanded(Path(model.path))
    model_folder.check(folder, model.family)
    check_model(model.family, folder, model.run_settings())
    size = sum(path.stat().st_size for path in folder.glob(model_folder.WEIGHTS))
    return Source(f"{folder}, whose files fit", size, 0)


def _text_tower(tower: TextTower) -> Source:
    if tower.repo is not None and tower.revision is not None:
        patterns = [*model_folder.DESCRIPTION, *text_tower.WEIGHTS.values()]
        return _on_the_hub(tower.repo, tower.revision, "model", patterns, text_tower.PARTS)
    folder = expanded(Path(str(tower.path)))
    described = text_tower.describe(folder, {}, lambda _: "")  # no checksums: only what it lacks
    return Source(f"{folder}, whose files fit", sum(one["size"] for one in described["files"]), 0)


def _dataset(dataset: Dataset) -> Source:
    params = dataset.params()
    if params.get("repo"):
        return _on_the_hub(params["repo"], params["revision"], "dataset", [params["files"]])
    paths = named_paths(dataset)
    for path in paths:
        if not path.exists():
            raise PrunecalError(f"{path} is missing; put the data set {dataset.name} there")
    size = sum(Path(file).stat().st_size for file in local_files(paths))
    return Source(", ".join(map(str, paths)) or "made by the workflow", size, 0)


def _on_the_hub(
    repo: str,
    revision: str,
    kind: Kind,
    patterns: list[str],
    parts: Mapping[str, tuple[str, ...]] | None = None,
) -> Source:
    """Look a repository up in the cache, and if it is not there whole, on the Hub.

    Args:
        repo: its name.
        revision: a commit.
        kind: model or data set.
        patterns: of the files that are used.
        parts: what it must have, each a file of one of some names.

    Raises:
        PrunecalError: it is in neither, or the Hub's lacks a part.
    """
    try:
        sizes = hub.cached_sizes(repo, revision, kind, patterns)
        return Source("in the Hub's cache", sum(sizes.values()), 0)
    except PrunecalError as error:
        if hub.is_offline():
            raise
        cli.log.debug("%s", error)
    sizes = hub.sizes(repo, revision, kind, patterns)
    if not sizes:
        raise PrunecalError(f"{repo} has no file that fits {patterns}; correct its settings")
    for part, names in (parts or {}).items():
        if not sizes.keys() & set(names):
            raise PrunecalError(
                f"{repo} at revision {revision} has no {part} ({' or '.join(names)}); correct "
                "`repo:` and `revision:`"
            )
    size = sum(sizes.values())
    return Source(f"on the Hub, in {len(sizes)} files", size, size)


def _machine(
    study: Study, models: Mapping[str, Source], sets: Mapping[str, Source], results: Path
) -> Iterator[Need]:
    """Yield what jobs need of the machine on which this runs."""
    numbers = ", ".join(f"{name} {versions.installed(name)}" for name in LIBRARIES)
    yield Need("versions", "", f"Python {platform.python_version()}, {numbers}")
    weights = max(
        resources.loaded_bytes(models[model.name].size, model.dtype) for model in study.models
    )
    on_gpu = study.inference.job_device == "cuda"
    if study.inference.job_device != "cpu":
        yield _gpu(weights, required=on_gpu)
    start = resources.GPU_START_MB if on_gpu else resources.START_MB
    yield _memory(start * resources.MEGABYTE + (0 if on_gpu else weights))
    every = [*models.values(), *sets.values()]
    download = sum(source.missing for source in every)
    if download:
        yield _disk("disk of the Hub's cache", hub.cache_folder(), download)
    yield _disk("disk of the results", results, sum(source.size for source in sets.values()))


def _gpu(weights: float, *, required: bool) -> Need:
    needed = weights * resources.WITH_ACTIVATIONS
    text = f"{needed / GIGABYTE:.0f} GB" if needed > GIGABYTE / 2 else ""
    reason = device.why_no_gpu()
    if reason is not None:
        fault = f"the study asks for a GPU, but {reason}" if required else None
        return Need("GPU", text, f"none, because {reason}", fault)
    memory = max(device.all_gpu_memory(), key=lambda one: one.free)
    here = f"{memory.free / GIGABYTE:.0f} of {memory.total / GIGABYTE:.0f} GB free"
    fault = None
    if needed > memory.free:
        fault = f"the study needs a GPU with {text}, but the one with most has {here}"
    return Need("GPU", text, here, fault)


def _memory(needed: float) -> Need:
    memory = main_memory()
    text = f"{needed / GIGABYTE:.0f} GB"
    if memory is None:
        return Need("main memory", text, "unknown")
    here = f"{memory.free / GIGABYTE:.0f} of {memory.total / GIGABYTE:.0f} GB free"
    fault = f"jobs need {text} of main memory, but {here}" if needed > memory.free else None
    return Need("main memory", text, here, fault)


def _disk(what: str, folder: Path, needed: int) -> Need:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{needed / GIGABYTE:.1f} GB"
    here = f"{free / GIGABYTE:.1f} GB free in {place}"
    fault = None
    if needed > free:
        fault = f"{what} needs {text}, but there are {here}; free some, or set HF_HOME elsewhere"
    elif not os.access(place, os.W_OK):
        fault = f"{place} is not writable; grant yourself permission"
    return Need(what, text, here, fault)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--settings", required=True, help="JSON: the study's settings")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results")
    cli.run(main, parser.parse_args())
