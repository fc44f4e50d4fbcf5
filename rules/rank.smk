# One order of visual tokens per image and strategy; every budget is a prefix of it.


rule rank:
    input:
        "results/{model}/{dataset}/features.safetensors",
    output:
        "results/{model}/{dataset}/{strategy}/ranking.safetensors",
    log:
        "logs/rank/{model}/{dataset}/{strategy}.log",
    benchmark:
        "logs/rank/{model}/{dataset}/{strategy}.benchmark.tsv"
    conda:
        "../envs/conda.yaml"
    threads: STUDY.inference.threads
    resources:
        gpu=STUDY.inference.gpus_per_job,
        mem_mb=growing(STUDY.inference.mem_mb),
        runtime=growing(STUDY.inference.runtime),
    params:
        family=lambda wildcards: STRATEGIES[wildcards.strategy].family,
        parameters=lambda wildcards: json.dumps(
            dict(STRATEGIES[wildcards.strategy].parameters)
        ),
        device=STUDY.inference.device,
        code=lambda wildcards: source_digest(
            "prunecal.rank",
            module_name("strategies", STRATEGIES[wildcards.strategy].family),
        ),
    message:
        "Rank the visual tokens of {wildcards.dataset} for {wildcards.strategy}"
    shell:
        "python -m prunecal.rank --family {params.family} --parameters {params.parameters:q} "
        "--features {input} --device {params.device} --threads {threads} --out {output} --log {log}"
