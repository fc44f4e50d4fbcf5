# One ranking of visual tokens per image and strategy; every budget is a prefix of it (exceptions: the
# stage's docstring). On the CPU, with exact sums, so that it never depends on the machine
# (docs/engine.md).
# A job covers the strategies of a model and data set, because a start-up costs more than a ranking;
# those that are ranked already are not ranked again (see workflow/prunecal/caching/cell_store.py).
# Snakemake wants a rule's outputs as a list, so each job is a rule: `rank_`, the model, the data set
# and a number. No wildcards: every file that is looked up would be compared with all their outputs.


def rank_code(*strategies):
    """Fingerprint the code that ranks by these strategies."""
    families = sorted({cell.family for cell in strategies})
    modules = [module_name("strategies", family) for family in families]
    return code_record("prunecal.rank", *modules)


def rank_settings(model, strategies):
    """Return the settings of these strategies as a job's argument."""
    listed = [DESIGN.rank_settings(model, cell) for cell in strategies]
    return words([json.dumps(listed)])


for model, dataset in DESIGN.computed_pairs:
    for number, strategies in enumerate(DESIGN.rank_jobs(model)):
        folder = f"{RESULTS}/{model}/{dataset}"
        asked = any(DESIGN.asks(cell.family) for cell in strategies)
        number_of_strategies = counted(len(strategies), "strategy", "strategies")

        rule:
            name:
                f"rank_{model}_{dataset}_{number}"
            input:
                features=f"{folder}/features.safetensors",
                signals=PATHS.signals(model, dataset, DESIGN.read_by(strategies)),
                questions=PATHS.questions([dataset]) if asked else [],
            output:
                PATHS.rankings(model, dataset, strategies),
            log:
                f"logs/rank/{model}/{dataset}/{number}.log",
            benchmark:
                f"logs/rank/{model}/{dataset}/{number}.benchmark.tsv"
            priority: PRIORITY_OF_PAIR[model, dataset]
            # changes no ranking, so no rerun; two jobs fill two cores
            threads: 1 if len(DESIGN.computed_pairs) > 1 else 2
            resources:
                mem_mb=lambda wildcards, input, attempt: (
                    attempt * resources.memory_mb_with(input[0])
                ),
                runtime=resources.growing(60),
            params:
                strategies=lambda _, model=model, strategies=strategies: (
                    rank_settings(model, strategies)
                ),
                questions=lambda _, input: " ".join(
                    f"--questions {path}" for path in input.questions
                ),
                folder=lambda _, folder=folder: folder,
                store=RANKING_STORE,
                code=rank_code(*strategies),
            message:
                f"Rank the visual tokens of {dataset} by {number_of_strategies}"
            shell:
                "PRUNECAL_CODE={params.code:q} "
                "python -m prunecal.rank --strategies {params.strategies} "
                "--features {input.features} --signals {input.signals} {params.questions} "
                "--folder {params.folder} --store {params.store} "
                "--threads {threads} --log {log}"
