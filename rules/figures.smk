# Figures: each kind draws all its files in one process, from tables and predictions alone.

from prunecal.storage.checksums import file_digest
from prunecal.calibration.catalogue import metric_name

FIGURES = f"{AGGREGATES}/figures"
FIGURE_LOGS = Path("logs", STUDY.study, "figures")
LOOK = file_digest(WORKFLOW / "prunecal" / "figures" / "prunecal.mplstyle")
ASSETS = WORKFLOW / "prunecal" / "report" / "assets"
PAGES = [file_digest(path) for path in sorted(ASSETS.iterdir())]
BUDGET_FIGURES = {  # metric: category
    "accuracy": "1. Headline",
    "ece": "1. Headline",
    "brier": "2. Calibration",
    "aurc": "3. Selective prediction",
}
SWEPT = sorted(
    {
        key
        for one in STRATEGIES.values()
        for other in STRATEGIES.values()
        if one.family == other.family
        for key, value in one.parameters
        if isinstance(value, (int, float)) and key != "seed"
        if dict(other.parameters)[key] != value
    }
)


localrules:
    draw_budget,
    draw_sweep,
    draw_pareto,
    draw_forest,
    draw_reliability,
    draw_risk_coverage,
    draw_kept_tokens,
    draw_learning_curve,


rule draw_budget:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
    output:
        svg=[
            report(
                f"{FIGURES}/budget_{metric}.svg",
                caption="../reports/captions/budget.rst",
                category=category,
                labels={"figure": f"{metric_name(metric)} against budget"},
            )
            for metric, category in BUDGET_FIGURES.items()
        ],
        png=[f"{FIGURES}/budget_{metric}.png" for metric in BUDGET_FIGURES],
    log:
        str(FIGURE_LOGS / "budget.log"),
    conda:
        "../envs/conda.yaml"
    params:
        metrics=list(BUDGET_FIGURES),
        code=code_record("prunecal.figures.budget", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw metrics against the budget"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.budget --metrics {input.metrics} --draw {params.metrics} "
        "--folder {params.folder} --log {log}"


rule draw_sweep:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
    output:
        svg=report(
            f"{FIGURES}/sweep_{{parameter}}.svg",
            caption="../reports/captions/sweep.rst",
            category="4. Strategies",
            labels={"figure": "Sweep of {parameter}"},
        ),
        png=f"{FIGURES}/sweep_{{parameter}}.png",
    log:
        str(FIGURE_LOGS / "sweep_{parameter}.log"),
    wildcard_constraints:
        parameter=one_of(SWEPT),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.figures.sweep", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw the sweep of {wildcards.parameter}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.sweep --metrics {input.metrics} "
        "--parameter {wildcards.parameter} --folder {params.folder} --log {log}"


rule draw_pareto:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
    output:
        svg=report(
            f"{FIGURES}/pareto.svg",
            caption="../reports/captions/pareto.rst",
            category="1. Headline",
            labels={"figure": "Accuracy against ECE"},
        ),
        png=f"{FIGURES}/pareto.png",
    log:
        str(FIGURE_LOGS / "pareto.log"),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.figures.pareto", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw accuracy against ECE"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.pareto --metrics {input.metrics} --folder {params.folder} --log {log}"


rule draw_forest:
    input:
        comparisons=f"{AGGREGATES}/comparisons.parquet",
    output:
        svg=report(
            f"{FIGURES}/forest_ece.svg",
            caption="../reports/captions/forest.rst",
            category="2. Calibration",
            labels={"figure": "Change of ECE from the unpruned model"},
        ),
        png=f"{FIGURES}/forest_ece.png",
    log:
        str(FIGURE_LOGS / "forest.log"),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.figures.forest", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw the differences from the unpruned model"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.forest --comparisons {input.comparisons} --metric ece "
        "--folder {params.folder} --log {log}"


rule draw_reliability:
    input:
        predictions=every_cell(),
    output:
        svg=[
            report(
                f"{FIGURES}/reliability_{model}_{dataset}.svg",
                caption="../reports/captions/reliability.rst",
                category="2. Calibration",
                labels={"figure": f"Reliability, {dataset}, {model}"},
            )
            for model, dataset in PAIRS
        ],
        png=[f"{FIGURES}/reliability_{model}_{dataset}.png" for model, dataset in PAIRS],
    log:
        str(FIGURE_LOGS / "reliability.log"),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.figures.reliability", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw reliability diagrams"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.reliability --predictions {input.predictions} "
        "--folder {params.folder} --log {log}"


rule draw_risk_coverage:
    input:
        predictions=every_cell(),
    output:
        svg=report(
            f"{FIGURES}/risk_coverage.svg",
            caption="../reports/captions/risk_coverage.rst",
            category="3. Selective prediction",
            labels={"figure": "Risk against coverage"},
        ),
        png=f"{FIGURES}/risk_coverage.png",
    log:
        str(FIGURE_LOGS / "risk_coverage.log"),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.figures.risk_coverage", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw risk-coverage curves"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.risk_coverage --predictions {input.predictions} "
        "--folder {params.folder} --log {log}"


rule draw_kept_tokens:
    input:
        manifest=f"{RESULTS}/models/{{model}}/manifest.json",
        rankings=lambda wildcards: rankings(wildcards.model, wildcards.dataset),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
    output:
        svg=report(
            f"{FIGURES}/kept_tokens_{{model}}_{{dataset}}.svg",
            caption="../reports/captions/kept_tokens.rst",
            category="4. Strategies",
            labels={"figure": "Kept tokens, {dataset}, {model}"},
        ),
        png=f"{FIGURES}/kept_tokens_{{model}}_{{dataset}}.png",
    log:
        str(FIGURE_LOGS / "kept_tokens_{model}_{dataset}.log"),
    conda:
        "../envs/conda.yaml"
    params:
        budgets=lambda wildcards: sorted(
            {cell.budget for cell in CELLS[wildcards.model] if cell.family != "full"}
        ),
        image=lambda wildcards: MODELS[wildcards.model].image,
        code=code_record("prunecal.figures.kept_tokens", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw which tokens of {wildcards.dataset} each strategy keeps"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.kept_tokens --rankings {input.rankings} "
        "--budgets {params.budgets} --images {input.images} --image-mode {params.image} "
        "--manifest {input.manifest} "
        "--model {wildcards.model} --dataset {wildcards.dataset} --folder {params.folder} --log {log}"


rule draw_learning_curve:
    input:
        curve=f"{RESULTS}/models/{{model}}/weights/learning_curve.csv",
    output:
        svg=report(
            f"{FIGURES}/learning_curve_{{model}}.svg",
            caption="../reports/captions/learning_curve.rst",
            category="5. Model",
            labels={"figure": "Learning curve, {model}"},
        ),
        png=f"{FIGURES}/learning_curve_{{model}}.png",
    log:
        str(FIGURE_LOGS / "learning_curve_{model}.log"),
    wildcard_constraints:
        model=one_of(TRAINED),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.figures.learning_curve", page=True),
        look=LOOK,
        folder=subpath(output[0], parent=True),
    message:
        "Draw how {wildcards.model} learned"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.learning_curve --curve {input.curve} "
        "--model {wildcards.model} --folder {params.folder} --log {log}"
