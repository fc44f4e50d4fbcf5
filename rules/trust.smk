# Can a pruned model's confidence be used as before? Tests, thresholds, and the page that says so.


localrules:
    trust,
    trust_page,


rule trust:
    input:
        scores=PATHS.scores(),
    output:
        [f"{TABLES}/{name}.csv" for name in items.TRUST_TABLES],
    log:
        f"{LOGS}/trust.log",
    priority: ON_LONGEST_PATH
    params:
        predictions=every_prediction,
        level=STUDY.statistics.level,
        accuracy=STUDY.statistics.margins.accuracy,
        ece=STUDY.statistics.margins.ece,
        code=code_record("prunecal.trust"),
        folder=subpath(output[0], parent=True),
    message:
        "Ask whether confidence may be used as before"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.trust --scores {input.scores} --predictions {params.predictions} "
        "--accuracy-margin {params.accuracy} --ece-margin {params.ece} "
        "--level {params.level} --folder {params.folder} --log {log}"


rule trust_page:
    input:
        study=f"{AGGREGATES}/study.json",
        metrics=f"{AGGREGATES}/metrics.parquet",
        tables=[f"{TABLES}/{name}.csv" for name in items.TRUST_TABLES],
    output:
        page=report(
            f"{AGGREGATES}/trust.html",
            caption="../reports/captions/trust.rst",
            category=items.HEADLINE,
            labels={"figure": "Can it be trusted?"},
        ),
        svg=f"{FIGURES}/trust.svg",  # which the page shows
        png=f"{FIGURES}/trust.png",
    log:
        f"{LOGS}/trust_page.log",
    params:
        code=code_record("prunecal.report.trust", page=True),
        look=[STYLE, *PAGES],
        folder=subpath(output.svg, parent=True),
    message:
        "Write the page on trust"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.report.trust --study {input.study} --metrics {input.metrics} "
        "--tables {input.tables} --page {output.page} --figures {params.folder} --log {log}"
