# What explains the differences.


localrules:
    draw_explanations,
    mechanisms,


rule mechanisms:
    input:
        scores=PATHS.scores(),
        unpruned=PATHS.unpruned_predictions(),
        features=PATHS.features(),
        rankings=PATHS.every_ranking(),
    output:
        [f"{TABLES}/{name}.csv" for name in items.MECHANISM_TABLES],
    log:
        f"{LOGS}/mechanisms.log",
    priority: ON_LONGEST_PATH
    params:
        rankings=lambda wildcards, input: words(input.rankings),
        level=STUDY.statistics.level,
        code=code_record("prunecal.mechanisms"),
        folder=subpath(output[0], parent=True),
    message:
        "Ask what goes with accuracy and calibration"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.mechanisms --scores {input.scores} --unpruned {input.unpruned} "
        "--features {input.features} --rankings {params.rankings} --folder {params.folder} "
        "--level {params.level} --log {log}"


rule draw_explanations:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
        tables=[f"{TABLES}/{name}.csv" for name in items.MECHANISM_TABLES],
    output:
        svg=[
            report(
                f"{FIGURES}/{name}.svg",
                caption=f"../reports/captions/{name}.rst",
                category=category,
                labels={"figure": label},
            )
            for name, (category, label) in items.EXPLANATIONS.items()
        ],
        png=[f"{FIGURES}/{name}.png" for name in items.EXPLANATIONS],
    log:
        f"{LOGS}/figures/explanations.log",
    priority: ON_LONGEST_PATH
    params:
        bins=STUDY.statistics.bins,
        code=code_record("prunecal.figures.explanations", page=True),
        look=STYLE,
        tables=lambda wildcards, input: str(Path(input.tables[0]).parent),
        folder=subpath(output[0], parent=True),
    message:
        "Draw what explains the changes of ECE"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.explanations --metrics {input.metrics} "
        "--tables {params.tables} --bins {params.bins} --folder {params.folder} --log {log}"
