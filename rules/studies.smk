# Two finished studies side by side, each named by its folder below results, or `results` itself:
#   snakemake --cores 1 results/studies/results-vs-llava-1.5-7b/comparison.html


localrules:
    compare_studies,


rule compare_studies:
    input:
        lambda wildcards: [
            str(path)
            for study in wildcards
            for pattern in ("study.json", "scores/*/*.safetensors")
            for path in sorted(Path(study_folder(study)).glob(pattern))
        ],
    output:
        multiext(
            f"{RESULTS}/studies/{{a}}-vs-{{b}}/",
            "interactions.csv",
            "interactions.tex",
            "interactions.svg",
            "interactions.png",
            "comparison.html",
        ),
    log:
        "logs/studies/{a}-vs-{b}.log",
    wildcard_constraints:
        a=r"[\w.-]+?",
        b=r"[\w.-]+",
    params:
        studies=lambda wildcards: [study_folder(study) for study in wildcards],
        level=STUDY.statistics.level,
        code=code_record("prunecal.compare_studies", page=True),
        look=[STYLE, *PAGES],
        folder=subpath(output[0], parent=True),
    message:
        "Compare the studies {wildcards.a} and {wildcards.b}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.compare_studies --studies {params.studies} --folder {params.folder} "
        "--level {params.level} --log {log}"
