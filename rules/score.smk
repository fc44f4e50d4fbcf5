# Metrics with clustered intervals, comparisons with the unpruned model, and the claims' verdicts.


localrules:
    compare,
    claims,


rule score:
    input:
        predictions=lambda wildcards: PATHS.predictions(
            wildcards.model, wildcards.dataset
        ),
        questions=f"{RESULTS}/datasets/{{dataset}}/questions.parquet",
    output:
        f"{AGGREGATES}/scores/{{model}}/{{dataset}}.safetensors",
    log:
        f"{LOGS}/score/{{model}}/{{dataset}}.log",
    benchmark:
        f"{LOGS}/score/{{model}}/{{dataset}}.benchmark.tsv"
    priority: PRIORITY_OF_SCORES
    threads: 1 if len(DESIGN.pairs) > 1 else 2  # two jobs fill two cores as well
    resources:
        mem_mb=resources.growing(3000),
    params:
        predictions=lambda wildcards, input: words(input.predictions),
        resamples=STUDY.statistics.resamples,
        seed=STUDY.statistics.seed,
        bins=STUDY.statistics.bins,
        outcome_of=lambda wildcards: DESIGN.outcome_of(
            wildcards.model, wildcards.dataset
        ),
        code=code_record("prunecal.score"),
    message:
        "Score {wildcards.model} on {wildcards.dataset}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.score --predictions {params.predictions} --questions {input.questions} "
        "--resamples {params.resamples} --seed {params.seed} --bins {params.bins} "
        "--outcome-of {params.outcome_of} --threads {threads} --output {output} --log {log}"


rule compare:
    input:
        PATHS.scores(),
    output:
        multiext(
            f"{AGGREGATES}/",
            "metrics.parquet",
            "metrics.csv",
            "comparisons.parquet",
            "comparisons.csv",
            "detectable.csv",
            "calibration.csv",
        ),
    log:
        f"{LOGS}/compare.log",
    priority: ON_LONGEST_PATH
    params:
        folder=subpath(output[0], parent=True),
        level=STUDY.statistics.level,
        code=code_record("prunecal.compare"),
    message:
        "Compare every cell with the unpruned model"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.compare --scores {input} --folder {params.folder} "
        "--level {params.level} --log {log}"


rule claims:
    input:
        scores=PATHS.scores(),
        claims=str(CHECKOUT / "reports" / "claims.yaml"),
    output:
        f"{AGGREGATES}/claims.json",
    log:
        f"{LOGS}/claims.log",
    params:
        level=STUDY.statistics.level,
        code=code_record("prunecal.claims", page=True),
    message:
        "Test the study against the claims"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.claims --claims {input.claims} --scores {input.scores} "
        "--level {params.level} --output {output} --log {log}"
