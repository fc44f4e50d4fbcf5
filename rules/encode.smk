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
    priority: ON_LONGEST_PATH
    threads: STUDY.inference.threads
    resources:
        **resources.model_job(
            STUDY.inference,
            lambda wildcards, input: resources.image_tokens(
                input.images, DESIGN.models[wildcards.model].most_tokens()
            ),
            more_mb=resources.IMAGE_MB,
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


# Images made smaller before the tower, by the strategy that does so.
rule encode_smaller:
    input:
        manifest="results/models/{model}/manifest.json",
        weights=lambda wildcards: PATHS.weights(wildcards.model),
        images="results/datasets/{dataset}/images.parquet",
        whole="results/{model}/{dataset}/features.safetensors",
    output:
        "results/{model}/{dataset}/{strategy}/{budget}/smaller.safetensors",
    log:
        "logs/encode_smaller/{model}/{dataset}/{strategy}/{budget}.log",
    benchmark:
        "logs/encode_smaller/{model}/{dataset}/{strategy}/{budget}.benchmark.tsv"
    wildcard_constraints:
        strategy=one_of(DESIGN.before_tower),
    threads: STUDY.inference.threads
    resources:
        **resources.model_job(
            STUDY.inference,
            lambda wildcards, input: resources.image_tokens(
                input.images, DESIGN.models[wildcards.model].most_tokens()
            ),
            more_mb=resources.IMAGE_MB,
        ),
    params:
        source=lambda wildcards: model_source(wildcards.model),
        settings=lambda wildcards: model_settings(wildcards.model),
        weights=lambda wildcards: PATHS.weights_option(wildcards.model),
        budget=lambda wildcards: budgets.of_folder(wildcards.budget),
        device=STUDY.inference.job_device,
        threads=STUDY.inference.threads,  # counts: it changes the rounding
        code=lambda wildcards: code_of_model("prunecal.encode", wildcards.model),
    message:
        "Encode smaller images of {wildcards.dataset} with {wildcards.model}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.encode --manifest {input.manifest} {params.weights} "
        "--source {params.source:q} --settings {params.settings:q} --device {params.device} "
        "--threads {params.threads} --images {input.images} --whole {input.whole} "
        "--budget {params.budget:q} --out {output} --log {log}"


# What strategies read of the questions' texts, once per distinct text; see the stage's docstring.
if DESIGN.text_signals:

    rule embed:
        input:
            manifest=lambda wildcards: PATHS.manifest(tower_name(wildcards.model)),
            model="results/models/{model}/manifest.json",
            weights=lambda wildcards: PATHS.weights(wildcards.model),
            questions="results/datasets/{dataset}/questions.parquet",
        output:
            PATHS.signals("{model}", "{dataset}", DESIGN.text_signals),
        log:
            "logs/embed/{model}/{dataset}.log",
        benchmark:
            "logs/embed/{model}/{dataset}.benchmark.tsv"
        threads: STUDY.inference.threads
        resources:
            mem_mb=resources.growing(5000),
            runtime=resources.growing(60),
        params:
            source=lambda wildcards: tower_source(wildcards.model),
            model_source=lambda wildcards: model_source(wildcards.model),
            weights=lambda wildcards: PATHS.weights_option(wildcards.model),
            threads=STUDY.inference.threads,  # counts: it changes the rounding
            code=code_record("prunecal.embed"),
        message:
            "Embed the questions of {wildcards.dataset} with the text tower of {wildcards.model}"
        shell:
            "PRUNECAL_CODE={params.code:q} "
            "python -m prunecal.embed --manifest {input.manifest} --source {params.source:q} "
            "--model {input.model} --model-source {params.model_source:q} {params.weights} "
            "--questions {input.questions} --threads {params.threads} --signals {output} "
            "--log {log}"
