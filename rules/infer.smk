# Option logits, one predictions file per (strategy, budget). A job covers several cells, because a
# start-up and a model load cost more than a cell; cells that are finished already are not computed
# again (see workflow/prunecal/caching/cell_store.py), so a repeated job costs what is missing.
#
# Snakemake wants a rule's outputs as a list, so each job is a rule: `infer_`, the model, the data
# set, and a number that stays when strategies are added at the end of the config. No wildcards:
# whole paths keep the plan of 10,000 cells five times shorter.

for model, dataset in DESIGN.computed_pairs:
    for number, cells in enumerate(DESIGN.infer_jobs(model)):
        folder = f"{RESULTS}/{model}/{dataset}"

        rule:
            name:
                f"infer_{model}_{dataset}_{number}"
            input:
                manifest=PATHS.manifest(model),
                weights=PATHS.weights(model),
                questions=PATHS.questions([dataset]),
                features=f"{folder}/features.safetensors",
                rankings=PATHS.rankings(model, dataset, cells),
                signals=PATHS.cls_states(model, dataset, cells),
                smaller=PATHS.smaller(model, dataset, cells),
            output:
                predictions=PATHS.predictions(model, dataset, cells),
                provenance=PATHS.provenance(model, dataset, cells),
            log:
                f"logs/infer/{model}/{dataset}/{number}.log",
            benchmark:
                f"logs/infer/{model}/{dataset}/{number}.benchmark.tsv"
            priority: PRIORITY_OF_PAIR[model, dataset]
            threads: STUDY.inference.threads
            resources:
                **resources.model_job(
                    STUDY.inference,
                    lambda _, input, budgets=DESIGN.most_kept(model, cells): (
                        resources.question_tokens(input.questions[0], budgets)
                    ),
                ),
            params:
                names=f"--model {model} --dataset {dataset} --folder {folder}"
                f"{stated_layers(model)}",
                source=lambda _, model=model: model_source(model),
                settings=model_settings(model),
                weights=PATHS.weights_option(model),
                cells=json.dumps([cell.settings() for cell in cells]),
                store=CELL_STORE,
                batch_tokens=STUDY.inference.batch_tokens,
                device=STUDY.inference.job_device,
                threads=STUDY.inference.threads,  # counts: it changes the rounding
                code=infer_code(model, cells),
            message:
                f"Infer {counted(len(cells), 'cell')} of {model} on {dataset}"
            shell:
                "PRUNECAL_CODE={params.code:q} "
                "python -m prunecal.infer {params.names} --manifest {input.manifest} "
                "{params.weights} --source {params.source:q} --settings {params.settings:q} "
                "--cells {params.cells:q} --questions {input.questions} "
                "--features {input.features} --store {params.store} "
                "--batch-tokens {params.batch_tokens} --device {params.device} "
                "--threads {params.threads} --log {log}"
