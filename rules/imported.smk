# Cells whose answers come from elsewhere: a job for a few hundred of each model and data set, which
# reads every file once, and one for the questions of each data set that no loader reads.


def imported_files(entries):
    """List the files of answers that entries name."""
    return local_inputs(dict.fromkeys(entry.file for entry in entries))


def imported_settings(entries):
    """Return entries of `imported:` as a job's argument; a function, so that braces in them stay."""
    text = json.dumps([entry.model_dump(mode="json") for entry in entries])
    return lambda wildcards: words([text])


for dataset, entry in DESIGN.imported_datasets.items():
    folder = f"{RESULTS}/datasets/{dataset}"

    rule:
        name:
            f"import_questions_{dataset}"
        input:
            imported_files([entry]),
        output:
            questions=f"{folder}/questions.parquet",
        log:
            f"logs/import/{dataset}.log",
        localrule: True
        params:
            entries=imported_settings([entry]),
            contents=lambda _, entry=entry, folder=folder: digest_of_all(
                imported_files([entry]), Path(folder, DIGESTS)
            ),
            code=code_record("prunecal.imported"),
        message:
            f"Import the questions of {dataset}"
        shell:
            "PRUNECAL_CODE={params.code:q} "
            "python -m prunecal.imported --cells {params.entries} "
            "--make-questions {output.questions} --log {log}"


for (model, dataset, number), entries in DESIGN.import_jobs().items():
    suffix = f"_{number}" if number else ""
    folder = f"{RESULTS}/{model}/{dataset}"
    cells = [imported_cell(entry) for entry in entries]

    rule:
        name:
            f"import_{model}_{dataset}{suffix}"
        input:
            imported_files(entries),
            questions=PATHS.questions([dataset]),
        output:
            predictions=PATHS.predictions(model, dataset, cells),
            provenance=PATHS.provenance(model, dataset, cells),
        log:
            f"logs/import/{model}/{dataset}{suffix}.log",
        localrule: True
        params:
            folder=folder,
            entries=imported_settings(entries),
            contents=lambda _, entries=entries, folder=folder: digest_of_all(
                imported_files(entries), Path(folder, DIGESTS)
            ),
            code=code_record("prunecal.imported"),
        message:
            f"Import {counted(len(cells), 'cell')} of {model} on {dataset}"
        shell:
            "PRUNECAL_CODE={params.code:q} "
            "python -m prunecal.imported --cells {params.entries} --folder {params.folder} "
            "--questions {input.questions} --log {log}"
