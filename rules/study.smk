# The study's own settings as a file, and care of the results folder.

from prunecal.core.redaction import hidden


localrules:
    study,
    check,
    verify,
    repair,
    repair_outdated,
    repair_versions,
    prune,
    list,


# No `code`: its settings are all that the file holds.
rule study:
    output:
        f"{AGGREGATES}/study.json",
    log:
        f"{LOGS}/study.log",
    params:
        settings=lambda wildcards: printing(
            hidden(
                json.dumps(dict(config), indent=2, sort_keys=True, ensure_ascii=False)
            )
        ),
    message:
        "Write down the study's settings"
    shell:
        "{params.settings} > {output} 2> {log} "
        "&& python -m prunecal.verify {output} --record 2>> {log}"


# Before anything is downloaded: what the study needs of this machine, and what is here.
#   snakemake --cores 1 check --configfile studies/llava-1.5-7b.yaml
rule check:
    log:
        "logs/check.log",
    params:
        settings=study_settings,
        results=RESULTS,
    message:
        "Compare what the study needs with what is here"
    shell:
        "python -m prunecal.check --settings {params.settings} --results {params.results} "
        "--log {log}"


rule verify:
    log:
        "logs/verify.log",
    params:
        settings=study_settings,
        command=same_study,
    message:
        "Check every result against its checksum, its sources and the study's settings"
    shell:
        "python -m prunecal.verify results --settings {params.settings} "
        "--command {params.command:q} --log {log}"


rule repair:
    log:
        "logs/repair.log",
    params:
        settings=study_settings,
    message:
        "Remove damaged results; the next run computes them again"
    shell:
        "python -m prunecal.verify results --settings {params.settings} --repair --log {log}"


rule repair_outdated:
    log:
        "logs/repair.log",
    params:
        settings=study_settings,
    message:
        "Remove outdated results; the next run computes them again"
    shell:
        "python -m prunecal.verify results --settings {params.settings} --outdated --log {log}"


rule repair_versions:
    log:
        "logs/repair.log",
    message:
        "Remove the cells that other versions of torch or transformers made"
    shell:
        "python -m prunecal.verify results --other-versions --log {log}"


rule prune:
    log:
        "logs/prune.log",
    params:
        store=CELL_STORE,
        results=RESULTS,
    message:
        "Remove finished cells and rankings that no result uses, and stale half-written files"
    shell:
        "python -m prunecal.prune --store {params.store} --results {params.results} --log {log}"


rule list:
    log:
        "logs/list.log",
    message:
        "Print what a study can name: strategies, loaders, model families, recipes, metrics"
    shell:
        "python -m prunecal.report.list --log {log}"
