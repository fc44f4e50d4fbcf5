# One order of visual tokens per image and strategy; every budget is a prefix of it. A job covers
# the strategies of one family: a sweep shares its similarities and pays for one start. On the CPU,
# with exact sums, so that a ranking never depends on the machine (docs/engine.md).

for family in dict.fromkeys(cell.family for cell in RANKED.values()):
    swept = [name for name, cell in RANKED.items() if cell.family == family]

    rule:
        name:
            f"rank_{family}"
        input:
            "results/{model}/{dataset}/features.safetensors",
        output:
            [
                f"results/{{model}}/{{dataset}}/{name}/ranking.safetensors"
                for name in swept
            ],
        log:
            f"logs/rank/{{model}}/{{dataset}}/{family}.log",
        benchmark:
            f"logs/rank/{{model}}/{{dataset}}/{family}.benchmark.tsv"
        priority: FIRST
        conda:
            "../envs/conda.yaml"
        threads: 1
        resources:
            mem_mb=lambda wildcards, input, attempt: (
                attempt * resources.memory_mb_with(input[0])
            ),
            runtime=growing(60),
        params:
            family=family,
            variants=json.dumps([dict(RANKED[name].parameters) for name in swept]),
            code=code_record("prunecal.rank", module_name("strategies", family)),
        message:
            f"Rank the visual tokens of {{wildcards.dataset}} for {family}"
        shell:
            "PRUNECAL_CODE={params.code:q} "
            "python -m prunecal.rank --family {params.family} --variants {params.variants:q} "
            "--features {input} --threads {threads} --out {output} --log {log}"
