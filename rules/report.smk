# Tables and the report's first page. `snakemake --report` puts them together with the figures.

LATEX_TABLES = MECHANISM_TABLES | {
    "claims": "Claims, comparison by comparison",
    "detectable": "Smallest detectable differences",
    "datasets": "Data sets",
    "provenance": "What made each cell",
}
BESIDE = ("detectable", "provenance")  # the parquet files; the others have a folder
CSV = [
    f"{AGGREGATES if name in BESIDE else TABLES}/{name}.csv" for name in LATEX_TABLES
]
REPORT_ITEMS = [
    *(f"{FIGURES}/budget_{metric}.svg" for metric in BUDGET_FIGURES),
    *(f"{FIGURES}/sweep_{parameter}.svg" for parameter in SWEPT),
    *(f"{FIGURES}/{name}.svg" for name in ("pareto", "forest_ece", "risk_coverage")),
    *(f"{FIGURES}/reliability_{model}_{dataset}.svg" for model, dataset in PAIRS),
    *(f"{FIGURES}/kept_tokens_{model}_{dataset}.svg" for model, dataset in PAIRS),
    *(f"{FIGURES}/learning_curve_{model}.svg" for model in TRAINED),
    *MECHANISM_ITEMS,
    f"{TABLES}/headline.csv",
    f"{TABLES}/headline.tex",
    *CSV,
    *(f"{TABLES}/{name}.tex" for name in LATEX_TABLES),
    f"{TABLES}/cells.html",
    f"{AGGREGATES}/summary.html",
    *MEASURED,
]


localrules:
    tables,
    latex,
    summary,
    html_report,


rule tables:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
        comparisons=f"{AGGREGATES}/comparisons.parquet",
        claims=f"{AGGREGATES}/claims.json",
        questions=[
            f"{RESULTS}/datasets/{dataset}/questions.parquet" for dataset in DATASETS
        ],
    output:
        csv=report(
            f"{TABLES}/headline.csv",
            caption="../reports/captions/headline_table.rst",
            category="9. Tables",
            labels={"table": "Headline metrics, CSV"},
        ),
        latex=report(
            f"{TABLES}/headline.tex",
            caption="../reports/captions/headline_table.rst",
            category="9. Tables",
            labels={"table": "Headline metrics, LaTeX"},
        ),
        claims=report(
            f"{TABLES}/claims.csv",
            caption="../reports/captions/claims_table.rst",
            category="9. Tables",
            labels={"table": f"{LATEX_TABLES['claims']}, CSV"},
        ),
        datasets=report(
            f"{TABLES}/datasets.csv",
            caption="../reports/captions/datasets_table.rst",
            category="9. Tables",
            labels={"table": f"{LATEX_TABLES['datasets']}, CSV"},
        ),
        page=report(
            f"{TABLES}/cells.html",
            caption="../reports/captions/cells_table.rst",
            category="9. Tables",
            labels={"table": "All cells, searchable"},
        ),
    log:
        str(Path("logs", STUDY.study, "tables.log")),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.report.tables", page=True),
        look=PAGES,
    message:
        "Write the tables"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.tables --metrics {input.metrics} "
        "--comparisons {input.comparisons} --claims {input.claims} "
        "--questions {input.questions} --csv {output.csv} --latex {output.latex} "
        "--claims-csv {output.claims} --datasets-csv {output.datasets} --page {output.page} "
        "--log {log}"


rule latex:
    input:
        CSV,
    output:
        [
            report(
                f"{TABLES}/{name}.tex",
                caption=f"../reports/captions/{name}_table.rst",
                category="9. Tables",
                labels={"table": f"{title}, LaTeX"},
            )
            for name, title in LATEX_TABLES.items()
        ],
    log:
        str(Path("logs", STUDY.study, "latex.log")),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.report.latex", page=True),
        folder=subpath(output[0], parent=True),
    message:
        "Write the other tables as LaTeX"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.latex --tables {input} --folder {params.folder} --log {log}"


rule summary:
    input:
        study=f"{AGGREGATES}/study.json",
        metrics=f"{AGGREGATES}/metrics.parquet",
        comparisons=f"{AGGREGATES}/comparisons.parquet",
        matched=f"{TABLES}/matched.csv",
        detectable=f"{AGGREGATES}/detectable.csv",
        claims=f"{AGGREGATES}/claims.json",
        datasets=f"{TABLES}/datasets.csv",
        provenance=f"{AGGREGATES}/provenance.csv",
        figure=f"{FIGURES}/budget_ece.svg",
    output:
        report(
            f"{AGGREGATES}/summary.html",
            caption="../reports/captions/summary.rst",
            category="1. Headline",
            labels={"figure": "First page"},
        ),
    log:
        str(Path("logs", STUDY.study, "summary.log")),
    conda:
        "../envs/conda.yaml"
    params:
        code=code_record("prunecal.report.first_page", page=True),
        look=PAGES,
    message:
        "Write the report's first page"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.first_page --study {input.study} --metrics {input.metrics} "
        "--comparisons {input.comparisons} --matched {input.matched} "
        "--detectable {input.detectable} --claims {input.claims} "
        "--datasets {input.datasets} --provenance {input.provenance} "
        "--figure {input.figure} --out {output} --log {log}"


rule html_report:
    input:
        REPORT_ITEMS,
        pages=[
            *Path("reports").glob("*.rst"),
            *Path("reports", "captions").glob("*.rst"),
        ],
        stylesheet=relpath(ASSETS / "report.css"),
        docutils=relpath(Path(workflow.basedir, "reports", "docutils.conf")),
        study=f"{AGGREGATES}/study.json",
    output:
        REPORT,
    log:
        str(Path("logs", STUDY.study, "report.log")),
    conda:
        "../envs/conda.yaml"
    params:
        snakefile=relpath(workflow.main_snakefile),  # so that a moved folder changes nothing
    message:
        "Put the report together: {output}"
    shell:
        # a second Snakemake that runs no job: it reads what this one has recorded
        "DOCUTILSCONFIG={input.docutils} snakemake results --snakefile {params.snakefile} --cores 1 --nolock "
        "--configfile {input.study} "
        "--report {output} --report-stylesheet {input.stylesheet} > {log} 2>&1"
