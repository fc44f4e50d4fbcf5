# prunecal: does a multimodal LLM's confidence survive visual token pruning?
# A table of contents: settings, one file per stage in the order of the data's way, targets.

from os.path import relpath

from snakemake.utils import min_version

min_version("9.14")


# beside this file, wherever --directory points: a study says only what differs from it
configfile: f"{relpath(workflow.basedir)}/config.yaml"


report: "reports/workflow.rst"


include: "rules/common.smk"


container: CONTAINER  # of all rules; used with --sdm apptainer alone, see envs/README.md


wildcard_constraints:
    model=one_of(DESIGN.model_names),
    dataset=one_of(DESIGN.dataset_names),


include: "rules/study.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/encode.smk"
include: "rules/rank.smk"
include: "rules/infer.smk"
include: "rules/imported.smk"
include: "rules/score.smk"
include: "rules/figures.smk"
include: "rules/mechanisms.smk"
include: "rules/trust.smk"
include: "rules/benchmark.smk"
include: "rules/report.smk"
include: "rules/studies.smk"


localrules:
    all,
    results,


rule results:
    input:
        PATHS.every_result(),
        report_files,


rule all:
    default_target: True
    input:
        PATHS.every_result(),
        report_files,
        PATHS.report,
