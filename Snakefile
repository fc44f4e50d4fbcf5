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
include: "rules/encode.smk"
include: "rules/rank.smk"
include: "rules/infer.smk"
include: "rules/score.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


localrules:
    all,
    results,


# Every cell is named, not the tables alone: a file that a failed run deleted is asked for anew.
rule results:
    input:
        every_cell(),
        every_ranking(),
        REPORT_ITEMS,


rule all:
    default_target: True
    input:
        rules.results.input,
        REPORT,
