# Figures: each kind draws all its files in one process, from tables and predictions alone.

from prunecal.calibration.catalogue import metric_name


localrules:
    draw_budget,
    draw_pareto,
    draw_cost,
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
            for metric, category in items.BUDGET_FIGURES.items()
        ],
        png=[f"{FIGURES}/budget_{metric}.png" for metric in items.BUDGET_FIGURES],
    log:
        f"{LOGS}/figures/budget.log",
    params:
        metrics=list(items.BUDGET_FIGURES),
        code=code_record("prunecal.figures.budget", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw metrics against the budget"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.budget --metrics {input.metrics} --draw {params.metrics} "
        "--folder {params.folder} --log {log}"


SWEPT = DESIGN.swept_parameters()

if SWEPT:

    rule draw_sweep:
        input:
            metrics=f"{AGGREGATES}/metrics.parquet",
        output:
            svg=[
                report(
                    f"{FIGURES}/sweep_{parameter}.svg",
                    caption="../reports/captions/sweep.rst",
                    category=items.STRATEGIES,
                    labels={"figure": f"Sweep of {parameter}"},
                )
                for parameter in SWEPT
            ],
            png=[f"{FIGURES}/sweep_{parameter}.png" for parameter in SWEPT],
        log:
            f"{LOGS}/figures/sweep.log",
        localrule: True
        params:
            parameters=SWEPT,
            code=code_record("prunecal.figures.sweep", page=True),
            look=STYLE,
            folder=subpath(output[0], parent=True),
        message:
            "Draw the sweeps of parameters"
        shell:
            "PRUNECAL_CODE={params.code:q} "
            "python -m prunecal.figures.sweep --metrics {input.metrics} "
            "--parameters {params.parameters} --folder {params.folder} --log {log}"


rule draw_pareto:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
    output:
        svg=report(
            f"{FIGURES}/pareto.svg",
            caption="../reports/captions/pareto.rst",
            category=items.HEADLINE,
            labels={"figure": "Accuracy against ECE"},
        ),
        png=f"{FIGURES}/pareto.png",
    log:
        f"{LOGS}/figures/pareto.log",
    params:
        code=code_record("prunecal.figures.pareto", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw accuracy against ECE"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.pareto --metrics {input.metrics} --folder {params.folder} --log {log}"


rule draw_cost:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
        provenance=f"{AGGREGATES}/provenance.csv",
    output:
        svg=report(
            f"{FIGURES}/cost.svg",
            caption="../reports/captions/cost.rst",
            category=items.HEADLINE,
            labels={"figure": "Accuracy and ECE against computation"},
        ),
        png=f"{FIGURES}/cost.png",
    log:
        f"{LOGS}/figures/cost.log",
    params:
        code=code_record("prunecal.figures.cost", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw accuracy and ECE against computation"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.cost --metrics {input.metrics} "
        "--provenance {input.provenance} --folder {params.folder} --log {log}"


rule draw_forest:
    input:
        comparisons=f"{AGGREGATES}/comparisons.parquet",
    output:
        svg=report(
            f"{FIGURES}/forest_ece_debiased.svg",
            caption="../reports/captions/forest.rst",
            category=items.CALIBRATION,
            labels={"figure": "Change of ECE from the unpruned model"},
        ),
        png=f"{FIGURES}/forest_ece_debiased.png",
    log:
        f"{LOGS}/figures/forest.log",
    params:
        code=code_record("prunecal.figures.forest", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw the differences from the unpruned model"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.forest --comparisons {input.comparisons} --metric ece_debiased "
        "--folder {params.folder} --log {log}"


rule draw_reliability:
    input:
        scores=PATHS.scores(),  # change with every prediction, and are few
    output:
        svg=[
            report(
                f"{FIGURES}/reliability_{model}_{dataset}.svg",
                caption="../reports/captions/reliability.rst",
                category=items.CALIBRATION,
                labels={"figure": f"Reliability, {dataset}, {model}"},
            )
            for model, dataset in DESIGN.pairs
        ],
        png=[
            f"{FIGURES}/reliability_{model}_{dataset}.png"
            for model, dataset in DESIGN.pairs
        ],
    log:
        f"{LOGS}/figures/reliability.log",
    params:
        predictions=every_prediction,
        bins=STUDY.statistics.bins,
        code=code_record("prunecal.figures.reliability", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw reliability diagrams"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.reliability --predictions {params.predictions} "
        "--bins {params.bins} --folder {params.folder} --log {log}"


rule draw_risk_coverage:
    input:
        scores=PATHS.scores(),  # change with every prediction, and are few
    output:
        svg=report(
            f"{FIGURES}/risk_coverage.svg",
            caption="../reports/captions/risk_coverage.rst",
            category=items.SELECTIVE,
            labels={"figure": "Risk against coverage"},
        ),
        png=f"{FIGURES}/risk_coverage.png",
    log:
        f"{LOGS}/figures/risk_coverage.log",
    params:
        predictions=every_prediction,
        code=code_record("prunecal.figures.risk_coverage", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw risk-coverage curves"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.risk_coverage --predictions {params.predictions} "
        "--folder {params.folder} --log {log}"


rule draw_kept_tokens:
    input:
        manifest=f"{RESULTS}/models/{{model}}/manifest.json",
        rankings=lambda wildcards: PATHS.rankings(wildcards.model, wildcards.dataset),
        inside=lambda wildcards: PATHS.predictions(
            wildcards.model, wildcards.dataset, DESIGN.drawn_inside(wildcards.model)
        ),
        images=f"{RESULTS}/datasets/{{dataset}}/images.parquet",
    output:
        svg=report(
            f"{FIGURES}/kept_tokens_{{model}}_{{dataset}}.svg",
            caption="../reports/captions/kept_tokens.rst",
            category=items.STRATEGIES,
            labels={"figure": "Kept tokens, {dataset}, {model}"},
        ),
        png=f"{FIGURES}/kept_tokens_{{model}}_{{dataset}}.png",
    log:
        f"{LOGS}/figures/kept_tokens_{{model}}_{{dataset}}.log",
    params:
        rankings=lambda wildcards, input: words(input.rankings),
        inside=lambda wildcards, input: words(input.inside),
        budget=lambda wildcards: DESIGN.drawn_budget(wildcards.model),
        image=lambda wildcards: DESIGN.models[wildcards.model].picture(),
        code=code_record("prunecal.figures.kept_tokens", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw which tokens of {wildcards.dataset} each strategy keeps"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.kept_tokens --rankings {params.rankings} "
        "--inside {params.inside} --budget {params.budget} "
        "--images {input.images} --image-mode {params.image} "
        "--manifest {input.manifest} "
        "--model {wildcards.model} --dataset {wildcards.dataset} --folder {params.folder} --log {log}"


rule draw_learning_curve:
    input:
        curve=f"{RESULTS}/models/{{model}}/weights/learning_curve.csv",
    output:
        svg=report(
            f"{FIGURES}/learning_curve_{{model}}.svg",
            caption="../reports/captions/learning_curve.rst",
            category=items.MODEL,
            labels={"figure": "Learning curve, {model}"},
        ),
        png=f"{FIGURES}/learning_curve_{{model}}.png",
    log:
        f"{LOGS}/figures/learning_curve_{{model}}.log",
    wildcard_constraints:
        model=one_of(DESIGN.trained),
    params:
        code=code_record("prunecal.figures.learning_curve", page=True),
        look=STYLE,
        folder=subpath(output[0], parent=True),
    message:
        "Draw how {wildcards.model} learned"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.learning_curve --curve {input.curve} "
        "--model {wildcards.model} --folder {params.folder} --log {log}"
