# Pages and tables. `snakemake --report` puts them together with the figures.


localrules:
    examples,
    methods,
    tables,
    latex,
    archive,
    summary,
    html_report,


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


rule tables:
    input:
        metrics=f"{AGGREGATES}/metrics.parquet",
        comparisons=f"{AGGREGATES}/comparisons.parquet",
        claims=f"{AGGREGATES}/claims.json",
        questions=PATHS.questions(),
        provenance=f"{AGGREGATES}/provenance.csv",
    output:
        csv=f"{TABLES}/headline.csv",
        latex=f"{TABLES}/headline.tex",
        claims=f"{TABLES}/claims.csv",
        datasets=f"{TABLES}/datasets.csv",
        page=report(
            f"{TABLES}/cells.html",
            caption="../reports/captions/cells_table.rst",
            category=items.HEADLINE,
            labels={"figure": "Explore all cells"},
        ),
    log:
        f"{LOGS}/tables.log",
    params:
        code=code_record("prunecal.report.tables", page=True),
        look=PAGES,
    message:
        "Write the tables"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.tables --metrics {input.metrics} "
        "--comparisons {input.comparisons} --claims {input.claims} "
        "--questions {input.questions} --provenance {input.provenance} --csv {output.csv} --latex {output.latex} "
        "--claims-csv {output.claims} --datasets-csv {output.datasets} --page {output.page} "
        "--log {log}"


rule latex:
    input:
        tables=items.csv_tables(PATHS),
        metrics=f"{AGGREGATES}/metrics.parquet",
    output:
        [f"{TABLES}/{name}.tex" for name in items.LATEX_TABLES],
    log:
        f"{LOGS}/latex.log",
    params:
        code=code_record("prunecal.report.latex", page=True),
        folder=subpath(output[0], parent=True),
    message:
        "Write the other tables as LaTeX"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.latex --tables {input.tables} --metrics {input.metrics} "
        "--folder {params.folder} --log {log}"


# In the report once and compressed: one by one, tables of thousands of cells would be most of it.
rule archive:
    input:
        tables=items.tables(PATHS),
        captions=[str(CHECKOUT / path) for path in items.table_captions()],
    output:
        report(
            f"{TABLES}/tables.zip",
            caption="../reports/captions/tables.rst",
            category=items.TABLES,
            labels={"table": "All tables, CSV and LaTeX"},
        ),
    log:
        f"{LOGS}/archive.log",
    params:
        code=code_record("prunecal.report.archive", page=True),
    message:
        "Pack the tables for the report"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.archive --tables {input.tables} --captions {input.captions} "
        "--output {output} --log {log}"


rule summary:
    input:
        study=f"{AGGREGATES}/study.json",
        metrics=f"{AGGREGATES}/metrics.parquet",
        comparisons=f"{AGGREGATES}/comparisons.parquet",
        matched=f"{TABLES}/matched.csv",
        detectable=f"{AGGREGATES}/detectable.csv",
        trust=[f"{TABLES}/{name}.csv" for name in items.TRUST_TABLES],
        claims=f"{AGGREGATES}/claims.json",
        datasets=f"{TABLES}/datasets.csv",
        provenance=f"{AGGREGATES}/provenance.csv",
        figure=f"{FIGURES}/budget_ece_debiased.svg",
    output:
        report(
            f"{AGGREGATES}/summary.html",
            caption="../reports/captions/summary.rst",
            category=items.HEADLINE,
            labels={"figure": "First page"},
        ),
    log:
        f"{LOGS}/summary.log",
    params:
        code=code_record("prunecal.report.first_page", page=True),
        look=PAGES,
    message:
        "Write the report's first page"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.first_page --study {input.study} --metrics {input.metrics} "
        "--comparisons {input.comparisons} --matched {input.matched} "
        "--detectable {input.detectable} --trust {input.trust} --claims {input.claims} "
        "--datasets {input.datasets} --provenance {input.provenance} "
        "--figure {input.figure} --out {output} --log {log}"


rule html_report:
    input:
        report_files,
        texts=lambda wildcards: sorted(CHECKOUT.glob("reports/**/*.rst")),
        stylesheet=relpath(ASSETS / "report.css"),
        docutils=str(CHECKOUT / "reports" / "docutils.conf"),
        study=f"{AGGREGATES}/study.json",
    output:
        PATHS.report,
    log:
        f"{LOGS}/report.log",
    params:
        snakefile=relpath(workflow.main_snakefile),  # so that a moved folder changes nothing
        code=code_record("prunecal.report.compact_report", page=True),
        look=PAGES,
    message:
        "Put the report together: {output}"
    shell:
        # A second Snakemake that runs no job: it reads what this one has recorded. Not
        # --report-after-run, which knows no file per study and no job that other jobs can need.
        # It names its files by whole paths: the home folder is written as ~.
        "DOCUTILSCONFIG={input.docutils:q} python -m snakemake results "
        "--snakefile {params.snakefile:q} --cores 1 --nolock "
        "--workflow-profile none --configfile {input.study} "
        "--report {output} --report-stylesheet {input.stylesheet} > {log} 2>&1 "
        "&& python -m prunecal.report.compact_report {output} --made-from {input.study} 2>> {log}"


onsuccess:
    name_results(workflow.dag.targetjobs, workflow.dag.targetfiles)
