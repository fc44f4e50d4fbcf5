# Shared by all rules: the checked study, its jobs, and the paths of its files.

import json
import re
import sys
from os.path import relpath
from pathlib import Path

WORKFLOW = Path(workflow.basedir, "workflow")
sys.path[:0] = [str(WORKFLOW), str(Path(workflow.basedir, "rules"))]
# jobs run this Python and this checkout's code, whatever is activated or installed elsewhere
shell.prefix(
    f"export PATH='{Path(sys.executable).parent}':$PATH PYTHONPATH='{WORKFLOW}'; "
)

from prunecal.study import resources
from prunecal.study.cells import cells, load_study
from prunecal.caching.fingerprint import code_record
from prunecal.caching.records import missing_record, unrecorded
from prunecal.core.errors import PrunecalError
from prunecal.core.plugins import load, module_name
from prunecal.storage.digest_cache import NAME as DIGESTS, digest_of_all
from slurm_polling import bound_waits

bound_waits()  # of the SLURM plugin
COMPARED = config.pop("studies", [])  # see studies.smk; no setting of this study
try:
    STUDY = load_study(config)
except PrunecalError as error:
    raise WorkflowError(error) from None

RESULTS = "results"
AGGREGATES = f"{RESULTS}/{STUDY.study}" if STUDY.study else RESULTS
REPORT = f"reports/{STUDY.study or 'report'}.html"
CELL_STORE = f"{RESULTS}/.cells"
# priority of jobs on the longest way to the report; the others fill free cores
FIRST = 1

MODELS = {model.name: model for model in STUDY.models}
DATASETS = {dataset.name: dataset for dataset in STUDY.datasets}
CELLS = {name: cells(STUDY, model) for name, model in MODELS.items()}
STRATEGIES = {cell.strategy: cell for found in CELLS.values() for cell in found}
RANKED = {
    name: cell for name, cell in STRATEGIES.items() if cell.prunes == "before_llm"
}
PAIRS = [(model, dataset) for model in MODELS for dataset in DATASETS]


def one_of(names):
    """Return a pattern that matches these names alone."""
    return "|".join(sorted(map(re.escape, names))) or "(?!)"  # no name: matches nothing


TRAINED = [name for name, model in MODELS.items() if model.train]

WILDCARDS = {
    "model": one_of(MODELS),
    "dataset": one_of(DATASETS),
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
    return [
        f"{RESULTS}/{model}/{dataset}/{name}/ranking.safetensors"
        for name in dict.fromkeys(cell.strategy for cell in found)
        if name in RANKED
    ]


def every_cell():
    """List all predictions of the study."""
    return [path for pair in PAIRS for path in predictions(*pair)]


def every_provenance():
    """List what accompanies the predictions."""
    return [str(Path(path).with_name("provenance.json")) for path in every_cell()]


def every_ranking():
    """List all rankings of the study."""
    return [path for pair in PAIRS for path in rankings(*pair)]


def every_source():
    """List what cells are made from: models, data sets, visual tokens."""
    return [
        *(f"{RESULTS}/models/{model}/manifest.json" for model in MODELS),
        *(
            f"{RESULTS}/models/{model}/weights/{name}"
            for model in TRAINED
            for name in ("model.safetensors", "learning_curve.csv")
        ),
        *(
            f"{RESULTS}/datasets/{dataset}/{name}.parquet"
            for dataset in DATASETS
            for name in ("questions", "images")
        ),
        *(
            f"{RESULTS}/{model}/{dataset}/features.safetensors"
            for model, dataset in PAIRS
        ),
    ]


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
    return json.dumps(MODELS[name].source(), sort_keys=True)


def model_settings(name):
    """Return how a model is run, as JSON for a stage."""
    return json.dumps(MODELS[name].run_settings(), sort_keys=True)


def weights(name):
    """List the weights of a model that the workflow trains; others lie elsewhere."""
    return (
        [f"{RESULTS}/models/{name}/weights/model.safetensors"]
        if MODELS[name].train
        else []
    )


def every_table():
    """List the study's numbers, in the order in which they are made."""
    scores = [
        f"{AGGREGATES}/scores/{model}/{dataset}.safetensors" for model, dataset in PAIRS
    ]
    tables = ("metrics", "comparisons")
    named = [f"{name}.{kind}" for name in tables for kind in ("parquet", "csv")]
    named += ["study.json", "detectable.csv", "claims.json"]
    return [*scores, *(f"{AGGREGATES}/{name}" for name in named)]


def local_files(paths):
    """List the files at local paths, folders expanded, hidden files left out.

    A missing path is left to the stage, which says better than Snakemake what to do about it.
    """
    found = []
    for path in (Path(one).expanduser() for one in paths):
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [
            str(file)
            for file in inside
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    return found


def model_files(name):
    """List the files of a model that lies in a local folder."""
    return local_files([MODELS[name].path] if MODELS[name].path else [])


def dataset_files(name):
    """List the local files that a data set's settings name."""
    loader, given = DATASETS[name].loader, DATASETS[name].model_extra
    values = load("datasets", loader).Params(**given).model_dump().values()
    flat = [
        one
        for value in values
        for one in (value if isinstance(value, list) else [value])
    ]
    return local_files(one for one in flat if isinstance(one, Path))


def family_module(name):
    """Return the module that runs a model."""
    return module_name("models", MODELS[name].family)


def growing(amount):
    """Return a resource that grows with each attempt of a job."""
    return lambda wildcards, attempt: amount * attempt


def memory(wildcards, input, attempt):
    """Return the MB of a job that runs a model: the study's, or what the model needs."""
    return attempt * (STUDY.inference.mem_mb or resources.memory_mb(input.manifest))


def minutes(tokens):
    """Return the minutes of a job that runs a model: the study's, or what the tokens need.

    Args:
        tokens: counts the job's tokens, given its wildcards and input.
    """

    def asked(wildcards, input, attempt):
        run = STUDY.inference
        return attempt * (
            run.runtime
            or resources.minutes(
                input.manifest, tokens(wildcards, input), run.gpus_per_job, run.threads
            )
        )

    return asked


def model_code(name):
    """Fingerprint the code that obtains a model."""
    recipe = (MODELS[name].train or {}).get("recipe")
    modules = [module_name("recipes", recipe)] if recipe else []
    return code_record("prunecal.model", *modules)


def infer_code(model, chosen):
    """Fingerprint the code that infers these cells."""
    families = sorted({cell.family for cell in chosen})
    strategies = [module_name("strategies", name) for name in families]
    return code_record("prunecal.infer", family_module(model), *strategies)


def unpruned():
    """List the predictions of the unpruned models."""
    return [
        f"{RESULTS}/{model}/{dataset}/full/{MODELS[model].visual_tokens}/predictions.parquet"
        for model, dataset in PAIRS
    ]


def study_folder(name):
    """Return a study's folder: a path, or the name of a study below results."""
    given, named = Path(name), Path(RESULTS, name)
    return given if (given / "study.json").is_file() else named
