"""Plugins are found by name, inside and outside this repository, and checked when loaded."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, nearest
from prunecal.study.strategy_settings import expand

FOLDERS = ["strategies", "datasets", "models", "recipes"]
MINE = '''"""Mine: the first tokens."""

from prunecal.core.parameters import Parameters

LABEL = "Mine"
PRUNES = "before_llm"


class Params(Parameters):
    """Nothing to set."""


def rank(images, budget, params):
    import torch

    return torch.arange(budget).repeat(len(images.features), 1)
'''
INSIDE = '''"""Mine, inside."""

from prunecal.core.parameters import Parameters

LABEL, PRUNES = "Mine", "inside_llm"
Params = Parameters


def stages(visual_tokens, budget, depth, params): ...
def select(seen, stage, params): ...
'''
FAMILY = '''"""A family."""

LABEL, MODEL_TYPES = "Other", ("other",)


class Model:
    settings, device, decoder = {}, None, None

    def __init__(self, folder, settings, device, part): ...
    def encode(self, images): ...
    def project(self, features): ...
    def tokenize(self, texts): ...
    def option_tokens(self, text, options): ...


load = Model
'''


def install(folder, distribution, points, modules):
    """Lay out a small distribution as pip does: its modules and its .dist-info folder."""
    for name, text in modules.items():
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {value}\n" for group, name, value in points]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution with one plugin of a kind; return the plugin's name."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(text, kind="strategies", name="mine", value=None):
        module = f"outside_{tmp_path.name.replace('-', '_')}"
        points = [(f"prunecal.{kind}", name, value or f"{module}.plugin")]
        install(tmp_path, "prunecal-outside", points, {f"{module}.plugin": text})
        return name

    yield installed
    for name in [name for name in sys.modules if name.startswith("outside_")]:
        del sys.modules[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_plugins_are_its_files(folder):
    files = Path(plugins.__file__).parents[1].joinpath(folder).glob("[!_]*")
    expected = sorted(path.stem.replace("_", "-") for path in files)
    assert plugins.names(folder) == expected
    assert expected


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_plugin_is_loaded_by_its_name_and_follows_its_protocol(folder):
    for name in plugins.names(folder):
        module = plugins.load(folder, name)
        assert module.__name__ == plugins.module_name(folder, name)
        assert module.__doc__


def test_underscores_of_files_are_hyphens_of_names():
    assert plugins.module_name("strategies", "fastv-two-pass") == (
        "prunecal.strategies.fastv_two_pass"
    )


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("strategies", "scoop", "the strategy 'scoop' is unknown (did you mean 'scope'?); known "),
        ("strategies", "fastv_two_pass", "(did you mean 'fastv-two-pass'?)"),
        ("datasets", "popes", "the data set loader 'popes' is unknown (did you mean 'pope'?)"),
        ("models", "lava", "the model family 'lava' is unknown (did you mean 'llava'?); known are"),
        ("recipes", "digit", "the recipe 'digit' is unknown (did you mean 'digits'?); known are"),
        ("strategies", "zzz", "the strategy 'zzz' is unknown; known are blind, "),
        ("strategies", "_similarity", "the strategy '_similarity' is unknown"),
        ("strategies", "", "the strategy '' is unknown; known are"),
    ],
)
def test_an_unknown_plugin_gets_the_nearest_name(folder, name, message):
    with pytest.raises(PrunecalError) as caught:
        plugins.load(folder, name)
    assert message in str(caught.value)


def test_a_name_far_from_all_gets_no_suggestion():
    assert nearest("quux", ["scope", "random"]) == ""
    assert nearest("sope", ["random", "scope"]) == " (did you mean 'scope'?)"


def test_a_new_file_is_a_new_plugin(tmp_path):
    (tmp_path / "prunecal" / "strategies").mkdir(parents=True)
    (tmp_path / "prunecal" / "strategies" / "my_own.py").write_text(MINE)
    code = (
        "import sys, prunecal.strategies as folder\n"
        "folder.__path__.append(sys.argv[1] + '/prunecal/strategies')\n"
        "from prunecal.core import plugins\n"
        "assert 'my-own' in plugins.names('strategies')\n"
        "assert plugins.load('strategies', 'my-own').LABEL == 'Mine'\n"
    )
    workflow = Path(plugins.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=workflow, check=True)


def test_a_plugin_of_an_installed_distribution_is_one_of_the_plugins(installed):
    from prunecal.strategies import rank

    installed(MINE)
    assert "mine" in plugins.names("strategies")
    assert "mine" not in plugins.names("datasets")
    assert plugins.load("strategies", "mine").LABEL == "Mine"
    features = torch.ones(2, 5, 3)
    assert rank("mine", features, torch.ones(2, 5), 3).tolist() == [[0, 1, 2]] * 2


def test_the_code_of_a_plugin_outside_counts_for_the_stages_that_load_it(tmp_path):
    points = [("prunecal.strategies", "mine", "outside.mine")]
    install(tmp_path, "outside", points, {"outside.mine": MINE})
    code = (
        "from prunecal.caching.fingerprint import source_digest\n"
        "print(source_digest('prunecal.rank', 'outside.mine'))"
    )
    path = os.pathsep.join([str(Path(plugins.__file__).parents[2]), str(tmp_path)])
    module, digests = tmp_path / "outside" / "mine.py", []
    for text in (MINE, MINE.replace("first", "foremost"), MINE.replace("budget)", "budget + 0)")):
        module.write_text(text)
        digests.append(
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONPATH": path},
                check=True,
                capture_output=True,
            ).stdout
        )
    assert digests[0] == digests[1] != digests[2]  # a docstring, then what is computed


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([("scope", "outside.plugin")], "strategy 'scope', a name that prunecal.strategies.scope"),
        ([("mine", "a.b"), ("mine", "c.d")], "strategy 'mine', a name that a.b has; rename it"),
        ([("mine", "a.b:Class")], "strategy 'mine' as 'a.b:Class'; have it give a name of"),
        ([("../mine", "a.b")], "strategy '../mine' as 'a.b'; have it give a name of lower-case"),
        ([("my_own", "a.b")], "strategy 'my_own' as 'a.b'; have it give a name of lower-case"),
    ],
)
def test_a_name_that_is_taken_or_malformed_is_refused(tmp_path, monkeypatch, points, message):
    monkeypatch.syspath_prepend(tmp_path)
    for number, (name, value) in enumerate(points):
        install(tmp_path, f"outside{number}", [("prunecal.strategies", name, value)], {})
    with pytest.raises(PrunecalError) as caught:
        plugins.names("strategies")
    start = f"the distribution 'outside{len(points) - 1}' declares the "
    assert str(caught.value).startswith(start + message)


def test_a_plugin_whose_module_is_gone_is_refused(installed):
    installed(MINE, value="no_such_module.plugin")
    with pytest.raises(PrunecalError, match="'mine' cannot be imported from no_such_module.plugin"):
        plugins.load("strategies", "mine")


@pytest.mark.parametrize(
    ("kind", "text", "old", "new", "message"),
    [
        ("strategies", MINE, "def rank(", "def sort(", "lacks rank(images, budget, params); de"),
        ("strategies", MINE, 'LABEL = "Mine"', "", "lacks LABEL; define it as str"),
        ("strategies", MINE, '"Mine"', "3", "has LABEL = 3; make it str"),
        ("strategies", MINE, "before_llm", "vision", "has PRUNES = 'vision'; make it Literal['be"),
        ("strategies", MINE, "(Parameters)", "", "has Params = <class 'outside_"),
        (
            "strategies",
            MINE,
            "rank(images, budget, params)",
            "rank(features, saliency, budget)",
            "has rank(features, saliency, budget); define it as rank(images, budget, params)",
        ),
        (
            "strategies",
            MINE,
            "rank(images, budget, params)",
            "rank(images, budget, params, more)",
            "has rank(images, budget, params, more); define it as rank(images, budget, params)",
        ),
        (
            "strategies",
            MINE + "\n\ndef rank_many(images, variants): ...\n",
            "",
            "",
            "has rank_many(images, variants); define it as rank_many(images, budget, variants)",
        ),
        ("strategies", INSIDE, "def stages", "def cuts", "lacks stages(visual_tokens, budget, d"),
        ("strategies", INSIDE, "seen, stage", "seen", "has select(seen, params); define it as"),
        ("strategies", INSIDE + "LOOKS = 'values'\n", "", "", "has LOOKS = 'values'; make it Lit"),
        ("strategies", MINE + "NESTED = 1\n", "", "", "has NESTED = 1; make it bool"),
        ("strategies", MINE + "READS = {'a': 'eyes'}\n", "", "", "has READS = {'a': 'eyes'}; make"),
        ("datasets", MINE, "", "", "lacks load(params); define it"),
        ("recipes", MINE, "", "", "lacks train(params, folder); define it"),
        ("models", FAMILY, '("other",)', '"other"', "has MODEL_TYPES = 'other'; make it tuple"),
        (
            "models",
            FAMILY,
            "folder, settings, device, part",
            "folder",
            "has load(folder); define it as",
        ),
    ],
)
def test_a_plugin_that_does_not_follow_its_protocol_is_refused_when_it_is_loaded(
    installed, kind, text, old, new, message
):
    assert old in text
    name = installed(text.replace(old, new) if old else text, kind)
    with pytest.raises(PrunecalError) as caught:
        plugins.load(kind, name)
    assert str(caught.value).startswith(f"the {plugins.KINDS[kind]} 'mine' (")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("READS = {'text': 'text_embeds'}", 'must have PER = "question" and read a text in READS'),
        ("PER = 'question'", "(text_embeds, text_segments), or neither"),
        ("def reads(settings): ...", "has reads(settings); define it as reads(params)"),
    ],
)
def test_declarations_that_contradict_each_other_are_refused(installed, more, message):
    name = installed(f"{MINE}\n{more}\n")
    with pytest.raises(PrunecalError) as caught:
        plugins.load("strategies", name)
    assert message in str(caught.value)


def test_a_setting_of_a_plugin_that_is_the_studys_own_is_refused_when_the_study_is_read(installed):
    name = installed(MINE.replace('"""Nothing to set."""', 'match: str = "kept"'))
    with pytest.raises(PrunecalError, match="strategies: mine declares the parameter 'match'"):
        expand({"strategy": name, "match": "kept"}, "llava", "kept")


def test_further_parameters_with_defaults_are_allowed(installed):
    name = installed(MINE.replace("budget, params)", "budget, params, debug=False)"))
    assert plugins.load("strategies", name).LABEL == "Mine"


@pytest.mark.parametrize("text", [INSIDE])
def test_a_strategy_that_prunes_inside_the_model_needs_no_ranking(installed, text):
    assert plugins.load("strategies", installed(text)).PRUNES == "inside_llm"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def project(self, features)", "def projected(self)", "lacks project(features); define"),
        ("tokenize(self, texts)", "tokenize(self)", "has tokenize(); define it as tokenize(texts)"),
        ("settings, device, decoder = {}, None, None", "", "lacks settings; define it"),
    ],
)
def test_a_model_that_lacks_a_part_is_refused_before_it_answers(
    installed, tmp_path, old, new, message
):
    from prunecal.models import load_model

    assert old in FAMILY
    name = installed(FAMILY.replace(old, new or "pass"), "models", "other")
    with pytest.raises(PrunecalError) as caught:
        load_model(name, tmp_path, {}, None)
    assert str(caught.value).startswith(f"the model of family 'other' {message}")


FIRST = "torch.arange(budget).repeat(len(images.features), 1)"
MERGE = MINE.replace("def rank", "def merge").replace(
    FIRST, "torch.ones(len(images.features), budget, images.features.shape[1] + 1)"
)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("images.saliency", "returned float32 [2, 5]; have it return int64 [2, 3], indices of t"),
        (f"{FIRST}.float()", "returned float32 [2, 3]; have it return int64 [2, 3]"),
        (f"{FIRST} > 1", "returned bool [2, 3]; have it return int64 [2, 3]"),
        (f"{FIRST}[:, 1:]", "returned int64 [2, 2]; have it return int64 [2, 3]"),
        (f"{FIRST}.T", "returned int64 [3, 2]; have it return int64 [2, 3]"),
        (f"{FIRST}.numpy()", "returned an object of the type ndarray; have it return int64"),
        ("None", "returned nothing; have it return int64 [2, 3]"),
        (f"{FIRST} + 3", "returned the token 5 in row 0; have it return different indices from 0"),
        (f"{FIRST} - 1", "returned the token -1 in row 0; have it return different indices"),
        (f"{FIRST} // 2", "returned a token twice among the 3 of row 0; have it return different"),
        (f"{FIRST} + images.saliency.zero_().long()[:, :3]", "writes into the saliency of its i"),
    ],
)
def test_a_strategy_that_ranks_anything_but_the_budget_s_different_tokens_is_refused(
    installed, returned, message
):
    from prunecal.strategies import rank

    name = installed(MINE.replace(FIRST, returned))
    with pytest.raises(PrunecalError) as caught:
        rank(name, torch.ones(2, 5, 4), torch.ones(2, 5), 3)
    assert message in str(caught.value)
    assert plugins.load("strategies", name).__file__ in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" + 1", "", "returned float32 [2, 3, 5]; have it return float [2, 3, 6], weights of tok"),
        (" + 1)", " + 1).neg()", "returned weights that are negative, NaN or infinite; have it"),
        (" + 1)", " + 1) / 0", "returned weights that are negative, NaN or infinite; have it"),
    ],
)
def test_a_strategy_whose_merged_tokens_have_no_sound_weights_is_refused(
    installed, old, new, message
):
    from prunecal.strategies import reduce

    name = installed(MERGE.replace(old, new))
    with pytest.raises(PrunecalError) as caught:
        reduce(name, torch.ones(2, 5, 4), torch.ones(2, 5), 3)
    assert message in str(caught.value)


def test_what_a_stage_keeps_is_refused_unless_it_is_the_stages_number_of_different_tokens():
    from prunecal.engine.interfaces import Reduction, Stage
    from prunecal.engine.selections import refuse_other_reduction

    mine = ModuleType("mine")
    mine.__file__ = "mine.py"
    kept, weights = torch.tensor([[4, 0, 2]] * 2), torch.ones(2, 1, 5)
    plain, merging = Stage(0, 1, keep=3), Stage(0, 1, keep=3, merge=1)
    refuse_other_reduction(mine, Reduction(kept), plain, 2, 5)
    refuse_other_reduction(mine, Reduction(kept, weights), merging, 2, 5)
    for stage, reduction, message in (
        (plain, kept, "returned int64 [2, 3]; have it return a Reduction"),
        (plain, Reduction(kept[:, 1:]), "returned int64 [2, 2]; have it return int64 [2, 3]"),
        (plain, Reduction(kept + 1), "returned the token 5 in row 0"),
        (plain, Reduction(kept // 3), "returned a token twice among the 3 of row 0"),
        (merging, Reduction(kept), "returned nothing; have it return float [2, 1, 5]"),
        (plain, Reduction(kept, weights), "returned float32 [2, 1, 5]; have it return float [2, 0"),
        (merging, Reduction(kept, -weights), "returned weights that are negative"),
    ):
        with pytest.raises(PrunecalError) as caught:
            refuse_other_reduction(mine, reduction, stage, 2, 5)
        assert str(caught.value).startswith("`select` of the strategy mine (mine.py) " + message)


def test_stages_that_leave_another_number_of_tokens_than_the_budget_are_refused():
    from prunecal.engine.interfaces import Stage
    from prunecal.engine.selections import refuse_other_budget

    mine = ModuleType("mine")
    mine.__file__ = "mine.py"
    refuse_other_budget(mine, [Stage(0, 1, 5), Stage(1, 2, 2, merge=1)], 3, 9)
    for stages, message in (
        ([Stage(0, 1, 3), Stage(1, 2, 2)], "leaves 2 of 9 visual tokens at a budget of 3; have"),
        ([], "leaves 9 of 9 visual tokens at a budget of 3; have its last stage leave 3"),
        (Stage(0, 1, 3), "returned Stage(look=0, cut=1, keep=3, merge=0); have it return a list"),
        ([Stage(0, 1, 3.0)], "returned [Stage(look=0, cut=1, keep=3.0, merge=0)]; have it return"),
        (None, "returned None; have it return a list of Stage, with whole numbers"),
    ):
        with pytest.raises(PrunecalError) as caught:
            refuse_other_budget(mine, stages, 3, 9)
        assert str(caught.value).startswith("`stages` of the strategy mine (mine.py) " + message)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"Mine"', '"Mine', "SyntaxError: unterminated string literal"),
        ('"Mine"', "Mine", "NameError: name 'Mine' is not defined"),
        ("prunecal.core.parameters", "prunecal.parameters", "ModuleNotFoundError: No module named"),
    ],
)
def test_a_plugin_that_python_cannot_read_is_refused_in_one_sentence(installed, old, new, fault):
    name = installed(MINE.replace(old, new))
    with pytest.raises(PrunecalError) as caught:
        plugins.load("strategies", name)
    assert "the strategy 'mine' cannot be imported from outside_" in str(caught.value)
    assert f"({fault}" in str(caught.value)


@pytest.mark.parametrize(
    ("features", "saliency", "message"),
    [
        (
            (9, 4),
            torch.ones(10),
            "gives the image 'i' features [9, 4] and saliency [10]; have it give [N, D]",
        ),
        ((1, 9, 4), torch.ones(9), "gives the image 'i' features [1, 9, 4] and saliency [9]"),
        ((0, 4), torch.ones(0), "gives the image 'i' features [0, 4] and saliency [0]"),
        ((9, 4), torch.full((9,), torch.nan), "gives NaN or infinity for image 'i'"),
        ((9, 4), torch.ones(9).half(), "gives saliency as torch.float16; have it give torch.flo"),
    ],
)
def test_features_without_a_saliency_for_each_token_are_refused(features, saliency, message):
    from prunecal.encode import refuse_unsound
    from prunecal.engine.interfaces import Encoded

    with pytest.raises(PrunecalError) as caught:
        refuse_unsound("mine", "i", Encoded(torch.ones(features), saliency))
    assert message in str(caught.value)
    refuse_unsound("mine", "i", Encoded(torch.ones(9, 4), torch.ones(9)))
