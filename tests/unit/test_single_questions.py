"""The browser of single questions: which it chooses, what it shows, and that it is safe."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers import synthetic_results
from helpers.markup import Elements
from helpers.stages import write_single_questions
from prunecal.core.errors import PrunecalError
from prunecal.report import single_questions
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    strategies = ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 1.0]}, "fastv"]
    settings = synthetic_results.study(strategies, [4, 8])
    return synthetic_results.write(tmp_path_factory.mktemp("study"), settings)


def written(results, folder, **options):
    return write_single_questions(results, folder, crop=[], count=6, **options)


def test_the_largest_changes_are_chosen_and_repeats_count_once():
    confidence = np.array(
        [[0.5, 0.5, 0.9, 0.9, 0.6], [0.6, 0.5, 0.3, 0.3, 0.6], [0.5, 0.9, 0.8, 0.8, 0.7]]
    )
    same = ["a", "b", "c", "c", "d"]
    found = single_questions.largest_changes(confidence, 0, same, 3)
    assert [(one.question, one.cell) for one in found] == [(2, 1), (1, 2), (0, 1)]
    assert [one.size for one in found] == pytest.approx([-0.6, 0.4, 0.1])


def test_the_path_covers_exactly_its_patches():
    patches = np.isin(np.arange(36), np.random.default_rng(0).permutation(36)[:11])
    covered = set()
    path = single_questions.path_along(patches, (4, 9))
    for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)", path):
        line = {9 * int(y) + int(x) + step for step in range(int(width))}
        assert not line & covered
        covered |= line
    assert covered == set(np.flatnonzero(patches).tolist())


def test_pictures_are_small_and_complete():
    image = Image.new("RGB", (900, 600), (10, 200, 30))
    uri = single_questions.picture_uri(image, "pad", [0.5] * 3)
    kind, content = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", uri).groups()
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (168, 168)
        assert image.format.lower() == kind


def test_page_shows_each_strategy_at_the_budget_of_the_change(results, tmp_path):
    page = written(results, tmp_path)
    assert page.count("<details") == 6
    cards = page.split("<details")[1:]
    assert sum("toy-pope · " in card for card in cards) == 3  # an equal share
    for card in cards:
        assert card.count("<tr") == 1 + 5  # head, unpruned, saliency, two of SCOPE, FastV
        assert card.count("<svg") == 4  # FastV's are of the question
        assert card.count('class="merged"') == 1
        assert card.count('class="largest"') == 1
    sizes = [float(size) for size in re.findall(r"\. [+−](\d\.\d+) by ", page)]
    assert len(sizes) == len(cards)
    assert sizes == sorted(sizes, reverse=True)


def test_a_title_names_a_budget_as_the_study_does(results, tmp_path):
    source = next(results.glob("*/*/saliency/4/predictions.parquet"))
    for budget, words in ((4, "4 tokens"), ("25%", "25 % (9 tokens)"), ("all", "all (9 tokens)")):
        facts = {"cell": {**files.read_facts(source)["cell"], "budget": budget}}
        files.write_table(tmp_path / "predictions.parquet", files.read_table(source), facts)
        assert single_questions.budget_words(tmp_path / "predictions.parquet", 9) == words


def test_images_are_drawn_in_the_shape_of_their_grids_of_patches(results, tmp_path):
    assert "--height" not in written(results, tmp_path).replace("var(--height", "")
    study = tmp_path / "study"
    shutil.copytree(results, study)
    for path in study.glob(f"{synthetic_results.MODEL}/*/*/ranking.safetensors"):
        file = open_arrays(path)
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        layout = np.tile(np.int32([4, 9]), (len(file.facts["image_id"]), 1))
        write_arrays(path, arrays | {"layout": layout}, file.facts)
    page = written(study, tmp_path)
    assert page.count("--height: 0.444; --width: 1.0 }") == 6
    assert {"4 of 36 tokens kept", "8 of 36 tokens kept"} >= set(
        re.findall(r'aria-label="(\d.*?)"', page)
    )


def test_page_is_well_formed_and_escapes_questions(results, tmp_path):
    parsed = Elements(written(results, tmp_path))
    assert parsed.names.count("script") == 1  # its own
    assert "b" not in parsed.names
    assert synthetic_results.HOSTILE in parsed.text


def test_page_needs_no_other_file_and_repeats_byte_for_byte(results, tmp_path):
    page = written(results, tmp_path)
    assert not re.search(r'(src|href)="|url\((?!data:)|https?:', page)
    assert written(results, tmp_path) == page


def test_a_cell_of_another_length_is_named(results, tmp_path):
    shorter = tmp_path / "toy-pope" / "questions.parquet"
    whole = files.read_table(results / "datasets" / "toy-pope" / "questions.parquet")
    files.write_table(shorter, whole.slice(0, 100), {})
    other = results / "datasets" / "toy-sqa" / "questions.parquet"
    with pytest.raises(PrunecalError, match="240 answers for 100 questions of toy-pope"):
        written(results, tmp_path, questions=[shorter, other])
