# What explains the differences, single questions, and how everything was defined and made.

TABLES = f"{AGGREGATES}/tables"
MECHANISM_TABLES = {  # file: what it holds
    "mechanisms": "Properties of every cell",
    "correlations": "Rank correlations over cells",
    "matched": "Change of ECE beyond that of accuracy",
}
EXPLANATIONS = {  # figure: category and label
    "recalibration": ("2. Calibration", "ECE before and after temperature scaling"),
    "bins": ("2. Calibration", "ECE against the number of bins"),
    "matched": ("6. Mechanisms", "Change of ECE against change of accuracy"),
    "mechanisms": ("6. Mechanisms", "What goes with accuracy and ECE"),
    "mechanisms_cells": ("6. Mechanisms", "Accuracy and ECE over cells' properties"),
}
MECHANISM_ITEMS = [
    *(f"{FIGURES}/{name}.svg" for name in EXPLANATIONS),
    f"{AGGREGATES}/examples.html",
    f"{AGGREGATES}/methods.html",
    f"{AGGREGATES}/provenance.html",
]


localrules:
    draw_explanations,
    examples,
    mechanisms,
    methods,


rule mechanisms:
    input:
        scores=[
            f"{AGGREGATES}/scores/{model}/{dataset}.safetensors"
            for model, dataset in PAIRS
        ],
        unpruned=unpruned(),
        features=[
            f"{RESULTS}/{model}/{dataset}/features.safetensors"
            for model, dataset in PAIRS
        ],
        rankings=every_ranking(),
    output:
        [
            report(
                f"{TABLES}/{name}.csv",
                caption=f"../reports/captions/{name}_table.rst",
                category="6. Mechanisms",
                labels={"figure": f"{title}, table"},
            )
            for name, title in MECHANISM_TABLES.items()
        ],
    log:
        str(Path("logs", STUDY.study, "mechanisms.log")),
    priority: FIRST
    conda:
        "../envs/conda.yaml"
    params:
        level=STUDY.statistics.level,
        code=code_record("prunecal.mechanisms"),
        folder=subpath(output[0], parent=True),
    message:
        "Ask what goes with accuracy and calibration"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.mechanisms --scores {input.scores} --unpruned {input.unpruned} "
        "--features {input.features} --rankings {input.rankings} --folder {params.folder} "
        "--level {params.level} --log {log}"


rule draw_explanations:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
        tables=[f"{TABLES}/{name}.csv" for name in MECHANISM_TABLES],
    output:
        svg=[
            report(
                f"{FIGURES}/{name}.svg",
                caption=f"../reports/captions/{name}.rst",
                category=category,
                labels={"figure": label},
            )
            for name, (category, label) in EXPLANATIONS.items()
        ],
        png=[f"{FIGURES}/{name}.png" for name in EXPLANATIONS],
    log:
        str(FIGURE_LOGS / "explanations.log"),
    priority: FIRST
    conda:
        "../envs/conda.yaml"
    params:
        bins=STUDY.statistics.bins,
        code=code_record("prunecal.figures.explanations", page=True),
        look=LOOK,
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
        predictions=every_cell(),
        rankings=every_ranking(),
        questions=[
            f"{RESULTS}/datasets/{dataset}/questions.parquet" for dataset in DATASETS
        ],
        images=[f"{RESULTS}/datasets/{dataset}/images.parquet" for dataset in DATASETS],
        manifests=[f"{RESULTS}/models/{model}/manifest.json" for model in MODELS],
    output:
        report(
            f"{AGGREGATES}/examples.html",
            caption="../reports/captions/examples.rst",
            category="7. Single questions",
            labels={"figure": "The largest changes of confidence"},
        ),
    log:
        str(Path("logs", STUDY.study, "examples.log")),
    conda:
        "../envs/conda.yaml"
    params:
        crop=[name for name, model in MODELS.items() if model.image == "crop"],
        code=code_record("prunecal.report.single_questions", page=True),
        look=PAGES,
    message:
        "Show the questions whose confidence changes most"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.single_questions --predictions {input.predictions} "
        "--rankings {input.rankings} --questions {input.questions} --images {input.images} "
        "--manifests {input.manifests} --crop {params.crop} --output {output} --log {log}"


# Its text is made of docstrings. `code` leaves them out on purpose: no edit of a docstring sets off
# a job, so a page of older words stays until something else changes or --forcerun methods.
rule methods:
    input:
        study=f"{AGGREGATES}/study.json",
        metrics=f"{AGGREGATES}/metrics.parquet",
        manifests=[f"{RESULTS}/models/{model}/manifest.json" for model in MODELS],
        predictions=every_cell(),
    output:
        page=report(
            f"{AGGREGATES}/methods.html",
            caption="../reports/captions/methods.rst",
            category="8. Methods",
            labels={"figure": "Definitions"},
        ),
        provenance=report(
            f"{AGGREGATES}/provenance.html",
            caption="../reports/captions/provenance_table.rst",
            category="8. Methods",
            labels={"figure": "Provenance of every cell"},
        ),
        table=report(
            f"{AGGREGATES}/provenance.csv",
            caption="../reports/captions/provenance_table.rst",
            category="9. Tables",
            labels={"table": "What made each cell, CSV"},
        ),
    log:
        str(Path("logs", STUDY.study, "methods.log")),
    conda:
        "../envs/conda.yaml"
    params:
        look=PAGES,
        code=code_record("prunecal.report.methods", page=True),
    message:
        "Write down every definition, and what made each cell"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.methods --study {input.study} --metrics {input.metrics} "
        "--manifests {input.manifests} --predictions {input.predictions} "
        "--page {output.page} --provenance {output.provenance} --table {output.table} "
        "--log {log}"
