"""Tokens, logins and the home folder's place are not written down."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.tiny_llava import picture, png
from prunecal.core import redaction
from prunecal.core.errors import PrunecalError
from prunecal.datasets import pope
from prunecal.study.cells import load_study

WORKFLOW = Path(redaction.__file__).parents[2]
TOKEN = "hf_MarkedMarkedMarked0123456789"


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "someone"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return home


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{home}", "~"),
        ("in {home}/results, '{home}'.", "in ~/results, '~'."),
        ('{{"path": "{home}/llava"}}', '{{"path": "~/llava"}}'),
        (r"'first\n{home}/x'", r"'first\n~/x'"),
        ("--path={home}/x file://{home}/y", "--path=~/x file://~/y"),
        ("{home}else {home}-2 /mnt{home} x{home}", None),
        ("HF_TOKEN={token}!", "HF_TOKEN=***!"),
        ("Bearer hf_" + "z" * 30, "Bearer ***"),
        ("https://ann:secret@hub.example/x", "https://***@hub.example/x"),
        ("ann@example.org, a hf_mark and https://hub.example/@x", None),
        ("http://bob:Pa@SsW0rd/TAIL@127.0.0.1:9/x y@z", "http://***@127.0.0.1:9/x y@z"),
        (
            '\'http://u:ab/cdSECRET@host/\', "http://u:p@h","a@b"',
            '\'http://***@host/\', "http://***@h","a@b"',
        ),
        ("http://u:it's@host http://u:\\\"x@host", "http://***@host http://***@host"),
        ("proxy bob:secret@proxy.example:3128", "proxy ***@proxy.example:3128"),
        ("to=http%3A%2F%2Fbob%3Asecret%40host", "to=http%3A%2F%2F***%40host"),
        (
            "https://h/x?token=abc&name=1&X-Amz-Signature=d#f",
            "https://h/x?token=***&name=1&X-Amz-Signature=***#f",
        ),
        (
            "https://h/x?api_key=abc; HF_TOKEN=tiny PASSWORD=b",
            "https://h/x?api_key=***; HF_TOKEN=*** PASSWORD=***",
        ),
        (
            "Authorization: Basic Ym9iOnNlY3JldA== and 'authorization': 'Bearer abcdefgh'",
            "Authorization: Basic *** and 'authorization': 'Bearer ***'",
        ),
        (r"https:\/\/ann:secret@hub.example\/x", r"https:\/\/***@hub.example\/x"),
        ("https://h/x?jwt=abc&session_id=d", "https://h/x?jwt=***&session_id=***"),
        (
            "GITHUB_TOKEN=abc --password=d AWS_SECRET_ACCESS_KEY=e",
            "GITHUB_TOKEN=*** --password=*** AWS_SECRET_ACCESS_KEY=***",
        ),
        (
            '{{"token": "abcdefghij012345", \'hf_token\': \'d"e\', "password": "f\'g"}}',
            '{{"token": "***", \'hf_token\': \'***\', "password": "***"}}',
        ),
        ("{{'token': ' Yes', 'logprob': -0.1}} MAX_NEW_TOKEN=16 https://h/?language_code=e", None),
        ("bos_token: '<s>', 'image_token': '<image>', \"tokens\": 3", None),
        ("batch_tokens=4096 visual_tokens=576 keys=3 a basic functions 12:30 a:b C:/x@y", None),
        ("line 3: error:it @ 5, file.py:12 (x@y)", None),
    ],
)
def test_what_is_hidden_and_what_is_not(home, text, expected):
    given = text.format(home=home, token=TOKEN)
    assert redaction.hidden(given) == (given if expected is None else expected.format())


def test_a_short_or_empty_token_hides_nothing(home, monkeypatch):
    for token in ("", " ", "a"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert redaction.hidden("a b a") == "a b a"


def test_a_home_at_the_root_hides_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert redaction.hidden("/results / and //x") == "/results / and //x"


def test_a_home_that_is_a_link_is_hidden_by_both_of_its_names(home, tmp_path, monkeypatch):
    (tmp_path / "linked").symlink_to(home)
    monkeypatch.setenv("HOME", str(tmp_path / "linked"))
    assert redaction.hidden(f"{tmp_path}/linked/x {home}/x") == "~/x ~/x"


def test_paths_may_begin_at_home_and_are_kept_so(home):
    assert redaction.expanded(Path("~/x")) == home / "x"
    params = pope.Params(questions="~/questions", images="~/images")
    assert (params.questions, params.images) == (home / "questions", home / "images")
    model = {"name": "m", "family": "llava", "visual_tokens": 4, "path": "~/llava"}
    data = {"name": "d", "loader": "digits-pope"}
    settings = {"title": "t", "models": [model], "datasets": [data], "strategies": ["full"]}
    study = load_study({**settings, "budgets": [2]})
    assert study.models[0].source()["path"] == "~/llava"
    with pytest.raises(PrunecalError, match="path.*~nobody-here.*give the whole path"):
        load_study({**settings, "budgets": [2], "models": [model | {"path": "~nobody-here/x"}]})


def stage(home, module, *arguments, fails, **environment):
    """Run a stage as a user with marked settings; return what it said and what it wrote."""
    out = home.parent / "out"
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", f"prunecal.{module}", *map(str, arguments), "--log", out / "log"],
        capture_output=True,
        text=True,
        cwd=WORKFLOW,
        env=os.environ | environment,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr
    written = [path.read_bytes() for path in out.iterdir()]
    assert any(written)
    for content in (done.stderr.encode(), done.stdout.encode(), *written):
        for mark in (str(home), TOKEN, "MarkedPassword"):
            assert mark.encode() not in content
    return done.stderr, (out / "log").read_text(encoding="utf-8")


def data(home, image):
    line = {"question_id": 1, "image": "a.jpg", "text": "Is there a cat?", "label": "yes"}
    (home / "coco_pope_random.json").write_text(json.dumps(line))
    (home / "a.jpg").write_bytes(image)
    out = home.parent / "out"
    params = json.dumps({"questions": str(home), "images": str(home)})
    arguments = ["--dataset", "polls", "--loader", "pope", "--params", params]
    return [*arguments, "--questions", out / "q.parquet", "--images", out / "i.parquet"]


def test_a_stage_that_reads_below_home_does_not_write_where(home):
    stage(home, "data", *data(home, png(picture(0))), fails=False)


def test_a_stage_that_fails_below_home_does_not_say_where(home):
    params = json.dumps({"family": "llava", "path": str(home / "nowhere")})
    out = home.parent / "out" / "m.json"
    arguments = ["--model", "m", "--params", params, "--manifest", out]
    said, log = stage(home, "model", *arguments, fails=True)
    assert said == "~/nowhere is not a folder; give the model's folder as `path:`\n"
    assert "Traceback" in log
    assert "~/nowhere" in log


@pytest.mark.slow
def test_a_hub_out_of_reach_is_named_without_the_login_in_its_address(home):
    params = json.dumps({"family": "llava", "repo": "a/b", "revision": "0" * 40})
    arguments = ["--model", "m", "--params", params, "--manifest", home.parent / "out" / "m.json"]
    # the Hub's client waits between its retries
    (home / "sitecustomize.py").write_text("import time; time.sleep = lambda seconds: None")
    paths = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"http://ann:MarkedPassword@127.0.0.1:{unused.getsockname()[1]}"
        own = {"HF_ENDPOINT": address, "PYTHONPATH": paths}
        said, _ = stage(home, "model", *arguments, fails=True, **own)
    assert "http://***@127.0.0.1" in said
