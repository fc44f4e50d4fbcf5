# What explains the differences, single questions, and how everything was defined and made.


localrules:
    draw_explanations,
    examples,
    mechanisms,
    methods,


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


rule examples:
    input:
        predictions=[
            path for pair in DESIGN.computed_pairs for path in PATHS.predictions(*pair)
        ],
        rankings=PATHS.every_ranking(),
        questions=PATHS.questions(DESIGN.datasets),
        images=PATHS.images(),
        manifests=[PATHS.manifest(model) for model in DESIGN.models],
    output:
        report(
            f"{AGGREGATES}/examples.html",
            caption="../reports/captions/examples.rst",
            category=items.SINGLE_QUESTIONS,
            labels={"figure": "The largest changes of confidence"},
        ),
    log:
        f"{LOGS}/examples.log",
    params:
        predictions=lambda wildcards, input: words(input.predictions),
        rankings=lambda wildcards, input: words(input.rankings),
        crop=[
            name for name, model in DESIGN.models.items() if model.picture() == "crop"
        ],
        stretch=[
            name
            for name, model in DESIGN.models.items()
            if model.picture() == "stretch"
        ],
        code=code_record("prunecal.report.single_questions", page=True),
        look=PAGES,
    message:
        "Show the questions whose confidence changes most"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.single_questions --predictions {params.predictions} "
        "--rankings {params.rankings} --questions {input.questions} --images {input.images} "
        "--manifests {input.manifests} --crop {params.crop} --stretch {params.stretch} "
        "--output {output} --log {log}"


# Much of its text is made of docstrings. `code` leaves them out on purpose: no edit of a docstring sets off
# a job, so a page of older words stays until something else changes or --forcerun methods.
rule methods:
    input:
        study=f"{AGGREGATES}/study.json",
        metrics=f"{AGGREGATES}/metrics.parquet",
        manifests=[PATHS.manifest(model) for model in DESIGN.models],
        scores=PATHS.scores(),
    output:
        page=report(
            f"{AGGREGATES}/methods.html",
            caption="../reports/captions/methods.rst",
            category=items.METHODS,
            labels={"figure": "Methods"},
        ),
        provenance=report(
            f"{AGGREGATES}/provenance.html",
            caption="../reports/captions/provenance_table.rst",
            category=items.METHODS,
            labels={"figure": "Provenance of every cell"},
        ),
        table=f"{AGGREGATES}/provenance.csv",
    log:
        f"{LOGS}/methods.log",
    params:
        predictions=every_prediction,
        look=PAGES,
        code=code_record("prunecal.report.methods", page=True),
    message:
        "Write down every definition, and what made each cell"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.methods --study {input.study} --metrics {input.metrics} "
        "--manifests {input.manifests} --predictions {params.predictions} "
        "--page {output.page} --provenance {output.provenance} --table {output.table} "
        "--log {log}"
