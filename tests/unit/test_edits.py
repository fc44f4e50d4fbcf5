"""Which stages of prunecal an edit runs again: contract (k), and its opposite."""

import shutil
from pathlib import Path

import pytest

from prunecal.caching import code_files, fingerprint, reach

LLAVA, FULL = "prunecal.models.llava", "prunecal.strategies.full"
TEMPLATE = "prunecal.study.prompts.TEMPLATES[vicuna_v1]"
STAGES = {
    "data": ("prunecal.data", "prunecal.datasets.pope"),
    "train": ("prunecal.model", "prunecal.recipes.digits", LLAVA, TEMPLATE),
    "encode": ("prunecal.encode", LLAVA, TEMPLATE),
    "rank scope": ("prunecal.rank", "prunecal.strategies.scope"),
    "rank random": ("prunecal.rank", "prunecal.strategies.random"),
    "infer vision": ("prunecal.infer", LLAVA, TEMPLATE, FULL, "prunecal.strategies.scope"),
    "infer fastv": ("prunecal.infer", LLAVA, TEMPLATE, "prunecal.strategies.fastv"),
    "score": ("prunecal.score",),
    "compare": ("prunecal.compare",),
    "mechanisms": ("prunecal.mechanisms",),
}
PAGES = {
    "claims": ("prunecal.claims",),
    "budget": ("prunecal.figures.budget",),
    "forest": ("prunecal.figures.forest",),
    "kept tokens": ("prunecal.figures.kept_tokens",),
    "learning curve": ("prunecal.figures.learning_curve",),
    "first page": ("prunecal.report.first_page",),
    "methods": ("prunecal.report.methods",),
}
INFER = {"infer vision", "infer fastv"}
RANK = {"rank scope", "rank random"}
CACHED = (fingerprint._digest, code_files.code_path, code_files.files_beside, code_files._words)


def digests(*changed):
    """Return the digests of all stages as a fresh process would after changes of some modules."""
    for cached in CACHED:
        cached.cache_clear()
    for module in changed or list(reach._modules):
        reach._modules.pop(module, None)
    return {name: fingerprint.source_digest(*modules) for name, modules in STAGES.items()} | {
        name: fingerprint.page_digest(*modules) for name, modules in PAGES.items()
    }


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    root = tmp_path_factory.mktemp("workflow")
    shutil.copytree(Path(fingerprint.__file__).parents[1], root / "prunecal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_files, "ROOT", root)
        yield root / "prunecal", digests()
    digests()


@pytest.fixture
def edited(copied):
    """Return a function that makes edits, lists the stages that they run again, and undoes them."""
    package, before = copied

    def edit(*edits):
        originals = {}
        for name, old, new in edits:
            path = package / name
            text = path.read_text()
            originals.setdefault(path, text)
            assert text.count(old) >= 1, f"{name} does not hold {old!r}"
            path.write_text(text.replace(old, new, 1))
        modules = [module_of(path.relative_to(package)) for path in originals]
        after = digests(*modules)
        for path, text in originals.items():
            path.write_text(text)
        for module in modules:
            reach._modules.pop(module, None)
        return {stage for stage, digest in after.items() if digest != before[stage]}

    return edit


def module_of(name):
    parts = Path(name).with_suffix("").parts
    return ".".join(["prunecal", *(parts[:-1] if parts[-1] == "__init__" else parts)])


OF_NO_RESULT = [
    ("core/disk_errors.py", "free some space or grant", "free space or grant"),
    ("core/cli.py", "going on without", "continuing without"),
    ("core/errors.py", "LONGEST = 200", "LONGEST = 300"),
    ("core/plugins.py", "is unknown", "is not known"),
    ("core/redaction.py", "SHORTEST = 8", "SHORTEST = 9"),
    ("storage/files.py", 'PART = ".part"', 'PART = ".partial"'),
    ("storage/schemas.py", "MOST_TOKENS = 32_767", "MOST_TOKENS = 32_768"),
    ("caching/cell_store.py", "[:32]", "[:33]"),
    ("sources/hub.py", "def fetch(", "ANOTHER = 1\n\n\ndef fetch("),
    ("sources/image_files.py", "cannot be decoded", "could not be decoded"),
    ("sources/model_folder.py", 'yield path, "is missing"', 'yield path, "is gone"'),
    ("datasets/__init__.py", "give each some text", "give each a text"),
    ("encode.py", 'what="encode"', 'what="encoding"'),
    ("encode.py", '"encoded %d images into %s tokens"', '"%d images became %s tokens"'),
    ("encode.py", 'help="images.parquet"', 'help="the images"'),
    ("encode.py", "(family: str, image_id: str, image: Encoded)", "(family, image_id, image)"),
    ("engine/arguments.py", 'help="CPU threads"', 'help="threads of the CPU"'),
    ("engine/micro_batches.py", "out of memory with", "no memory for"),
    ("engine/questions.py", "check the weights, or use a wider dtype", "check the weights"),
    ("infer.py", '"%s failed", name', '"%s broke down", name'),
    ("rank.py", 'f"rank {strategy.LABEL}"', 'f"ranking by {strategy.LABEL}"'),
    ("data.py", "%d questions, %d images", "%d images, %d questions"),
    ("models/_prompting.py", "begin with the same token", "start with the same token"),
    ("strategies/_encoded.py", "which has no features; {RERUN}", "without features; {RERUN}"),
    ("strategies/scope.py", "saliency is negative; give", "negative saliency; give"),
    ("strategies/scope.py", "ge=0", "ge=0.5"),
    ("strategies/scope.py", "budget: int, gap_power: float)", "budget, gap_power)"),
    ("recipes/digits/__init__.py", 'description="', 'description="Here: '),
    ("score.py", 'help="bins of confidence"', 'help="number of bins"'),
    ("datasets/pope.py", "put it there or correct", "put the file there or correct"),
    ("datasets/pope.py", 'fault = "lacks"', 'fault = "has no"'),
    ("datasets/_parquet.py", "copy the file there, or", "copy it there, or"),
    ("sources/image_files.py", ": the image {", ": image {"),
    ("statistics/predictions.py", "has NaN or infinite logits", "has unbounded logits"),
    ("models/__init__.py", "the model of family", "a model of the family"),
    ("models/_checkpoint.py", "lacks the tensor", "has no tensor"),
    ("models/_processors.py", "tokenizer's files", "files of the tokenizer"),
    ("infer.py", "not enough memory", "out of memory"),
    ("rank.py", "import argparse\nimport json", "import json\nimport argparse"),
    ("encode.py", "BATCH = 32", "BATCH: int = 32"),
    ("strategies/_protocols.py", '"everything"]', '"everything", "nothing"]'),
    ("strategies/_protocols.py", '== "question")', '!= "image")'),
    ("engine/interfaces.py", "depth: int, params", "depth: int, parameters"),
]


def test_k_messages_helps_bounds_and_plumbing_run_nothing_again(edited):
    pages = {"methods"}  # which shows descriptions
    assert edited(*OF_NO_RESULT) <= pages, [
        edit for edit in OF_NO_RESULT if not edited(edit) <= pages
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "shown"),
    [
        ("strategies/fastv.py", 'LABEL = "FastV"', 'LABEL = "Fast V"', {"budget", "kept tokens"}),
        (
            "calibration/entries/answers.py",
            '"Accuracy"',
            '"Correct"',
            {"budget", "first page", "claims"},
        ),
        ("strategies/scope.py", "Saliency weight: a", "Weight of saliency: a", {"methods"}),
        ("report/assets/first_page.html.j2", "<h", "<H", {"first page"}),
    ],
)
def test_k_labels_redraw_what_shows_them_and_run_no_stage_again(edited, name, old, new, shown):
    stages = edited((name, old, new))
    assert shown <= stages <= set(PAGES)
    assert "learning curve" not in stages


@pytest.mark.parametrize(
    ("name", "old", "new", "stages"),
    [
        ("encode.py", "BATCH = 32", "BATCH = 16", {"encode"}),
        ("rank.py", "BATCH = 32", "BATCH = 16", RANK),
        ("models/llava.py", "channel * 255", "channel * 256", {"encode"}),
        ("models/llava.py", "weights[:, :, 0, 1:].sum", "weights[:, :, 0, 1:].mean", {"encode"}),
        ("models/_prompting.py", "prompt + answer)", "prompt + answer[1:])", INFER),
        ("engine/decoder.py", "STRETCH = ", "STRETCH = 1 + ", INFER),
        ("engine/planner.py", "PADDING = ", "PADDING = 1 + ", INFER),
        ("engine/runner.py", '"positions", "original"', '"positions", "compact"', INFER),
        ("engine/merged.py", "view(-1, sources)", "view(-1, sources).abs()", INFER),
        ("strategies/scope.py", "CANDIDATES = 4", "CANDIDATES = 5", {"rank scope"}),
        ("strategies/scope.py", "gaps.clamp_(min=0)", "gaps.clamp_(min=1)", {"rank scope"}),
        (
            "strategies/random.py",
            "        0,\n        ge=0",
            "        1,\n        ge=0",
            {"rank random"},
        ),
        (
            "strategies/_fastv.py",
            "        2,\n        ge=1",
            "        3,\n        ge=1",
            {"infer fastv"},
        ),
        (
            "strategies/_protocols.py",
            "NESTED: bool = True",
            "NESTED: bool = False",
            {*RANK, *INFER},
        ),
        ("datasets/pope.py", 'OPTIONS = ["Yes"', 'OPTIONS = ["yes"', {"data"}),
        ("study/prompts.py", "Answer the question using", "Reply using", {"data", "train"}),
        ("study/prompts.py", "a curious user", "an able user", {"train", "encode", *INFER}),
        ("study/prompts.py", '"gemma3-hf": f"<', '"gemma4": "", "gemma3-hf": f"', set()),
        ("study/prompts.py", "HELPFUL = ", "HELPFUL = 2 * ", set()),
        ("models/gemma3.py", "both_ways = True", "both_ways = False", set()),
        ("digits/canvas.py", "GRID = ", "GRID = 1 + ", {"train"}),
        ("recipes/digits/two_threads.py", "WARM_UP = ", "WARM_UP = 1 + ", {"train"}),
        ("calibration/equal_mass.py", "BLOCK = ", "BLOCK = 1 + ", {"score"}),
        ("statistics/significance.py", "POWER = 0.8", "POWER = 0.9", {"compare"}),
        ("score.py", "default=200", "default=100", {"score"}),
        ("score.py", "import baselines\n", "import Baselines as baselines\n", {"score"}),
        ("calibration/metrics.py", "name=key)", "name='ece')", {"score"}),
        ("statistics/predictions.py", "(options == 0)", "(options <= 1)", {"score", "mechanisms"}),
        ("datasets/_parquet.py", r"(\d{5})-of", r"(\d{4})-of", {"data"}),
        ("engine/session.py", "runner.before, params", "runner.before, None", INFER),
        (
            "statistics/significance.py",
            "import numpy as np",
            "import torch as np",
            {"compare", "mechanisms"},
        ),
    ],
)
def test_an_edit_of_what_computes_runs_its_stages_again_and_no_other(
    edited, name, old, new, stages
):
    assert edited((name, old, new)) & set(STAGES) == stages


def test_a_version_raised_by_hand_runs_all_that_import_its_room_again(edited):
    room = "engine/__init__.py"
    assert {"encode", *INFER} <= edited((room, '"""', 'VERSION = 2\n"""'))


def test_the_version_of_the_storage_runs_everything_again(edited):
    edit = ("storage/__init__.py", "VERSION = ", "VERSION = 1 + ")
    assert edited(edit) == {*STAGES, *PAGES}
