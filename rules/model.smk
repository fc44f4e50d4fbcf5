# Models: downloaded, found in a folder, or trained; then described by a manifest of checksums.


localrules:
    model,
    text_tower,
    prefetch,


rule model:
    input:
        local=lambda wildcards: model_files(wildcards.model),
    output:
        manifest="results/models/{model}/manifest.json",
    log:
        "logs/model/{model}.log",
    wildcard_constraints:
        model=one_of(set(DESIGN.models) - set(DESIGN.trained)),
    params:
        source=lambda wildcards: model_source(wildcards.model),
        settings=lambda wildcards: model_settings(wildcards.model),
        # any other content starts the job, one with an older time stamp too
        contents=lambda wildcards: model_contents(wildcards.model),
        code=lambda wildcards: model_code(wildcards.model),
    message:
        "Obtain the model {wildcards.model}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.model --model {wildcards.model} --params {params.source:q} "
        "--settings {params.settings:q} --manifest {output.manifest} --log {log}"


# The CLIP by which strategies compare patches with questions; obtained only if one of them does.
rule text_tower:
    input:
        local=lambda wildcards: tower_files(wildcards.model),
    output:
        manifest=f"results/models/{tower_name('{model}')}/manifest.json",
    log:
        "logs/model/{model}_text_tower.log",
    params:
        source=lambda wildcards: tower_source(wildcards.model),
        contents=lambda wildcards: digest_of_all(
            tower_files(wildcards.model),
            Path(RESULTS, "models", tower_name(wildcards.model), DIGESTS),
        ),
        code=code_record("prunecal.text_tower"),
    message:
        "Obtain the text tower of {wildcards.model}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.text_tower --source {params.source:q} --manifest {output.manifest} "
        "--log {log}"


rule train:
    output:
        manifest="results/models/{model}/manifest.json",
        weights="results/models/{model}/weights/model.safetensors",
        curve="results/models/{model}/weights/learning_curve.csv",
    log:
        "logs/model/{model}.log",
    benchmark:
        "logs/model/{model}.benchmark.tsv"
    wildcard_constraints:
        model=one_of(DESIGN.trained),
    threads: 2
    resources:
        mem_mb=resources.growing(4000),
        runtime=resources.growing(60),
    params:
        source=lambda wildcards: model_source(wildcards.model),
        code=lambda wildcards: model_code(wildcards.model),
        folder=subpath(output.weights, parent=True),
    message:
        "Train the model {wildcards.model}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.model --model {wildcards.model} --params {params.source:q} "
        "--manifest {output.manifest} --weights {params.folder} --log {log} "
        "&& python -m prunecal.verify {output.curve} --record"


# What comes from the network, on the machine where this is typed: compute nodes may have none.
#   snakemake --cores 1 prefetch
rule prefetch:
    input:
        PATHS.downloads(),
