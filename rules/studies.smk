# Two finished studies side by side:
#   snakemake --cores 1 compare_studies --config studies=[results,llava-1.5-7b]
# A target of its own: `compare` is the stage that compares cells within a study.

SIDES = [
    study_folder(str(name))
    for name in (COMPARED if isinstance(COMPARED, list) else [COMPARED])
]
COMPARISON = f"{RESULTS}/studies/{'-vs-'.join(side.name for side in SIDES) or 'none'}"


localrules:
    compare_studies,


rule compare_studies:
    input:
        [
            str(path)
            for side in SIDES
            for path in sorted(side.glob("scores/*/*.safetensors"))
        ],
        [str(path) for side in SIDES for path in side.glob("study.json")],
    output:
        f"{COMPARISON}/interactions.csv",
        f"{COMPARISON}/interactions.tex",
        f"{COMPARISON}/interactions.svg",
        f"{COMPARISON}/interactions.png",
        f"{COMPARISON}/comparison.html",
    log:
        "logs/compare_studies.log",
    conda:
        "../envs/conda.yaml"
    params:
        studies=[str(side) for side in SIDES],
        level=STUDY.statistics.level,
        code=code_record("prunecal.compare_studies", page=True),
        look=[LOOK, *PAGES],
        folder=subpath(output[0], parent=True),
    message:
        "Compare the studies {params.studies}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.compare_studies --studies {params.studies} --folder {params.folder} "
        "--level {params.level} --log {log}"
