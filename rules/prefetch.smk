# What comes from the network, on the machine where this is typed: compute nodes may have none.
#   snakemake --cores 1 prefetch


localrules:
    prefetch,


rule prefetch:
    input:
        [
            f"{RESULTS}/models/{model}/manifest.json"
            for model in MODELS
            if model not in TRAINED
        ],
        [
            f"{RESULTS}/datasets/{dataset}/{name}.parquet"
            for dataset in DATASETS
            for name in ("questions", "images")
        ],
