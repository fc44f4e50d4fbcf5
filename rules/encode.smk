# Visual tokens and their saliency, once per image.


rule encode:
    input:
        manifest="results/models/{model}/manifest.json",
        weights=lambda wildcards: PATHS.weights(wildcards.model),
        images="results/datasets/{dataset}/images.parquet",
    output:
        features="results/{model}/{dataset}/features.safetensors",
        signals=PATHS.signals("{model}", "{dataset}", DESIGN.signals),
    log:
        "logs/encode/{model}/{dataset}.log",
    benchmark:
        "logs/encode/{model}/{dataset}.benchmark.tsv"
    priority: FIRST
    threads: STUDY.inference.threads
    resources:
        **resources.model_job(
            STUDY.inference,
            lambda wildcards, input: resources.image_tokens(
                input.images, DESIGN.models[wildcards.model].most_tokens()
            ),
        ),
    params:
        source=lambda wildcards: model_source(wildcards.model),
        settings=lambda wildcards: model_settings(wildcards.model),
        weights=lambda wildcards: PATHS.weights_option(wildcards.model),
        device=STUDY.inference.job_device,
        threads=STUDY.inference.threads,  # counts: it changes the rounding
        code=lambda wildcards: code_of_model("prunecal.encode", wildcards.model),
    message:
        "Encode the images of {wildcards.dataset} with {wildcards.model}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.encode --manifest {input.manifest} {params.weights} "
        "--source {params.source:q} --settings {params.settings:q} --device {params.device} "
        "--threads {params.threads} --images {input.images} --out {output.features} --signals {output.signals} --log {log}"
