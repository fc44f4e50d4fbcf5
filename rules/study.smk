# The study's own settings as a file, and care of the results folder.


rule study:
    message:
        "Write down the study's settings"
    output:
        f"{AGGREGATES}/study.json",
    log:
        str(Path("logs", STUDY.study, "study.log")),
    params:
        settings=json.dumps(dict(config), indent=2, sort_keys=True),
    conda:
        "../envs/conda.yaml"
    shell:
        "printf '%s\\n' {params.settings:q} > {output} 2> {log} "
        "&& python -m prunecal.verify {output} --record 2>> {log}"


rule verify:
    message:
        "Compare every result with the checksum that it was written with"
    log:
        "logs/verify.log",
    conda:
        "../envs/conda.yaml"
    shell:
        "python -m prunecal.verify results --log {log}"


rule repair:
    message:
        "Remove damaged results, so that the next run makes them again"
    log:
        "logs/repair.log",
    conda:
        "../envs/conda.yaml"
    shell:
        "python -m prunecal.verify results --repair --log {log}"


rule prune:
    message:
        "Remove finished cells that no result uses"
    log:
        "logs/prune.log",
    params:
        store=CELL_STORE,
        results=RESULTS,
    conda:
        "../envs/conda.yaml"
    shell:
        "python -m prunecal.prune --store {params.store} --results {params.results} --log {log}"
