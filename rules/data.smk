# Data sets: questions and images, in one form whatever their source.


# Local, as `model` is: on a cluster the login node alone may have the network.
localrules:
    data,


rule data:
    input:
        local=lambda wildcards: dataset_files(wildcards.dataset),
    output:
        questions="results/datasets/{dataset}/questions.parquet",
        images="results/datasets/{dataset}/images.parquet",
    log:
        "logs/data/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(DESIGN.datasets),
    resources:
        mem_mb=4000,
    params:
        loader=lambda wildcards: DESIGN.datasets[wildcards.dataset].loader,
        settings=lambda wildcards: json.dumps(
            DESIGN.datasets[wildcards.dataset].params(), sort_keys=True
        ),
        # any other content starts the job, one with an older time stamp too
        contents=lambda wildcards: digest_of_all(
            dataset_files(wildcards.dataset),
            Path(RESULTS, "datasets", wildcards.dataset, DIGESTS),
        ),
        code=lambda wildcards: code_record(
            "prunecal.data",
            module_name("datasets", DESIGN.datasets[wildcards.dataset].loader),
        ),
    message:
        "Prepare the data set {wildcards.dataset}"
    shell:
        "PRUNECAL_CODE={params.code:q} "
        "python -m prunecal.data --dataset {wildcards.dataset} --loader {params.loader} "
        "--params {params.settings:q} --questions {output.questions} --images {output.images} "
        "--log {log}"
