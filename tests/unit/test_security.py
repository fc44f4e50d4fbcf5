"""No file can run code or reach out of its folder: in our own code, in models, by their names."""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

from helpers.loopback_hub import SHA, Hub, serve, use
from helpers.tiny_llava import picture, png, tiny_llava
from prunecal.core.errors import PrunecalError
from prunecal.datasets import pope
from prunecal.sources import hub, safe_paths

ROOT = Path(__file__).parents[2]
FOLDERS = ("workflow", "rules", "tests", "envs", "benchmarks")
RULES = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
MUST_BE_FALSE = {"trust_remote_code", "allow_pickle"}
BY_RUFF = """\
import pickle
import numpy, dill as d
from pickle import loads
from pandas.io import pickle as pandas_pickle
import tarfile
eval('1')
exec(open('x').read())
import torch; torch.load('x.pt', weights_only=True)
from torch import load
import joblib
import yaml; yaml.load(text, Loader=yaml.SafeLoader)
yaml.unsafe_load(text)
import subprocess; subprocess.run('ls', shell=True)
import os; os.system('ls')
import pandas as pd; pd.read_pickle('x')
import shutil; shutil.unpack_archive('x')
import tempfile; tempfile.mktemp()
"""


def ruff(*arguments, **options):
    """Return what ruff's rules on security find, as a list of findings."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "json"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )
    findings = json.loads(done.stdout)
    return [one for one in findings if re.match(r"S\d|TID251", one["code"])]


def faults(source):
    """Return line and text of what ruff has no rule for."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Call):
            named = [(keyword.arg, keyword.value) for keyword in node.keywords]
            found += [(line, fault) for fault in [*_evaluation(node), *_true(named)]]
        elif isinstance(node, ast.Dict):  # may be passed as **options
            named = zip(map(_constant, node.keys), node.values, strict=True)
            found += [(line, fault) for fault in _true(named)]
    return found


def _evaluation(call):
    function = call.func
    if isinstance(function, ast.Name) and function.id in {"compile", "__import__"}:
        yield function.id
    computed = any(not isinstance(argument, ast.Constant) for argument in call.args)
    if isinstance(function, ast.Attribute) and function.attr in {"eval", "query"} and computed:
        yield ast.unparse(function)  # of pandas; a model's eval() takes nothing


def _constant(node):
    return node.value if isinstance(node, ast.Constant) else None


def _true(named):
    for name, value in named:
        if name in MUST_BE_FALSE and _constant(value) is not False:
            yield f"{name}={ast.unparse(value)}"


def test_ruff_names_each_line_that_could_run_a_files_code():
    findings = ruff("--stdin-filename", "workflow/prunecal/example.py", "-", input=BY_RUFF)
    lines = {finding["location"]["row"] for finding in findings}
    assert lines == set(range(1, 1 + len(BY_RUFF.splitlines())))


@pytest.mark.parametrize(
    "code",
    [
        "compile(text, 'x', 'exec')",
        "__import__('x')",
        "np.load('x.npy', allow_pickle=True)",
        "np.load('x.npy', allow_pickle=flag)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=None)",
        "AutoModel.from_pretrained('x', **{'trust_remote_code': True})",
        "frame.query(text)",
    ],
)
def test_code_that_could_run_a_files_code_is_found(code):
    assert len(faults(code)) == 1


def test_code_that_only_looks_like_it_is_let_be():
    code = "model.eval(); np.load('x'); yaml.safe_load(t); re.compile('x'); frame.query('a > 1')"
    assert faults(code) == []
    assert faults("f(trust_remote_code=False, allow_pickle=False); 'eval(x)'") == []


@pytest.mark.slow
def test_no_python_file_could_run_a_files_code():
    assert ruff(*FOLDERS) == []
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 100
    assert [(path, fault) for path in paths for fault in faults(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_no_rule_could_run_a_files_code(path):
    lines = io.StringIO(path.read_text(encoding="utf-8"))
    words = {
        one.string for one in tokenize.generate_tokens(lines.readline) if one.type == tokenize.NAME
    }
    banned = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    modules = {name.split(".")[-1] for name in banned["flake8-tidy-imports"]["banned-api"]}
    modules -= {"load", "save"}  # of other modules than torch and yaml
    assert (
        words & (modules | MUST_BE_FALSE | {"eval", "exec", "subprocess", "system", "popen"})
        == set()
    )


def marking(mark):
    """Return a pickle, as `torch.save` once wrote weights, that makes a file when it is loaded."""
    return f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()


def stage(source, folder):
    """Run the model stage as the workflow does; return what it said."""
    params = json.dumps({"family": "llava", **source})
    command = [sys.executable, "-m", "prunecal.model", "--model", "m", "--params", params]
    command += ["--manifest", str(folder / "m.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT / "workflow", check=False
    )
    assert done.returncode == 1
    assert not (folder / "m.json").exists()
    return done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny_llava(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """Return a model's folder of which each test spoils something."""
    return shutil.copytree(whole, tmp_path / "model")


def test_pickled_weights_are_refused_unread(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(marking(tmp_path / "mark"))
    said = stage({"path": str(folder)}, tmp_path)
    assert "has pickled weights only (pytorch_model.bin), which can run code" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "mark").exists()


def add_code(folder, mark, name, key):
    """Let a file of a model's folder ask for code of the model's own."""
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    path = folder / name
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"auto_map": {key: "own.Own"}}))


CODED = [
    ("config.json", "AutoConfig"),
    ("tokenizer_config.json", "AutoTokenizer"),
    ("processor_config.json", "AutoProcessor"),
    ("preprocessor_config.json", "AutoImageProcessor"),
]


@pytest.mark.parametrize(("name", "key"), CODED)
def test_a_models_own_code_is_refused_unread(folder, tmp_path, name, key):
    add_code(folder, tmp_path / "mark", name, key)
    assert f"{name} requires its own code (auto_map)" in stage({"path": str(folder)}, tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(("name", "key"), CODED)
def test_a_models_own_code_does_not_run_if_it_comes_after_the_check(folder, tmp_path, name, key):
    import torch

    from prunecal.models.llava import Llava

    add_code(folder, tmp_path / "mark", name, key)
    settings = {"visual_tokens": 16, "template": "vicuna_v1", "image": "pad", "dtype": "float32"}
    try:
        Llava(folder, settings, torch.device("cpu"))
    except ValueError as error:
        assert "trust_remote_code" in str(error)  # noqa: PT017  it may as well load without
    assert not (tmp_path / "mark").exists()


def test_weights_that_lie_outside_the_models_folder_are_refused(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    shutil.copy(tmp_path / "outside.safetensors", folder / "other.safetensors")
    index = {"weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks the weights ../outside.safetensors" in stage({"path": str(folder)}, tmp_path)


OUTSIDE = ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "..", ".", "", "..\\x", "C:\\x", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with pytest.raises(PrunecalError, match="line 3 names the file .* outside .*; give the name"):
        safe_paths.below(tmp_path, name, "line 3")


@pytest.mark.parametrize("name", ["x.jpg", "a/x.jpg", "a/./x.jpg", "..x.jpg", "x..jpg"])
def test_a_name_that_stays_is_taken(tmp_path, name):
    assert safe_paths.below(tmp_path, name, "line 3") == tmp_path / name


def poll(folder, image):
    """Write one question about an image, and an image outside of the folder of images."""
    line = {"question_id": 1, "image": image, "text": "Is there a cat?", "label": "yes"}
    (folder / "coco_pope_random.json").write_text(json.dumps(line))
    (folder / "images").mkdir()
    (folder / "secret.jpg").write_bytes(png(picture(0)))
    return pope.Params(questions=folder, images=folder / "images")


@pytest.mark.parametrize(
    "place", ["../secret.jpg", "{folder}/secret.jpg", "link.jpg", "up/secret.jpg"]
)
def test_an_image_outside_the_folder_of_images_is_not_read(tmp_path, place):
    params = poll(tmp_path, place.format(folder=tmp_path))
    (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "images" / "up").symlink_to(tmp_path)
    message = r"coco_pope_random.json line 1 names the file .*secret|link.jpg.*outside"
    with pytest.raises(PrunecalError, match=message):
        pope.load(params)


def test_an_image_whose_links_lead_in_a_circle_is_missing(tmp_path):
    params = poll(tmp_path, "circle.jpg")
    (tmp_path / "images" / "circle.jpg").symlink_to("circle.jpg")
    with pytest.raises(
        PrunecalError, match=r"circle\.jpg is a link to circle\.jpg, which does not exist"
    ):
        pope.load(params)


def test_images_in_a_folder_that_is_itself_a_link_are_read(tmp_path):
    params = poll(tmp_path, "a.jpg")
    (tmp_path / "images" / "a.jpg").write_bytes(b"picture")
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    found = pope.load(pope.Params(questions=params.questions, images=tmp_path / "linked"))
    assert list(found.images) == [("a", b"picture")]


@pytest.mark.parametrize("name", ["../../../victim.json", "{folder}/victim.json"])
def test_a_hubs_file_name_that_leads_out_touches_nothing(tmp_path, monkeypatch, name):
    victim = tmp_path / "victim.json"
    victim.write_text("mine")
    remote = Hub("someone/small", "model", {name.format(folder=tmp_path): b"theirs"})
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        with pytest.raises(PrunecalError, match="Invalid .*victim.json.*; use another repository"):
            hub.fetch("someone/small", SHA, "model", ["*.json"])
    assert victim.read_text() == "mine"
    assert remote.got == []


def test_a_cached_link_that_leads_out_is_removed_but_not_what_it_names(tmp_path, monkeypatch):
    victim = tmp_path / "victim.json"
    victim.write_text("mine")
    remote = Hub("someone/small", "model", {"config.json": b"{}"})
    with serve(remote) as address:
        use(monkeypatch, address, tmp_path / "cache")
        folder = hub.fetch("someone/small", SHA, "model", ["*.json"])
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(victim)
        hub.fetch("someone/small", SHA, "model", ["*.json"])
    assert victim.read_text() == "mine"
    assert (folder / "config.json").read_bytes() == b"{}"
