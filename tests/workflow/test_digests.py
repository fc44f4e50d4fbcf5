"""A second run from scratch, profiled: equal bytes, by functions that all count in the digests."""

import json

import pytest

from helpers.small_project import Project
from prunecal.caching import code_files, fingerprint, reach

PROFILER = """
import atexit, inspect, json, os, sys, threading
from pathlib import Path

PACKAGE = f"{Path(__file__).parent / 'prunecal'}{os.sep}"
CALLS = Path(__file__).parents[1] / "calls"
calls = set()


def name(code):
    return code.co_filename.removeprefix(PACKAGE), code.co_qualname


def runs_once(code):
    return not code.co_flags & inspect.CO_OPTIMIZED  # the body of a class or a module


def note(frame, event, argument):
    code = frame.f_code
    if event != "call" or not code.co_filename.startswith(PACKAGE) or runs_once(code):
        return
    call = (*name(code), None)
    while call not in calls:
        frame = frame.f_back
        if frame is None or frame.f_globals["__name__"] == "__main__" and runs_once(frame.f_code):
            calls.add(call)
        elif name(frame.f_code) == ("core/plugins.py", "_check"):
            return  # a plugin is checked, and nothing computed
        elif runs_once(frame.f_code) and frame.f_code.co_filename.startswith(PACKAGE):
            file, defined = name(frame.f_code)
            at = f"line {frame.f_lineno}" if defined == "<module>" else defined
            calls.add((*name(code), (file, at)))
            return


def write():
    CALLS.mkdir(exist_ok=True)
    text = json.dumps([os.environ["PRUNECAL_CODE"], list(calls)])
    (CALLS / f"{os.getpid()}.json").write_text(text)


if "PRUNECAL_CODE" in os.environ:
    atexit.register(write)
    threading.setprofile(note)
    sys.setprofile(note)
"""
STAGES = {"data", "model", "encode", "rank", "infer", "score", "compare", "claims"}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """Run the small study from scratch, on one core; each job notes the functions that it calls."""
    project = Project.create(tmp_path_factory.mktemp("profiled") / "study")
    (project.folder / "workflow" / "sitecustomize.py").write_text(PROFILER)
    project.run("results/metrics.parquet", "results/claims.json", cores=1)
    return project


def test_two_runs_from_scratch_give_equal_bytes_whatever_the_cores(undisturbed, profiled):
    found = profiled.numbers()
    assert found.items() <= undisturbed.numbers().items()
    assert {"results/comparisons.parquet", "results/claims.json", *profiled.cells()} <= set(found)


def test_every_function_that_a_stage_calls_counts_in_its_digest(profiled):
    stages = set()
    for path in (profiled.folder / "calls").iterdir():
        record, calls = json.loads(path.read_text())
        kind, *modules = record.split()[1:]
        walk = reach.Reach(tuple(modules), texts=kind == fingerprint.PAGE)
        stages.add(modules[0].removeprefix("prunecal."))
        missed = {
            (file, name)
            for file, name, defining in calls
            if not counts(walk, file, name)
            if defining is None or counts(walk, *defining)  # else of a definition that nothing uses
        }
        assert not missed, modules[0]
    assert stages == STAGES


def counts(walk, file, name):
    """Tell whether a called function, a class, or what a line of a module defines is in a walk."""
    module = f"prunecal.{file.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
    outer, *inner = name.split(".")
    if code_files.is_plumbing(module) or outer.startswith("<"):  # a module's own statements
        return True
    if name.startswith("line "):
        nodes, at = reach._read_module(module).nodes, int(name.removeprefix("line "))
        defined = [
            key for key in nodes for node in nodes[key] if node.lineno <= at <= node.end_lineno
        ]
        return any((module, key) in walk._seen for key in defined)
    method = ".".join([outer, *inner[:1]])
    key = method if method in reach._read_module(module).nodes else outer
    return (module, key) in walk._seen
