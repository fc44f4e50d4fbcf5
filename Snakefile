# prunecal: does a multimodal LLM's confidence survive visual token pruning?
# A table of contents: settings, one file per stage in the order of the data's way, targets.

from snakemake.utils import min_version

min_version("9.14")


configfile: "config.yaml"


report: "reports/workflow.rst"


include: "rules/common.smk"


wildcard_constraints:
    **WILDCARDS,


include: "rules/study.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/prefetch.smk"
include: "rules/encode.smk"
include: "rules/rank.smk"
include: "rules/infer.smk"
include: "rules/score.smk"
include: "rules/figures.smk"
include: "rules/mechanisms.smk"
include: "rules/benchmark.smk"
include: "rules/report.smk"
include: "rules/studies.smk"


localrules:
    all,
    results,


# All are named, not the last alone: a file that a failed run or a repair deleted is made anew.
rule results:
    input:
        every_source(),
        every_ranking(),
        every_cell(),
        every_provenance(),
        every_table(),
        REPORT_ITEMS,
        [item.replace(".svg", ".png") for item in REPORT_ITEMS if item.endswith(".svg")],


rule all:
    default_target: True
    input:
        rules.results.input,
        REPORT,


if workflow.is_main_process and (paths := unrecorded(rules.all.input)):
    logger.warning(missing_record(paths))
