"""More than twenty faults planted in a finished study: `verify` names each and no sound file.

The study has a trained model and one in a local folder, generated data and local files. Its stages
run in this process, with the arguments that the rules give them.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import prunecal
from helpers.tiny_llava import picture, png, tiny_llava
from prunecal import claims, compare, data, encode, infer, model, rank, score, trust, verify
from prunecal.caching.fingerprint import code_record
from prunecal.core import plugins
from prunecal.core.errors import PrunecalError
from prunecal.report import methods, tables
from prunecal.sources import model_folder
from prunecal.statistics import recomputed
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays
from prunecal.storage.checksums import file_digest
from prunecal.study.cells import cells, load_study
from prunecal.study.design import Design

pytestmark = pytest.mark.slow  # a whole study is made first

ROOT = Path(__file__).parents[2]
TINY = "results/tiny/polls"
SCORES = "results/scores/tiny/polls.safetensors"
OLD = 10**18  # nanoseconds: a time in 2001
SETTINGS = {
    "title": "A study with faults",
    "models": [
        {"name": "tiny", "visual_tokens": 16, "train": {"recipe": "digits", "seed": 0}},
        {"name": "given", "visual_tokens": 16, "path": "given"},
    ],
    "datasets": [
        {"name": "polls", "loader": "digits-pope", "images": 4, "seed": 1},
        {
            "name": "local",
            "loader": "pope",
            "questions": ["coco_pope_random.json"],
            "images": "images",
        },
    ],
    "strategies": ["full", "saliency", {"strategy": "scope", "alpha": 0}, "fastv"],
    "budgets": [8, 4],
    "inference": {"batch_tokens": 4096},
    "statistics": {"resamples": 100},
}


class Results:
    """The study's folder, in which a fault is planted."""

    def __init__(self, folder):
        self.folder, self.settings = folder, json.loads(json.dumps(SETTINGS))
        self.code = None  # a package to verify with, if not this one
        for entry in self.settings["models"]:
            entry["family"] = "llava"

    def __truediv__(self, name):
        return self.folder / name

    def verify(self):
        """Return what verify says of the study."""
        if self.code:
            command = [sys.executable, "-m", "prunecal.verify", "results"]
            done = subprocess.run(
                [*command, "--settings", json.dumps(self.settings)],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(self.code)},
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stderr
        said: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        log = logging.getLogger("prunecal")
        log.setLevel(logging.INFO)
        log.addHandler(handler)
        names = ("repair", "outdated", "record", "other_versions", "log")
        given = {"results": Path("results"), "settings": json.dumps(self.settings), "command": "s"}
        try:
            verify.main(Namespace(**dict.fromkeys(names), **given))
        except PrunecalError as error:
            said.append(str(error))
        finally:
            log.removeHandler(handler)
        return "\n".join(said)


def module_of(cell):
    return plugins.module_name("strategies", cell.family)


def run_study(settings):
    """Run a study's stages in the working directory."""
    study = load_study(settings)
    design = Design(study)
    common = {"device": "cpu", "threads": 1, "log": None, "layers": None}

    def stage(module, *modules, **arguments):
        os.environ[files.CODE_VARIABLE] = code_record(module.__name__, *modules)
        module.main(Namespace(**common, **arguments))

    for dataset in study.datasets:
        folder = Path("results", "datasets", dataset.name)
        stage(
            data,
            plugins.module_name("datasets", dataset.loader),
            dataset=dataset.name,
            loader=dataset.loader,
            params=json.dumps(dataset.params()),
            questions=folder / "questions.parquet",
            images=folder / "images.parquet",
        )
    scores = []
    for one in study.models:
        manifest, family = (
            Path("results", "models", one.name, "manifest.json"),
            "prunecal.models.llava",
        )
        own = {
            "manifest": manifest,
            "weights": manifest.parent / "weights" if one.train else None,
            "source": json.dumps(one.source()),
            "settings": json.dumps(one.run_settings()),
        }
        if one.path:
            params = json.dumps(one.source())
            run = {"settings": own["settings"], "manifest": manifest, "weights": None}
            stage(model, model=one.name, params=params, **run)
        for dataset in study.datasets:
            folder = Path("results", one.name, dataset.name)
            prepared, features = (
                Path("results/datasets", dataset.name),
                folder / "features.safetensors",
            )
            stage(
                encode,
                family,
                **own,
                images=prepared / "images.parquet",
                out=features,
                signals=[],
                budget=None,
            )
            studied = cells(study, one)
            (ranked,) = design.rank_jobs(one.name)
            stage(
                rank,
                strategies=json.dumps([design.rank_settings(one.name, cell) for cell in ranked]),
                features=features,
                signals=[],
                questions=None,
                folder=folder,
                store=Path("results/.rankings"),
            )
            stage(
                infer,
                family,
                **own,
                model=one.name,
                dataset=dataset.name,
                cells=json.dumps([cell.settings() for cell in studied]),
                questions=prepared / "questions.parquet",
                features=features,
                folder=folder,
                store=Path("results/.cells"),
                batch_tokens=study.inference.batch_tokens,
            )
            scores.append(Path("results/scores", one.name, f"{dataset.name}.safetensors"))
            predictions = sorted(map(str, folder.glob("*/*/predictions.parquet")))
            os.environ[files.CODE_VARIABLE] = code_record("prunecal.score")
            command = ["--predictions", *predictions, "--output", str(scores[-1])]
            command += ["--questions", str(prepared / "questions.parquet"), "--resamples", "100"]
            score.main(score.arguments_of(command))
    paths = ["--scores", *map(str, scores)]
    os.environ[files.CODE_VARIABLE] = code_record("prunecal.compare")
    compare.main(compare.arguments_of([*paths, "--folder", "results"]))
    os.environ[files.CODE_VARIABLE] = code_record("prunecal.trust")
    predictions = sorted(map(str, Path("results").glob("[!.]*/*/*/*/predictions.parquet")))
    given = [*paths, "--predictions", *predictions, "--folder", "results/tables"]
    trust.main(trust.arguments_of(given))
    os.environ[files.CODE_VARIABLE] = code_record("prunecal.claims", page=True)
    output = ["--claims", "claims.yaml", "--output", "results/claims.json"]
    claims.main(claims.arguments_of([*paths, *output]))
    files.write_json("results/study.json", settings)
    write_pages(study, predictions)
    del os.environ[files.CODE_VARIABLE]


def write_pages(study, predictions):
    """Write the methods, the provenance and the tables."""
    folder = Path("results")
    os.environ[files.CODE_VARIABLE] = code_record("prunecal.report.methods", page=True)
    given = [f"--study={folder}/study.json", f"--metrics={folder}/metrics.parquet"]
    given += ["--manifests", *map(str, folder.glob("models/*/manifest.json"))]
    written = {"page": "methods.html", "provenance": "provenance.html", "table": "provenance.csv"}
    given += [f"--{name}={folder}/{file}" for name, file in written.items()]
    methods.main(methods.arguments_of([*given, "--predictions", *predictions]))
    os.environ[files.CODE_VARIABLE] = code_record("prunecal.report.tables", page=True)
    given = [f"--{name}={folder}/{name}.parquet" for name in ("metrics", "comparisons")]
    written = {"csv": "headline.csv", "latex": "headline.tex", "page": "cells.html"}
    written |= {f"{name}-csv": f"{name}.csv" for name in ("claims", "datasets")}
    given += [f"--{name}={folder}/tables/{file}" for name, file in written.items()]
    asked = [f"{folder}/datasets/{one.name}/questions.parquet" for one in study.datasets]
    given += [f"--claims={folder}/claims.json", f"--provenance={folder}/provenance.csv"]
    tables.main(tables.arguments_of([*given, "--questions", *asked]))
    with files.atomic(folder / "summary.html", [folder / "study.json"]) as page:
        page.write_text(
            "<p>It stands for the first page, which tells that all results are there.</p>"
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run the study."""
    folder = tmp_path_factory.mktemp("planted")
    results = Results(folder)
    tiny_llava(folder / "given", seed=1)
    weights = folder / "results" / "models" / "tiny" / "weights"
    tiny_llava(weights)
    train = {"train": SETTINGS["models"][0]["train"]}
    described = model_folder.describe(weights, "llava", train)
    files.write_json(weights.parent / "manifest.json", described)
    (weights / "learning_curve.csv").write_text("phase,step,metric,value\n")
    (folder / "reports").mkdir()
    (folder / "reports" / "report.html").write_text("<html></html>")
    files.record(folder / "reports" / "report.html")
    (folder / "images").mkdir()
    lines = []
    for number in range(4):
        (folder / "images" / f"{number}.png").write_bytes(png(picture(number)))
        row = {"question_id": number, "image": f"{number}.png", "text": "Is there a cat?"}
        lines.append(json.dumps(row | {"label": "yes" if number % 2 else "no"}))
    (folder / "coco_pope_random.json").write_text("\n".join(lines))
    shutil.copy(ROOT / "reports" / "claims.yaml", folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_study(results.settings)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def results(whole, tmp_path, monkeypatch):
    """Return a copy of the study, in the working directory."""
    subprocess.run(["cp", "-a", whole, tmp_path / "study"], check=True)
    monkeypatch.chdir(tmp_path / "study")
    return Results(tmp_path / "study")


def flip(path):
    """Alter a byte, and let the file keep its size and times."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put(source, target):
    """Put a file in another's place, with its checksum, so that it is whole."""
    for one, other in ((source, target), *[tuple(map(files.checksum_file, (source, target)))]):
        shutil.copy2(one, other)


def edit(results, module, old, new):
    results.code = results / "workflow"
    shutil.copytree(Path(prunecal.__file__).parent, results.code / "prunecal", dirs_exist_ok=True)
    path = results.code / "prunecal" / module
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def trained_weights(results):
    flip(results / "results/models/tiny/weights/model.safetensors")
    return "results/models/tiny/weights/model.safetensors"


def local_weights_swapped(results):
    path = results / "given/model.safetensors"
    status, tensors = path.stat(), load_file(path)
    save_file({name: values * 2 for name, values in tensors.items()}, path, {"format": "pt"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    return "given/model.safetensors"


def local_tokenizer(results):
    path = results / "given/tokenizer.json"
    path.write_text(path.read_text().replace("<image>", "<picture>"))
    return "given/tokenizer.json"


def local_file_added(results):
    (results / "given/added_tokens.json").write_text('{"cat": 900}')
    return "given/added_tokens.json"


def local_answer(results):
    path = results / "coco_pope_random.json"
    path.write_text(path.read_text().replace("yes", "no"))
    os.utime(path, ns=(OLD, OLD))
    return "results/datasets/local/questions.parquet"


def local_image(results):
    (results / "images/2.png").write_bytes(png(picture(9)))
    os.utime(results / "images/2.png", ns=(OLD, OLD))
    return "results/datasets/local/questions.parquet"


def questions_cut(results):
    path = results / "results/datasets/polls/questions.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    return "results/datasets/polls/questions.parquet"


def images_of_another_set(results):
    target = results / "results/datasets/polls/images.parquet"
    put(results / "results/datasets/local/images.parquet", target)
    return "results/datasets/polls/images.parquet"


def setting_of_data(results):
    results.settings["datasets"][0]["images"] = 5
    return "results/datasets/polls/questions.parquet"


def setting_of_training(results):
    results.settings["models"][0]["train"]["seed"] = 1
    return "results/models/tiny/manifest.json"


def setting_of_the_model(results):
    results.settings["models"][0]["image"] = "crop"
    return f"{TINY}/features.safetensors", f"{TINY}/saliency/8/predictions.parquet"


def setting_of_inference(results):
    results.settings["inference"]["batch_tokens"] = 100
    return f"{TINY}/saliency/8/predictions.parquet"


def setting_of_budgets(results):
    results.settings["budgets"] = [8]
    return SCORES, "results/study.json"


def setting_of_bins(results):
    results.settings["statistics"]["bins"] = 10
    return SCORES


def setting_of_resamples(results):
    results.settings["statistics"]["resamples"] = 200
    return SCORES


def setting_of_the_level(results):
    results.settings["statistics"]["level"] = 0.9
    tables = ("metrics.parquet", "comparisons.parquet", "tables/thresholds.csv")
    return [f"results/{name}" for name in tables]


def setting_of_the_margins(results):
    results.settings["statistics"]["margins"] = {"ece": 0.01}
    return "results/tables/trust.csv", "results/study.json"


def setting_of_the_title(results):
    results.settings["title"] = "Another title"
    return "results/study.json"


def code_of_inference(results):
    edit(results, "engine/runner.py", '"positions", "original"', '"positions", "compact"')
    return f"{TINY}/saliency/8/predictions.parquet"


def code_of_a_strategy(results):
    edit(results, "strategies/saliency.py", "descending=True", "descending=False")
    return f"{TINY}/saliency/ranking.safetensors"


def code_of_scores(results):
    edit(results, "calibration/equal_mass.py", "BLOCK = ", "BLOCK = 1 + ")
    return SCORES


def cell_of_another_budget(results):
    for name in ("predictions.parquet", "provenance.json"):
        put(results / TINY / "saliency/4" / name, results / TINY / "saliency/8" / name)
    return f"{TINY}/saliency/8/predictions.parquet"


def cell_of_another_model(results):
    for name in ("predictions.parquet", "provenance.json"):
        path = f"polls/saliency/8/{name}"
        put(results / "results/given" / path, results / "results/tiny" / path)
    return f"{TINY}/saliency/8/predictions.parquet"


def cell_flipped(results):
    flip(results / TINY / "full/16/predictions.parquet")
    return f"{TINY}/full/16/predictions.parquet"


def remove_with_record(path):
    path.unlink()
    files.checksum_file(path).unlink()


def cell_without_provenance(results):
    path = results / TINY / "full/16/provenance.json"
    remove_with_record(path)
    return f"{TINY}/full/16/provenance.json"


def ranking_of_another_strategy(results):
    source = results / TINY / "scope-alpha0/ranking.safetensors"
    put(source, results / TINY / "saliency/ranking.safetensors")
    return f"{TINY}/saliency/ranking.safetensors"


def stored_cell(results):
    path = sorted((results / "results/.cells").glob("*/*/predictions.parquet"))[0]
    flip(path)
    return str(path.relative_to(results.folder))


def stored_cell_of_another_key(results):
    one, other = sorted((results / "results/.cells").glob("*/*"))[:2]
    for name in ("predictions.parquet", "provenance.json"):
        put(one / name, other / name)
    return str((other / "predictions.parquet").relative_to(results.folder))


def features_of_another_data_set(results):
    source = results / "results/tiny/local/features.safetensors"
    put(source, results / TINY / "features.safetensors")
    return f"{TINY}/features.safetensors"


def table_of_another_kind(results):
    put(results / "results/comparisons.parquet", results / "results/metrics.parquet")
    return "results/metrics.parquet"


def checksums_lost(results):
    names = (
        "metrics.parquet",
        "claims.json",
        "datasets/polls/questions.parquet",
        "models/tiny/manifest.json",
        "scores/tiny/polls.safetensors",
        "tiny/polls/features.safetensors",
        "tiny/polls/saliency/8/predictions.parquet",
    )
    for name in names:
        path = results / "results" / name
        files.checksum_file(path).unlink()
        flip(path)
    return [f"results/{name}" for name in names]


def table_edited(results):
    path = results / "results/metrics.csv"
    path.write_text(path.read_text().replace("saliency", "scope", 1))
    return "results/metrics.csv"


def table_edited_and_recorded(results):
    table_edited(results)
    files.record(results / "results/metrics.csv")
    return "results/metrics.csv"


def scores_of_another_model(results):
    put(results / "results/scores/given/polls.safetensors", results / SCORES)
    return SCORES, "results/metrics.parquet"


def cells_exchanged_beneath_the_tables(results):
    """Let the predictions be others, with all that belongs to them, as another study's run does."""
    path = results / TINY / "full/16/predictions.parquet"
    table = files.read_table(path)
    files.write_table(path, table.slice(0, len(table) - 1), files.read_facts(path))
    note = files.read_json(path.with_name("provenance.json"))
    files.write_json(
        path.with_name("provenance.json"), note | {"predictions_sha256": files.recorded(path)}
    )
    tables = ("metrics.parquet", "comparisons.csv", "claims.json", "tables/trust.csv")
    return SCORES, *(f"results/{name}" for name in tables)


def claims_of_other_tests(results):
    with (results / "claims.yaml").open("a") as file:
        file.write("# another claim\n")
    return "results/claims.json"


def table_deleted(results):
    (results / "results/detectable.csv").unlink()
    return "results/detectable.csv"


def cell_removed_whole(results):
    shutil.rmtree(results / TINY / "saliency/4")
    return f"{TINY}/saliency/4/predictions.parquet"


def images_removed_with_their_record(results):
    path = results / "results/datasets/polls/images.parquet"
    remove_with_record(path)
    return "results/datasets/polls/images.parquet"


def page_of_older_tables(results):
    path = results / "results/comparisons.parquet"
    table = files.read_table(path)
    files.write_table(path, table.slice(1), files.read_facts(path), files.sources_of(path))
    return "results/tables/cells.html", "results/tables/headline.csv"


def forge(path, change):
    """Change a file, and have its record say that it was written so, of the same sources."""
    record = files.checksum_file(path)
    before = files.recorded(path)
    change(path)
    record.write_text(record.read_text().replace(before, file_digest(path)))


def rewrite(path, column, row, value):
    """Change one value of a parquet file, which keeps its metadata."""
    table, metadata = pq.read_table(path), pq.read_schema(path).metadata
    values = table[column].to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
    pq.write_table(table.replace_schema_metadata(metadata), path)


def table_forged(results):
    path = results / "results/metrics.parquet"
    forge(path, lambda path: rewrite(path, "value", 3, 0.123))
    return "results/metrics.parquet"


def interval_forged(results):
    def change(path):
        lines = path.read_text().splitlines(keepends=True)
        place = lines[0].replace('"', "").split(",").index("ci_low")
        values = lines[1].split(",")
        values[place] = "-0.5"
        path.write_text("".join([lines[0], ",".join(values), *lines[2:]]))

    forge(results / "results/comparisons.csv", change)
    return "results/comparisons.csv"


def rewritten(results, name, change):
    """Write a score file again with other arrays or facts, and its checksum; return its name."""
    path = results / f"results/scores/{name}.safetensors"
    file = open_arrays(path)
    arrays, facts = {key: file.get_tensor(key) for key in file.keys()}, dict(file.facts)  # noqa: SIM118
    change(arrays, facts)
    write_arrays(path, arrays, facts, files.sources_of(path))
    return str(path.relative_to(results.folder))


def score_forged(results):
    def change(arrays, _):
        arrays["value/accuracy"][1, 0] += 0.125

    return rewritten(results, "given/local", change)


def replicates_forged(results):
    """Change one replicate of a metric, which no table shows."""

    def change(arrays, _):
        arrays["draws/ece"][1, 0, 40] += 1e-4

    return rewritten(results, "given/polls", change)


def tokens_forged(results):
    def change(_, facts):
        facts["cells"] = [cell | {"tokens_per_layer": 1.0} for cell in facts["cells"]]

    return rewritten(results, "tiny/local", change)


def prediction_forged(results):
    """Change an answer, and all records that tell of it."""
    path = results / TINY / "saliency/8/predictions.parquet"
    before = files.recorded(path)
    logits = pq.read_table(path)["logits"].to_pylist()[0]
    forge(path, lambda path: rewrite(path, "logits", 0, logits[::-1]))
    for one in [*results.folder.rglob("*.json"), *results.folder.rglob(".*.sha256")]:
        if before in one.read_text() and ".cells" not in one.parts:
            one.write_text(one.read_text().replace(before, files.recorded(path)))
    files.record(path.with_name("provenance.json"))
    return f"{TINY}/saliency/8/predictions.parquet", SCORES


def table_removed_with_its_record(results):
    path = results / "results/metrics.csv"
    remove_with_record(path)
    return "results/metrics.csv"


def table_of_trust_recorded_anew(results):
    path = results / "results/tables/trust.csv"
    path.write_text(path.read_text().replace("saliency", "scope", 1))
    files.record(path)
    return "results/tables/trust.csv"


def table_of_another_folder(results):
    folder = results / "results/other/tables"
    folder.mkdir(parents=True)
    put(results / "results/tables/headline.csv", folder / "headline.csv")
    return "results/other/tables/headline.csv"


def manifest_of_another_digest(results):
    path = results / "results/models/given/manifest.json"
    described = files.read_json(path)
    forge(path, lambda path: path.write_text(json.dumps(described | {"digest": "0" * 64})))
    return "results/models/given/manifest.json"


def manifest_of_another_colour(results):
    path = results / "results/models/tiny/manifest.json"
    described = files.read_json(path)
    forge(path, lambda path: path.write_text(json.dumps(described | {"image_mean": [0, 0, 0]})))
    return "results/models/tiny/manifest.json"


def features_of_no_form(results):
    forge(results / TINY / "features.safetensors", lambda path: path.write_bytes(b"x" * 100))
    return f"{TINY}/features.safetensors"


def settings_of_no_form(results):
    forge(results / "results/study.json", lambda path: path.write_text("[]"))
    return "results/study.json"


def cell_copied_to_another_budget(results):
    copy = results / "results/tiny/local/saliency/6"
    shutil.copytree(copy.with_name("4"), copy)
    return "results/tiny/local/saliency/6/predictions.parquet"


def stored_cell_edited_with_its_records(results):
    place = results / "results/tiny/local/fastv-layer2/4"
    key = files.read_json(place / "provenance.json")["cell_key"]
    copy = results / "results/.cells" / key[:2] / key / "predictions.parquet"
    before = files.recorded(copy)
    forge(copy, lambda path: rewrite(path, "n_visual", 0, 3))
    note = copy.with_name("provenance.json")
    forge(note, lambda note: note.write_text(note.read_text().replace(before, file_digest(copy))))
    return str(copy.relative_to(results.folder))  # with the one that was handed out


def report_edited(results):
    path = results / "reports/report.html"
    path.write_text("<html>")
    return "reports/report.html"


def page_without_checksum(results):
    files.checksum_file(results / "results/tables/headline.tex").unlink()
    return "results/tables/headline.tex"


FAULTS = [
    trained_weights,
    local_weights_swapped,
    local_tokenizer,
    local_file_added,
    local_answer,
    local_image,
    questions_cut,
    images_of_another_set,
    setting_of_data,
    setting_of_training,
    setting_of_the_model,
    setting_of_inference,
    setting_of_budgets,
    setting_of_bins,
    setting_of_resamples,
    setting_of_the_level,
    setting_of_the_margins,
    setting_of_the_title,
    code_of_inference,
    code_of_a_strategy,
    code_of_scores,
    cell_of_another_budget,
    cell_of_another_model,
    cell_flipped,
    cell_without_provenance,
    ranking_of_another_strategy,
    stored_cell,
    stored_cell_of_another_key,
    features_of_another_data_set,
    table_of_another_kind,
    checksums_lost,
    table_edited,
    table_edited_and_recorded,
    scores_of_another_model,
    cells_exchanged_beneath_the_tables,
    claims_of_other_tests,
    table_deleted,
    cell_removed_whole,
    images_removed_with_their_record,
    page_of_older_tables,
    page_without_checksum,
]
TOGETHER = [  # which touch different files, none of which another is made from
    table_forged,
    interval_forged,
    table_removed_with_its_record,
    table_of_trust_recorded_anew,
    table_of_another_folder,
    report_edited,
    manifest_of_another_colour,
]
RECORDED = [  # which hide none of one another
    manifest_of_another_digest,
    features_of_no_form,
    settings_of_no_form,
    cell_copied_to_another_budget,
    stored_cell_edited_with_its_records,
]


def test_no_sound_file_is_called_bad(results):
    assert results.verify() == "0 damaged files"
    for path in results.folder.rglob("*"):
        path.touch()
    assert results.verify() == "0 damaged files"
    results.settings["inference"]["threads"] = 2  # which decides the speed alone
    assert "1 outdated files" in results.verify()  # study.json
    del results.settings["inference"]["threads"]
    shutil.rmtree(results / "given")  # where nothing can be known, nothing is held against a file
    shutil.rmtree(results / "images")
    said = results.verify().splitlines()
    assert [line for line in said if " not checked: " not in line] == ["0 damaged files"]
    assert len(said) == 3


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_named(results, plant, monkeypatch):
    monkeypatch.setattr(recomputed, "other_values", lambda *_: [])  # by what is recorded alone
    names = plant(results)
    said = results.verify()
    lines = [line for line in said.splitlines() if line.startswith(("results", "given", "reports"))]
    expected = {names} if isinstance(names, str) else set(names)
    assert expected <= {line.split()[0] for line in lines}
    assert "s repair" in said or "snakemake --cores 1 repair" in said


def test_files_that_were_edited_with_their_records_and_files_gone_with_them_are_named(results):
    names = {plant(results) for plant in TOGETHER}
    said = results.verify().splitlines()
    assert names <= {line.split()[0] for line in said}


def test_scores_and_predictions_that_were_edited_with_their_records_are_named(results):
    scores = (plant(results) for plant in (score_forged, replicates_forged, tokens_forged))
    names = {*scores, *prediction_forged(results)}  # of different pairs
    said = results.verify().splitlines()
    assert names <= {line.split()[0] for line in said}
    assert "with replicates of ece" in "".join(said)


def test_what_was_edited_with_all_its_records_is_named_by_what_it_does_not_fit(
    results, monkeypatch
):
    monkeypatch.setattr(recomputed, "other_values", lambda *_: [])
    names = {plant(results) for plant in RECORDED} | {
        "results/tiny/local/fastv-layer2/4/predictions.parquet"
    }
    said = results.verify().splitlines()
    assert names <= {line.split()[0] for line in said}
