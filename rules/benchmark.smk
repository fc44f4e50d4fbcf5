# How fast the engine is here, beside the ways in which pruned models are evaluated today.
# Once measured here, it is part of the next report.


localrules:
    benchmark,


# No `code`: it takes minutes and an idle machine, so it is measured again on demand alone
# (--forcerun measure), not whenever the engine changes.
rule measure:
    input:
        PATHS.weights(*DESIGN.trained[:1]) if DESIGN.trained else [],
    output:
        f"{BENCHMARK}/benchmark.json",
    log:
        "logs/benchmark/measure.log",
    threads: 2
    resources:
        gpu=STUDY.inference.gpus_per_job,
        mem_mb=8000,
        runtime=60,
    params:
        device=STUDY.inference.job_device,
        weights=PATHS.weights_option(DESIGN.trained[0]) if DESIGN.trained else "",
    message:
        "Measure the engine; leave the machine alone meanwhile"
    shell:
        "python -m prunecal.benchmark --device {params.device} --threads {threads} "
        "{params.weights} "
        "--out {output} --log {log}"


rule benchmark:
    input:
        f"{BENCHMARK}/benchmark.json",
    output:
        svg=report(
            f"{BENCHMARK}/speed.svg",
            caption="../reports/captions/speed.rst",
            category=items.TABLES,
            labels={"table": "Speed: questions per second"},
        ),
        png=f"{BENCHMARK}/speed.png",
        table=report(
            f"{BENCHMARK}/speed.csv",
            caption="../reports/captions/speed.rst",
            category=items.TABLES,
            labels={"table": "Speed: all measurements, CSV"},
        ),
        latex=report(
            f"{BENCHMARK}/speed.tex",
            caption="../reports/captions/speed.rst",
            category=items.TABLES,
            labels={"table": "Speed: all measurements, LaTeX"},
        ),
    log:
        "logs/benchmark/draw.log",
    params:
        folder=subpath(output.table, parent=True),
        code=code_record("prunecal.figures.speed", "prunecal.report.latex", page=True),
        look=STYLE,
    message:
        "Draw the benchmark"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.speed --benchmark {input} --table {output.table} "
        "--folder {params.folder} --log {log} "
        "&& python -m prunecal.report.latex --tables {output.table} --folder {params.folder} "
        "--log {log}"
