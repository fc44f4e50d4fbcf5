# How fast the engine is here, beside the ways in which pruned models are evaluated today.

BENCHMARK = f"{RESULTS}/benchmark"
# once measured here, part of the report
MEASURED = [
    f"{BENCHMARK}/speed.{kind}"
    for kind in ("svg", "csv", "tex")
    if Path(BENCHMARK, "benchmark.json").exists()
]


localrules:
    benchmark,


rule measure:
    input:
        weights(TRAINED[0]) if TRAINED else [],
    output:
        f"{BENCHMARK}/benchmark.json",
    log:
        "logs/benchmark/measure.log",
    conda:
        "../envs/conda.yaml"
    threads: 2
    resources:
        gpu=STUDY.inference.gpus_per_job,
        mem_mb=8000,
        runtime=60,
    params:
        device=STUDY.inference.device,
        weights=(f"--weights {RESULTS}/models/{TRAINED[0]}/weights" if TRAINED else ""),
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
            category="9. Tables",
            labels={"table": "Speed: questions per second"},
        ),
        png=f"{BENCHMARK}/speed.png",
        table=report(
            f"{BENCHMARK}/speed.csv",
            caption="../reports/captions/speed.rst",
            category="9. Tables",
            labels={"table": "Speed: all measurements, CSV"},
        ),
        latex=report(
            f"{BENCHMARK}/speed.tex",
            caption="../reports/captions/speed.rst",
            category="9. Tables",
            labels={"table": "Speed: all measurements, LaTeX"},
        ),
    log:
        "logs/benchmark/draw.log",
    conda:
        "../envs/conda.yaml"
    params:
        folder=subpath(output.table, parent=True),
        code=code_record("prunecal.figures.speed", "prunecal.report.latex", page=True),
        look=LOOK,
    message:
        "Draw the benchmark"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.figures.speed --benchmark {input} --table {output.table} "
        "--folder {params.folder} --log {log} "
        "&& python -m prunecal.report.latex --tables {output.table} --folder {params.folder} "
        "--log {log}"
