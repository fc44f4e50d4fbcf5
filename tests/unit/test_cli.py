import subprocess
import sys
from pathlib import Path

import pytest

from prunecal.core import cli
from prunecal.core.errors import brief

STAGE = """
import warnings
from prunecal.core import cli
from prunecal.core.errors import PrunecalError

def main(arguments):
    cli.log.debug("a detail")
    cli.log.info("at work")
    {body}

cli.run(main, cli.parser("A stage.").parse_args())
"""


def run(tmp_path, body, *, log=True):
    """Run a stage with this body; return its exit code, its lines on stderr, and its log."""
    path = tmp_path / "logs" / "deep" / "stage.log"
    done = subprocess.run(
        [sys.executable, "-c", STAGE.format(body=body), *(["--log", path] if log else [])],
        cwd=Path(cli.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines(), path.read_text() if log else None


def test_a_stage_that_succeeds_says_what_it_does(tmp_path):
    code, lines, log = run(tmp_path, "pass")
    assert (code, lines) == (0, ["at work"])
    assert "DEBUG a detail" in log
    assert "INFO at work" in log


def test_a_users_error_is_one_line_and_its_traceback_is_in_the_log(tmp_path):
    body = (
        "raise PrunecalError('x.json is broken\\n(line 3);\\nmake it again') from OSError('disk')"
    )
    code, lines, log = run(tmp_path, body)
    assert code == 1
    assert lines == ["at work", "x.json is broken (line 3); make it again"]
    assert "Traceback" in log
    assert "OSError: disk" in log
    assert "ERROR x.json is broken (line 3); make it again" in log


def test_an_unexpected_failure_has_its_traceback_in_the_log(tmp_path):
    code, lines, log = run(tmp_path, "raise KeyError('nobody expects')")
    assert code == 1
    assert cli.UNEXPECTED in lines
    for text in ("\n".join(lines), log):
        assert "Traceback" in text
        assert "KeyError: 'nobody expects'" in text


DISK = {
    "raise OSError(28, 'x', 'results/a.csv')": "results/a.csv cannot be written (No space left on",
    "raise RuntimeError('lib') from OSError(30, 'x', 'b')": "b cannot be written (Read-only file",
    "raise PermissionError(13, 'x', 'c')": "c cannot be used (Permission denied); grant yourself",
    "raise Exception('lib (os error 28)')": "a file cannot be written (No space left on device)",
}


@pytest.mark.parametrize(("body", "message"), DISK.items())
def test_a_fault_of_the_disk_is_one_line_and_its_traceback_is_in_the_log(tmp_path, body, message):
    code, lines, log = run(tmp_path, body)
    assert code == 1
    assert len(lines) == 2
    assert lines[1].startswith(message)
    assert "Traceback" in log


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing():
    done = subprocess.run(
        [sys.executable, "-c", STAGE.format(body="cli.log.info('done')"), "--log", "/dev/full"],
        cwd=Path(cli.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0].startswith("the log /dev/full cannot be written ([Errno 28] No space left")
    assert lines[1:] == ["at work", "done"]


@pytest.mark.parametrize(("body", "code"), [("raise PrunecalError('no')", 1), ("pass", 0)])
def test_a_stage_needs_no_log(tmp_path, body, code):
    assert run(tmp_path, body, log=False)[0] == code


def test_warnings_reach_the_log_and_the_terminal(tmp_path):
    code, lines, log = run(tmp_path, "warnings.warn('look out', stacklevel=1)")
    assert code == 0
    assert any("look out" in line for line in lines)
    assert "WARNING" in log
    assert "UserWarning: look out" in log


def test_a_log_holds_the_last_run_alone(tmp_path):
    run(tmp_path, "cli.log.info('the first run')")
    _, _, log = run(tmp_path, "cli.log.info('the second run')")
    assert "second" in log
    assert "first" not in log


def test_text_of_any_script_reaches_the_log(tmp_path):
    _, _, log = run(tmp_path, "raise PrunecalError('ü 看 🔥')")
    assert "ü 看 🔥" in log


def test_progress_passes_all_items_on(capsys):
    assert list(cli.progress(range(5), total=5, what="count", unit="item")) == [0, 1, 2, 3, 4]
    assert "count: 100%" in capsys.readouterr().err


def test_messages_show_values_that_python_cannot_print():
    deep = []
    for _ in range(100_000):  # Python 3.13 prints 5,000
        deep = [deep]
    assert brief(deep) == brief([10**5000]) == "a list"
    assert brief(10**5000).startswith("0x")
