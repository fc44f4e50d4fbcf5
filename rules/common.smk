# Shared by all rules: the checked study, where its files lie, and what depends on Snakemake.

import json
import re
import shlex
import sys
from os.path import relpath
from pathlib import Path

CHECKOUT = Path(relpath(workflow.basedir))  # "." unless --directory points elsewhere
CODE = Path(workflow.basedir, "workflow")
sys.path[:0] = [str(CODE), str(Path(workflow.basedir, "rules"))]

import prunecal
from prunecal.caching.fingerprint import code_record, remember
from prunecal.caching.lineage import strategy_module, template_entry
from prunecal.caching.records import missing_record, unrecorded
from prunecal.calibration.catalogue import refuse_unknown
from prunecal.core.errors import PrunecalError, counted
from prunecal.core.plugins import load as load_plugin, module_name
from prunecal.core.redaction import expanded
from prunecal.core.yaml_keys import refuse_repeated_keys, refuse_repeated_settings
from prunecal.sources import model_folder
from prunecal.storage.checksums import file_digest
from prunecal.storage.digest_cache import NAME as DIGESTS, digest_of_all
from prunecal.study import budgets, resources
from prunecal.study import report_items as items
from prunecal.study.cells import imported_cell, load_study
from prunecal.study.design import Design
from prunecal.study.local_files import local_files, named_paths
from prunecal.study.paths import (
    BENCHMARK,
    CELL_STORE,
    RANKING_STORE,
    RESULTS,
    Paths,
    study_folder,
)
from prunecal.study.quantization import missing
from prunecal.study.model_settings import tower_name

import gpu
import job_environment
import run_lock
import slurm_polling
from long_arguments import printing, words

if not Path(prunecal.__file__).is_relative_to(CODE):
    raise WorkflowError(
        f"this process holds the prunecal of {Path(prunecal.__file__).parent}, not that of "
        f"{CODE}; start snakemake in a process of its own"
    )
slurm_polling.bound_waits()

# With --sdm apptainer jobs run the Python of this image, else the one that runs Snakemake.
CONTAINER = str(CHECKOUT / "envs" / "prunecal.sif")
IN_CONTAINER = "apptainer" in map(str, workflow.deployment_settings.deployment_method)
try:
    shell.prefix(
        job_environment.prefix(
            str(CHECKOUT / "workflow"),
            None if IN_CONTAINER else str(Path(sys.executable).parent),
        )
    )
    if workflow.is_main_process:
        for path in (CHECKOUT / "config.yaml", *workflow.config_settings.configfiles):
            refuse_repeated_keys(Path(path))
        refuse_repeated_settings(workflow.config_settings.config_args or ())
    STUDY = load_study(config)
    refuse_unknown(value.metric for value in STUDY.expect)
except (PrunecalError, ValueError) as error:
    raise WorkflowError(error) from None

remember(Path(".snakemake", "code-digests.json"))
DESIGN = Design(STUDY)
PATHS = Paths(DESIGN)
AGGREGATES, FIGURES, TABLES = PATHS.aggregates, PATHS.figures, PATHS.tables
LOGS = PATHS.logs  # of jobs of this study alone
# priority of jobs on the longest way to the report; the others fill free cores
ON_LONGEST_PATH = 1
# above it the cells of each pair, the first in the config highest, and above all of them scores
# that are ready: a data set that takes long and comes last would be scored on one core while the
# others are idle
PRIORITY_OF_PAIR = {
    pair: ON_LONGEST_PATH + place
    for place, pair in enumerate(reversed(DESIGN.computed_pairs), 1)
}
PRIORITY_OF_SCORES = ON_LONGEST_PATH + len(PRIORITY_OF_PAIR) + 1
# what figures and pages look like
STYLE = file_digest(CODE / "prunecal" / "figures" / "prunecal.mplstyle")
ASSETS = CODE / "prunecal" / "report" / "assets"
PAGES = [file_digest(path) for path in sorted(ASSETS.iterdir())]


def one_of(names):
    """Return a pattern that matches these names alone."""
    return "|".join(sorted(map(re.escape, names))) or "(?!)"  # no name: matches nothing


def study_settings(wildcards):
    """Return the study's settings as a job's argument; a function, so that braces in them stay."""
    return words([json.dumps(dict(config), sort_keys=True)])


def every_prediction(wildcards):
    """Return the paths of all predictions as a job's arguments.

    Jobs that read them all have the score files as inputs, which hold a digest of the predictions:
    thousands of inputs of every such job would make planning slow.
    """
    return words(PATHS.every_prediction())


def same_study(wildcards):
    """Return the command that finds this study again, less its target."""
    given = workflow.config_settings  # on the command line
    words = ["snakemake"]
    if given.configfiles:
        words += ["--configfile", *map(relpath, given.configfiles)]
    if given.config_args:
        words += ["--config", *given.config_args]
    return shlex.join([*words, "--cores", "1"])


def model_source(name):
    """Return where a model's weights come from, as JSON for a stage."""
    return json.dumps(DESIGN.models[name].source(), sort_keys=True)


def tower_source(name):
    """Return where a model's text tower comes from, as JSON for a stage."""
    return json.dumps(DESIGN.models[name].text_tower.source(), sort_keys=True)


def tower_files(name):
    """List the files of a text tower that lies in a local folder."""
    tower = DESIGN.models[name].text_tower
    return local_inputs([tower.path] if tower and tower.path else [])


def model_settings(name):
    """Return how a model is run, as JSON for a stage."""
    return json.dumps(DESIGN.models[name].run_settings(), sort_keys=True)


def stated_layers(name):
    """Return the option by which a decoder is compared with the layers that the study states."""
    layers = DESIGN.models[name].layers
    return "" if layers is None else f" --layers {layers}"


def family_module(name):
    """Return the module that runs a model."""
    return module_name("models", DESIGN.models[name].family)


def code_of_model(stage, name, *modules):
    """Fingerprint the code by which a stage uses a model."""
    template = template_entry(DESIGN.models[name].template)
    return code_record(stage, family_module(name), template, *modules)


def model_code(name):
    """Fingerprint the code that obtains a model."""
    recipe = (DESIGN.models[name].train or {}).get("recipe")
    if recipe is None:
        return code_of_model("prunecal.model", name)
    templates = getattr(load_plugin("recipes", recipe), "TEMPLATES", None)
    if templates is None:  # it may use any
        return code_record(
            "prunecal.model", family_module(name), module_name("recipes", recipe)
        )
    used = map(template_entry, templates)
    return code_of_model("prunecal.model", name, module_name("recipes", recipe), *used)


def infer_code(model, cells):
    """Fingerprint the code that infers these cells."""
    strategies = sorted({strategy_module(cell.family) for cell in cells})
    return code_of_model("prunecal.infer", model, *strategies)


def model_files(name):
    """List the files of a model that lies in a local folder."""
    path = DESIGN.models[name].path
    return local_inputs([path] if path else [])


def model_contents(name):
    """Fingerprint a model that lies in a local folder, unless the stage will refuse it unread."""
    path = DESIGN.models[name].path
    if path and model_folder.lacking(expanded(Path(path))):
        return "incomplete"  # 14 GB are not hashed for that
    return digest_of_all(model_files(name), Path(RESULTS, "models", name, DIGESTS))


def dataset_files(name):
    """List the local files that a data set's settings name."""
    return local_inputs(named_paths(DESIGN.datasets[name]))


def local_inputs(paths):
    """List the files at local paths, or say in one sentence why they cannot be inputs."""
    try:
        return local_files(paths)
    except PrunecalError as error:
        # at once: Snakemake would add where it called this function
        sys.exit(f"PrunecalError: {error}")


def report_files(wildcards):
    """List what the report shows, figures also as PNG; the benchmark once it was measured here."""
    files = items.report_items(PATHS)
    if Path(BENCHMARK, "benchmark.json").exists():
        files += [f"{BENCHMARK}/speed.{kind}" for kind in ("svg", "csv", "tex")]
    return files + items.png_twins(files)


def lock_results():
    """Refuse a second run in a results folder that clones share."""
    try:
        run_lock.lock(Path(RESULTS))
    except BlockingIOError:
        raise WorkflowError(
            f"{Path(RESULTS).resolve()} is in use by another run of snakemake, in a clone that "
            "shares it; wait for its end and run snakemake again"
        ) from None


def refuse_without_gpu():
    """Stop before the first download if jobs on this machine want a GPU and there is none."""
    stages = {job.rule.name.partition("_")[0] for job in workflow.dag.needrun_jobs()}
    here = workflow.local_exec and not workflow.touch and not IN_CONTAINER
    if here and stages & {"encode", "infer"} and STUDY.inference.job_device == "cuda":
        if reason := gpu.why_none(str(CODE)):
            raise WorkflowError(
                f"the study asks for a GPU (inference.device or gpus_per_job), but {reason}, or "
                "set `inference: {device: cpu}`"
            )


def refuse_without_library():
    """Stop before the first job on this machine if a library that quantizes a model is missing."""
    if workflow.local_exec and not workflow.touch and not IN_CONTAINER:
        for model in STUDY.models:
            if fault := missing(model.run_settings()):
                raise WorkflowError(fault)


onstart:
    if workflow.execution_settings.lock:  # not with --nolock
        lock_results()
    if workflow.is_main_process:
        refuse_without_gpu()
        refuse_without_library()


if workflow.is_main_process:
    unrecorded_results = unrecorded([*PATHS.every_result(), *report_files(None)])
    if unrecorded_results:
        logger.warning(missing_record(unrecorded_results, same_study(None)))


def name_results(jobs, asked):
    """Print what these targets made: the files asked for, else pages, of `all` the report."""
    named = {}  # once each: --forcerun html_report asks for the report beside `all`
    for job in jobs:
        made = (
            sorted(asked.intersection(job.output))
            or job.output
            or sorted({PATHS.report}.intersection(job.input))
        )
        pages = [path for path in made if path.endswith(".html")]
        named |= dict.fromkeys(pages or made)
    for path in named:
        what = "Report" if path == PATHS.report else "Result"
        print(f"{what}: {Path(path).resolve()}", file=sys.stderr)
