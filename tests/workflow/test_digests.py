"""Every function that a stage really calls counts in its digest: held against a profiled run."""

import json

from helpers.small_project import Project
from prunecal.caching import fingerprint, reach

PROFILER = """
import atexit, json, os, sys, threading
from pathlib import Path

PACKAGE = f"{Path(__file__).parent / 'prunecal'}{os.sep}"
CALLS = Path(__file__).parents[1] / "calls"
calls = set()


def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(PACKAGE):
        calls.add((code.co_filename.removeprefix(PACKAGE), code.co_qualname))


def write():
    CALLS.mkdir(exist_ok=True)
    text = json.dumps([os.environ["PRUNECAL_CODE"], sorted(calls)])
    (CALLS / f"{os.getpid()}.json").write_text(text)


if "PRUNECAL_CODE" in os.environ:
    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)
"""
STAGES = {"data", "model", "encode", "rank", "infer", "score", "compare", "claims"}


def test_every_function_that_a_stage_calls_counts_in_its_digest(tmp_path):
    project = Project.create(tmp_path / "study")
    (project.folder / "workflow" / "sitecustomize.py").write_text(PROFILER)
    project.run("results/metrics.parquet", "results/claims.json")
    stages = set()
    for path in (project.folder / "calls").iterdir():
        record, calls = json.loads(path.read_text())
        kind, *modules = record.split()[1:]
        walk = reach.Reach(tuple(modules), texts=kind == fingerprint.PAGE)
        stages.add(modules[0].removeprefix("prunecal."))
        missed = {call for call in map(tuple, calls) if not counts(walk, *call)}
        assert not missed, modules[0]
    assert stages == STAGES


def counts(walk, file, name):
    """Tell whether a called function is in a walk, or computes nothing."""
    module = f"prunecal.{file.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
    outer, *inner = name.split(".")
    if reach._is_plumbing(module) or outer.startswith("<"):  # a module's own statements
        return True
    if outer in ("protocol", "_refuse_contradictions", "known_plugin") or (
        outer.lstrip("_")[0].isupper() and not inner
    ):
        return True  # a plugin or a setting is checked, or a class defined: nothing is computed
    method = ".".join([outer, *inner[:1]])
    key = method if method in reach._read_module(module).nodes else outer
    return (module, key) in walk._seen
