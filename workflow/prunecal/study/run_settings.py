"""The blocks `inference:`, `statistics:` and `expect:` of config.yaml.

Light on purpose (pydantic only): the Snakefile imports it on every start.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from prunecal.core.errors import brief
from prunecal.core.parameters import Parameters
from prunecal.study.fields import budget_form

SLURM_KEYS = ("slurm_partition", "gpu_model", "slurm_extra")  # keys of `inference:` for SLURM alone
OPTION = r"--[a-z][a-z-]*(=[\w.,:@%+/-]+)?"  # of sbatch


def _fits(pattern: str, example: str) -> AfterValidator:
    """Refuse what is more than the wanted words of a scheduler's command line."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{brief(value)} does not fit; give for example {example}")
        return value

    return AfterValidator(check)


class Inference(Parameters):
    """How the GPU work is cut and run. Nothing here changes which tokens are kept."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU if there is one, and must have one if jobs request it"
    )
    threads: int = Field(
        1,
        ge=1,
        le=1024,
        description="CPU threads of a job; fixed, so that results do not depend on cores",
    )
    batch_tokens: int = Field(
        4096,
        ge=1,
        le=10**9,
        description="tokens per micro-batch; halved with a warning if memory runs out",
    )
    cells_per_job: int = Field(
        32,
        ge=1,
        le=10**6,
        description="cells that share a process, and so one start-up and one model load",
    )
    gpus_per_job: int = Field(0, ge=0, le=1024, description="GPUs that a job requests")
    mem_mb: int | None = Field(
        None,
        ge=500,
        le=10**9,
        description="MB that a job requests at first; if not given, as the model needs",
    )
    runtime: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="minutes that a job requests at first; if not given, as model and data need",
    )
    slurm_partition: Annotated[str, _fits(r"[\w.,-]+", "gpu")] | None = Field(
        None, description="SLURM: partition of the jobs that run a model"
    )
    gpu_model: Annotated[str, _fits(r"[\w.]+", "h200")] | None = Field(
        None, description="SLURM: model of their GPUs, as the cluster names it"
    )
    slurm_extra: Annotated[str, _fits(f"{OPTION}( {OPTION})*", "--exclude=node7")] | None = Field(
        None, description="SLURM: further options of sbatch for these jobs"
    )

    @property
    def job_device(self) -> str:
        """What jobs are told: a GPU that they request is never replaced by the CPU."""
        return "cuda" if self.device == "auto" and self.gpus_per_job else self.device

    @model_validator(mode="after")
    def _model_of_a_gpu(self) -> "Inference":
        if self.gpu_model and not self.gpus_per_job:
            raise ValueError("gpu_model names a GPU, but no job requests one; set gpus_per_job: 1")
        return self


class Margins(Parameters):
    """By how much a pruned model may be worse than the unpruned one and still be called no worse.

    A judgement about the model's use, to be made before the results are seen.
    """

    accuracy: float = Field(
        0.02, gt=0, lt=1, description="by how much accuracy may be lower, 0.02 for two points"
    )
    ece: float = Field(0.02, gt=0, lt=1, description="by how much debiased ECE may be higher")


class Expected(Parameters):
    """A published value of an unpruned model, which the report sets beside the measured one."""

    model: str = Field(description="name of one of the models")
    dataset: str = Field(description="name of one of the data sets")
    subset: str = Field("all", description="part of the data set")
    metric: str = Field(description="key of the metric, as in metrics.csv")
    value: float = Field(ge=-1e9, le=1e9, description="the published value")
    tolerance: float = Field(
        ge=0, le=1e9, description="largest difference at which they are said to agree"
    )
    source: str = Field(description="where it is published")


class Outcome(Parameters):
    """A pruned cell by whose answers questions are split into those it gets right and wrong.

    As arXiv 2510.07143 does with images reduced in size, to tell questions that need little of the
    image from those that need more; that study keeps only questions that the unpruned model gets
    right, here all stay.
    """

    strategy: str = Field(description="the strategy's name in paths, such as pool")
    budget: Annotated[int | str, BeforeValidator(budget_form)] = Field(
        description="one of the study's budgets"
    )


class Statistics(Parameters):
    """The image-clustered bootstrap, the calibration bins, and the margins of "no worse"."""

    resamples: int = Field(2000, ge=100, le=1_000_000, description="bootstrap resamples of images")
    level: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the resamples and of recalibration folds"
    )
    bins: int = Field(15, ge=2, le=1000, description="equal-width confidence bins of ECE")
    margins: Margins = Field(
        Margins(), description='by how much a pruned model may be worse and still be "no worse"'
    )
    outcome_of: Outcome | None = Field(
        None,
        description="add two subsets: the questions that this cell gets right and wrong; "
        "chosen by outcome, so that nothing is tested on them",
    )
