# The study's own settings as a file, and care of the results folder.

import shlex

from prunecal.core.redaction import hidden

SETTINGS = json.dumps(dict(config), sort_keys=True)
GIVEN = workflow.config_settings  # on the command line
AGAIN = shlex.join(  # the command that finds this study again, less its target
    [
        "snakemake",
        *(
            ["--configfile", *map(relpath, GIVEN.configfiles)]
            if GIVEN.configfiles
            else []
        ),
        *(["--config", *GIVEN.config_args] if GIVEN.config_args else []),
        *("--cores", "1"),
    ]
)


localrules:
    study,
    verify,
    repair,
    repair_outdated,
    repair_versions,
    prune,
    list,


rule study:
    output:
        f"{AGGREGATES}/study.json",
    log:
        str(Path("logs", STUDY.study, "study.log")),
    conda:
        "../envs/conda.yaml"
    params:
        settings=lambda wildcards: hidden(
            json.dumps(dict(config), indent=2, sort_keys=True, ensure_ascii=False)
        ),
    message:
        "Write down the study's settings"
    shell:
        "printf '%s\\n' {params.settings:q} > {output} 2> {log} "
        "&& python -m prunecal.verify {output} --record 2>> {log}"


rule verify:
    log:
        "logs/verify.log",
    conda:
        "../envs/conda.yaml"
    params:
        settings=SETTINGS,
        command=AGAIN,
    message:
        "Check every result against its checksum, its sources and the study's settings"
    shell:
        "python -m prunecal.verify results --settings {params.settings:q} "
        "--command {params.command:q} --log {log}"


rule repair:
    log:
        "logs/repair.log",
    conda:
        "../envs/conda.yaml"
    params:
        settings=SETTINGS,
    message:
        "Remove damaged results, so that the next run makes them again"
    shell:
        "python -m prunecal.verify results --settings {params.settings:q} --repair --log {log}"


rule repair_outdated:
    log:
        "logs/repair.log",
    conda:
        "../envs/conda.yaml"
    params:
        settings=SETTINGS,
    message:
        "Remove outdated results, so that the next run makes them again"
    shell:
        "python -m prunecal.verify results --settings {params.settings:q} --outdated --log {log}"


rule repair_versions:
    log:
        "logs/repair.log",
    conda:
        "../envs/conda.yaml"
    message:
        "Remove the cells that other versions of torch or transformers made"
    shell:
        "python -m prunecal.verify results --other-versions --log {log}"


rule prune:
    log:
        "logs/prune.log",
    conda:
        "../envs/conda.yaml"
    params:
        store=CELL_STORE,
        results=RESULTS,
    message:
        "Remove finished cells that no result uses, and what killed runs left half-written"
    shell:
        "python -m prunecal.prune --store {params.store} --results {params.results} --log {log}"


rule list:
    log:
        "logs/list.log",
    conda:
        "../envs/conda.yaml"
    message:
        "Print what a study can name: strategies, loaders, model families, recipes, metrics"
    shell:
        "python -m prunecal.report.list --log {log}"
