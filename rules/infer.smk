# Option logits, one predictions file per (strategy, budget). A job covers several cells, because a
# start-up and a model load cost more than a cell; cells that are finished already are not computed
# again (see workflow/prunecal/cellstore.py), so a job that runs anew costs what is missing.

for model, dataset in PAIRS:
    for number, chosen in enumerate(infer_jobs(model)):
        folder = f"{RESULTS}/{model}/{dataset}"

        rule:
            name:
                f"infer_{model}_{dataset}_{number}"
            input:
                manifest=f"{RESULTS}/models/{model}/manifest.json",
                weights=weights(model),
                questions=f"{RESULTS}/datasets/{dataset}/questions.parquet",
                features=f"{folder}/features.safetensors",
                rankings=rankings(model, dataset, chosen),
            output:
                predictions=[
                    f"{folder}/{cell.strategy}/{cell.budget}/predictions.parquet"
                    for cell in chosen
                ],
                provenance=[
                    f"{folder}/{cell.strategy}/{cell.budget}/provenance.json"
                    for cell in chosen
                ],
            log:
                f"logs/infer/{model}/{dataset}/{number}.log",
            benchmark:
                f"logs/infer/{model}/{dataset}/{number}.benchmark.tsv"
            priority: FIRST
            conda:
                "../envs/conda.yaml"
            threads: STUDY.inference.threads
            resources:
                gpu=STUDY.inference.gpus_per_job,
                mem_mb=memory,
                runtime=minutes(
                    lambda _, input, budgets=[
                        cell.budget for cell in chosen
                    ]: resources.asked_tokens(input.questions, budgets)
                ),
            params:
                names=f"--model {model} --dataset {dataset} --folder {folder}",
                source=model_source(model),
                settings=model_settings(model),
                weights=(
                    f"--weights {RESULTS}/models/{model}/weights"
                    if weights(model)
                    else ""
                ),
                cells=json.dumps([cell.settings() for cell in chosen]),
                store=CELL_STORE,
                batch_tokens=STUDY.inference.batch_tokens,
                device=STUDY.inference.device,
                code=infer_code(model, chosen),
            message:
                f"Infer {len(chosen)} cells of {model} on {dataset}"
            shell:
                "PRUNECAL_CODE={params.code:q} "
                "python -m prunecal.infer {params.names} --manifest {input.manifest} "
                "{params.weights} --source {params.source:q} --settings {params.settings:q} "
                "--cells {params.cells:q} --questions {input.questions} "
                "--features {input.features} --store {params.store} "
                "--batch-tokens {params.batch_tokens} --device {params.device} "
                "--threads {threads} --log {log}"
