"""No file can run code or reach out of its folder: in our own code, in models, by their names."""

import ast
import io
import json
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from helpers.loopback_hub import SHA, Hub, serve, use
from helpers.tiny_llava import picture, png, tiny_llava
from prunecal.core.errors import PrunecalError
from prunecal.datasets import pope
from prunecal.sources import hub, safe_paths

ROOT = Path(__file__).parents[2]
PYTHON = [path for part in ("workflow", "tests", "envs") for path in (ROOT / part).rglob("*.py")]
RULES = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("tarfile", "zipfile", "pandas.io.pickle", "imp"),  # no archive is opened, so none is checked
}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {  # by the module's name or its usual short one; None stands for anything
    **dict.fromkeys(["load", "save"], {"torch", "joblib", "pickle"}),
    **dict.fromkeys(["full_load", "unsafe_load", "load_all", "full_load_all"], {"yaml"}),
    **dict.fromkeys(["system", "popen", "execv", "spawnv"], {"os"}),
    **dict.fromkeys(["getoutput", "getstatusoutput"], {"subprocess"}),
    **dict.fromkeys(["read_pickle", "to_pickle", "unpack_archive", "mktemp"], {None}),
}
MUST_BE_FALSE = {"trust_remote_code", "shell", "allow_pickle"}


def faults(source):
    """Return line and text of whatever could run code that came with a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            found += [(line, name.name) for name in node.names if _unsafe(name.name)]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{name.name}" for name in node.names]
            found += [(line, name) for name in whole if _unsafe(name)]
        elif isinstance(node, ast.Call):
            given = [(keyword.arg, keyword.value) for keyword in node.keywords]
            found += [(line, fault) for fault in [*_faults_of_call(node), *_true(given)]]
        elif isinstance(node, ast.Dict):  # may be given as **options
            given = zip(map(_constant, node.keys), node.values, strict=True)
            found += [(line, fault) for fault in _true(given)]
    return found


def _unsafe(module):
    return any(module == one or module.startswith(f"{one}.") for one in MODULES)


def _faults_of_call(call):
    function = call.func
    if isinstance(function, ast.Name) and function.id in NAMES:
        yield function.id
    if isinstance(function, ast.Attribute):
        base, name = ast.unparse(function.value), function.attr
        owners = CALLS.get(name, set())
        pytest_makes_a_folder = name == "mktemp" and base == "tmp_path_factory"
        if (base in owners or None in owners) and not pytest_makes_a_folder:
            yield f"{base}.{name}"
        if base == "yaml" and name == "load":
            yield "yaml.load"
        computed = any(not isinstance(one, ast.Constant) for one in call.args)
        if name in ("eval", "query") and computed:  # of pandas; a model's eval() takes nothing
            yield f"{base}.{name}"


def _constant(node):
    return node.value if isinstance(node, ast.Constant) else None


def _true(given):
    for name, value in given:
        if name in MUST_BE_FALSE and _constant(value) is not False:
            yield f"{name}={ast.unparse(value)}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import numpy, dill as d",
        "from pickle import loads",
        "from pandas.io import pickle",
        "import tarfile",
        "eval('1')",
        "exec(open('x').read())",
        "torch.load('x.pt', weights_only=True)",
        "joblib.load('x')",
        "np.load('x.npy', allow_pickle=True)",
        "np.load('x.npy', allow_pickle=flag)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=None)",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained('x', **{'trust_remote_code': True})",
        "os.system('ls')",
        "pd.read_pickle('x')",
        "frame.query(text)",
        "shutil.unpack_archive('x')",
        "tempfile.mktemp()",
    ],
)
def test_code_that_could_run_a_files_code_is_found(code):
    assert len(faults(code)) == 1


def test_code_that_only_looks_like_it_is_let_be():
    assert (
        faults("model.eval(); np.load('x'); yaml.safe_load(t); re.compile('x'); json.load(f)") == []
    )
    assert faults("frame.query('a > 1')") == []
    assert faults("f(trust_remote_code=False, shell=False); 'eval(x)'; # import pickle") == []


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_file_could_run_a_files_code(path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_no_rule_could_run_a_files_code(path):
    lines = io.StringIO(path.read_text(encoding="utf-8"))
    words = {
        one.string for one in tokenize.generate_tokens(lines.readline) if one.type == tokenize.NAME
    }
    forbidden = MODULES | NAMES | MUST_BE_FALSE - {"shell"} | {"subprocess", "system", "popen"}
    assert words & forbidden == set()


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
    assert f"{name} asks for code of its own (auto_map)" in stage({"path": str(folder)}, tmp_path)
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
    with pytest.raises(PrunecalError, match=r"circle\.jpg is missing"):
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
