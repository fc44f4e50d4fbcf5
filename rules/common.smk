# What the rule files share: the checked study, its jobs, and the paths of its files.

import json
import re
import sys
from pathlib import Path

WORKFLOW = Path(workflow.basedir, "workflow")
sys.path.insert(0, str(WORKFLOW))
# jobs run this Python and this checkout's code, whatever is activated or installed elsewhere
shell.prefix(f"export PATH='{Path(sys.executable).parent}':$PATH PYTHONPATH='{WORKFLOW}'; ")

from prunecal.config import cells, load_study
from prunecal.digest import source_digest
from prunecal.errors import PrunecalError
from prunecal.plugins import load, module_name

try:
    STUDY = load_study(config)
except PrunecalError as error:
    raise WorkflowError(error) from None

RESULTS = "results"
AGGREGATES = f"{RESULTS}/{STUDY.study}" if STUDY.study else RESULTS
REPORT = f"reports/{STUDY.study or 'report'}.html"
CELL_STORE = f"{RESULTS}/.cells"

MODELS = {model.name: model for model in STUDY.models}
DATASETS = {dataset.name: dataset for dataset in STUDY.datasets}
CELLS = {name: cells(STUDY, model) for name, model in MODELS.items()}
STRATEGIES = {cell.strategy: cell for found in CELLS.values() for cell in found}
PAIRS = [(model, dataset) for model in MODELS for dataset in DATASETS]


def one_of(names):
    """Return a pattern that matches these names alone."""
    return "|".join(sorted(map(re.escape, names))) or "(?!)"  # no name: matches nothing


TRAINED = [name for name, model in MODELS.items() if model.train]

WILDCARDS = {
    "model": one_of(MODELS),
    "dataset": one_of(DATASETS),
    "strategy": one_of(STRATEGIES),
}


def predictions(model, dataset):
    """List the predictions of all cells of a model on a data set."""
    return [
        f"{RESULTS}/{model}/{dataset}/{cell.strategy}/{cell.budget}/predictions.parquet"
        for cell in CELLS[model]
    ]


def rankings(model, dataset, chosen=None):
    """List the rankings of the strategies that rank vision features."""
    found = CELLS[model] if chosen is None else chosen
    ranked = dict.fromkeys(cell.strategy for cell in found if cell.place == "vision")
    return [f"{RESULTS}/{model}/{dataset}/{name}/ranking.safetensors" for name in ranked]


def every_cell():
    """List all predictions of the study."""
    return [path for pair in PAIRS for path in predictions(*pair)]


def every_ranking():
    """List all rankings of the study."""
    return [path for pair in PAIRS for path in rankings(*pair)]


def infer_jobs(model):
    """Cut a model's cells into jobs of whole strategies, about `cells_per_job` cells each.

    Whole strategies, in the config's order: a new budget adds cells to every job, but a new
    strategy at the end leaves the jobs before it as they are.
    """
    by_strategy = {}
    for cell in CELLS[model]:
        by_strategy.setdefault(cell.strategy, []).append(cell)
    jobs = [[]]
    for found in by_strategy.values():
        if jobs[-1] and len(jobs[-1]) + len(found) > STUDY.inference.cells_per_job:
            jobs.append([])
        jobs[-1] += found
    return jobs


def model_source(name):
    """Return where a model's weights come from, as JSON for a stage."""
    return json.dumps(MODELS[name].source())


def model_settings(name):
    """Return how a model is run, as JSON for a stage."""
    return json.dumps(MODELS[name].run_settings())


def weights(name):
    """List the weights of a model that the workflow trains; others lie elsewhere."""
    return [f"{RESULTS}/models/{name}/weights/model.safetensors"] if MODELS[name].train else []


def family_module(name):
    """Return the module that runs a model."""
    return module_name("models", MODELS[name].family)


def growing(amount):
    """Return a resource that grows with each attempt of a job."""
    return lambda wildcards, attempt: amount * attempt


def model_code(name):
    """Fingerprint the code that obtains a model."""
    recipe = (MODELS[name].train or {}).get("recipe")
    modules = [module_name("recipes", recipe)] if recipe else []
    return source_digest("prunecal.model", *modules)


def infer_code(model, chosen):
    """Fingerprint the code that infers these cells."""
    inside = {cell.family for cell in chosen if cell.place == "decoder"}
    modules = [module_name("strategies", name) for name in sorted(inside)]
    return source_digest("prunecal.infer", family_module(model), *modules)
