# Visual tokens and their saliency, once per image.


rule encode:
    input:
        manifest="results/models/{model}/manifest.json",
        weights=lambda wildcards: weights(wildcards.model),
        images="results/datasets/{dataset}/images.parquet",
    output:
        "results/{model}/{dataset}/features.safetensors",
    log:
        "logs/encode/{model}/{dataset}.log",
    benchmark:
        "logs/encode/{model}/{dataset}.benchmark.tsv"
    priority: FIRST
    conda:
        "../envs/conda.yaml"
    threads: STUDY.inference.threads
    resources:
        gpu=STUDY.inference.gpus_per_job,
        mem_mb=memory,
        runtime=minutes(
            lambda wildcards, input: resources.shown_tokens(
                input.images, MODELS[wildcards.model].visual_tokens
            )
        ),
    params:
        source=lambda wildcards: model_source(wildcards.model),
        settings=lambda wildcards: model_settings(wildcards.model),
        weights=lambda wildcards, input: (
            f"--weights {Path(input.weights[0]).parent}" if input.weights else ""
        ),
        device=STUDY.inference.device,
        code=lambda wildcards: code_record(
            "prunecal.encode", family_module(wildcards.model)
        ),
    message:
        "Encode the images of {wildcards.dataset} with {wildcards.model}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.encode --manifest {input.manifest} {params.weights} "
        "--source {params.source:q} --settings {params.settings:q} --device {params.device} "
        "--threads {threads} --images {input.images} --out {output} --log {log}"
