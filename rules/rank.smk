# One ranking of visual tokens per image and strategy; every budget is a prefix of it (exceptions: the
# stage's docstring). On the CPU, with exact sums, so that it never depends on the machine
# (docs/engine.md).
# A job covers the strategies of one plugin: a sweep shares its similarities and pays for one start.
# Snakemake wants a rule's outputs as a list, so each job is a rule: `rank_`, the model, the data set
# and the plugin. No wildcards: every file that is looked up would be compared with all their outputs.

RANK_JOBS = DESIGN.rank_jobs()

for (model, dataset), (plugin, labels) in itertools.product(
    DESIGN.computed_pairs, RANK_JOBS.items()
):

    rule:
        name:
            f"rank_{model}_{dataset}_{plugin}"
        input:
            features=f"{RESULTS}/{model}/{dataset}/features.safetensors",
            signals=PATHS.signals(model, dataset, DESIGN.reads(plugin)),
            questions=PATHS.questions([dataset]) if DESIGN.asks(plugin) else [],
        output:
            [
                f"{RESULTS}/{model}/{dataset}/{label}/ranking.safetensors"
                for label in labels
            ],
        log:
            f"logs/rank/{model}/{dataset}/{plugin}.log",
        benchmark:
            f"logs/rank/{model}/{dataset}/{plugin}.benchmark.tsv"
        priority: FIRST
        threads: 1
        resources:
            mem_mb=lambda wildcards, input, attempt: (
                attempt * resources.memory_mb_with(input[0])
            ),
            runtime=resources.growing(60),
        params:
            family=plugin,
            # of strategies that keep other tokens at another budget, or for another question
            budgets="" if DESIGN.has_one_order(plugin) else DESIGN.budgets(model),
            questions=(
                f"--questions {PATHS.questions([dataset])[0]}"
                if DESIGN.asks(plugin)
                else ""
            ),
            variants=json.dumps(DESIGN.parameters(model, labels)),
            code=code_record("prunecal.rank", module_name("strategies", plugin)),
        message:
            f"Rank the visual tokens of {dataset} for {plugin}"
        shell:
            "PRUNECAL_CODE={params.code:q} "
            "python -m prunecal.rank --family {params.family} --variants {params.variants:q} "
            "--features {input.features} --signals {input.signals} --budgets {params.budgets} "
            "{params.questions} "
            "--threads {threads} --out {output} --log {log}"
