"""A made-up study with another text in every free setting and in every column of its data."""

import copy
from typing import get_args

import pyarrow as pa

from helpers import synthetic_results
from helpers.plugin_texts import PLUGINS, settings_with
from prunecal.calibration import catalogue
from prunecal.core.errors import PrunecalError
from prunecal.storage import files
from prunecal.storage.arrays import open_arrays, write_arrays
from prunecal.study import data_settings, model_settings, run_settings, settings
from prunecal.study.cells import load_study
from prunecal.study.settings import Study

EVIL = (  # to HTML, reStructuredText, Jinja, Snakemake, a shell, LaTeX, matplotlib, a spreadsheet
    '</td></script><script>window.RUN=1</script><img src=x onerror="window.RUN=1"><!-- &lt;&amp '
    "' \" `l <javascript:window.RUN=1>`_ {wildcards.model} {{ x }} {% y %} $(touch RUN) `touch RUN`"
    " \\input{token} #1 % $\\frac{x$ _ ^ ~ =1+1"
)
EVIL_NAME = '<img src=x onerror="alert(1)"> `a`_ {x} $\\frac{x$ \\input{token} % # & _ ^ ~'
DATASETS = synthetic_results.DATASETS
IMPORTED = [
    {"model": synthetic_results.MODEL, "dataset": dataset, "strategy": "elsewhere", "budget": 8}
    | {"family": "x", "parameters": {"a note": "x"}, "file": "answers.csv"}
    for dataset in DATASETS
]
SETTINGS = synthetic_results.study(
    ["full", "saliency", {"strategy": "scope", "alpha": [0.0, 1.0]}], [4, 8], imported=IMPORTED
)
EXPECTED = [
    {"model": synthetic_results.MODEL, "dataset": "toy-pope", "metric": "accuracy", "value": 0.5}
    | {"tolerance": 0.1, "source": "a paper"}
]
BLOCKS = (settings, model_settings, data_settings, run_settings)
MODELS = [one for block in BLOCKS for one in vars(block).values() if hasattr(one, "model_fields")]


def spoil_table(path, change):
    """Change the texts in all columns of a parquet file, within lists too."""
    table, facts = files.read_table(path), files.read_facts(path)
    for field in table.schema:
        name, kind = field.name, getattr(field.type, "value_type", field.type)
        if not pa.types.is_string(kind):
            continue
        values = table.column(name).to_pylist()
        new = [[*map(change, one)] if isinstance(one, list) else change(one) for one in values]
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(new, table.schema.field(name).type))
    files.write_table(path, table, facts)


def kinds(annotation):
    """Yield an annotation and those that it is made of."""
    yield annotation
    for one in get_args(annotation):
        yield from kinds(one)


def blocks(kind, settings):
    """Yield the blocks of a study's settings, each with the class that describes it."""
    yield settings, kind
    for name, field in kind.model_fields.items():
        inner = [one for one in kinds(field.annotation) if one in MODELS]
        value = settings.get(name)
        for part in value if isinstance(value, list) else [value]:
            if inner and isinstance(part, dict):
                yield from blocks(inner[0], part)


def with_texts(settings, change):
    """Change, or add, each text of a study's settings that may be another one."""
    settings, alike = copy.deepcopy(settings), {}
    for block, kind in blocks(Study, settings):
        alike.setdefault(kind, []).append(block)
    for kind, together in alike.items():  # cells of one strategy need the same texts
        for name, field in kind.model_fields.items():
            if str in kinds(field.annotation):
                _change(settings, together, name, change)
    return settings


def _change(settings, together, name, change):
    """Change a text in some blocks of the settings, unless the study is then refused."""
    before = [dict(block) for block in together]
    for make in (change, lambda _: EVIL_NAME):  # some have room for little
        for block in together:
            value = block.get(name) or "x"
            pairs = isinstance(value, dict)
            block[name] = {make(key): make(value[key]) for key in value} if pairs else make(value)
        try:
            catalogue.refuse_unknown(value.metric for value in load_study(settings).expect)
        except (PrunecalError, ValueError):
            for block, old in zip(together, before, strict=True):
                block.clear()
                block |= old
        else:
            return


def loaders(change):
    """Return the settings of each loader that takes a text, those with the most texts first."""
    given = [
        {"loader": name} | settings_with(folder, name, change("x"))[0]
        for folder, name in PLUGINS
        if folder == "datasets"  # no setting of other plugins takes any text: test_escaping.py
    ]
    return sorted((one for one in given if len(one) > 1), key=len, reverse=True)


def study(change, *, read=False):
    """Return settings with all texts changed.

    Args:
        change: makes another text of one.
        read: whether loaders that take texts read the study's data sets; else further ones.
    """
    changed = with_texts({**SETTINGS, "expect": EXPECTED}, change)
    if read:
        pairs = zip(DATASETS, loaders(change), strict=False)
        return changed | {"datasets": [{"name": name} | one for name, one in pairs]}
    more = [{"name": f"more-{one['loader']}"} | one for one in loaders(change)]
    return changed | {"datasets": changed["datasets"] + more}


def write(folder, change, *, read=False):
    """Write a made-up study with all its texts changed, see `study`; return its results."""
    results = synthetic_results.write(folder, with_texts(SETTINGS, change))
    files.write_json(results / "study.json", study(change, read=read))
    for path in results.rglob("*.parquet"):
        if path.name in ("questions.parquet", "images.parquet", "predictions.parquet"):
            spoil_table(path, change)
    synthetic_results.write_sources(results)
    for path in [*results.rglob("ranking.safetensors"), *results.rglob("features.safetensors")]:
        file = open_arrays(path)
        facts = file.facts
        facts["image_id"] = [*map(change, facts["image_id"])]
        write_arrays(path, {name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
    claims = files.read_json(results / "claims.json")
    for claim in claims:
        claim["id"], claim["statement"] = change(claim["id"]), change(claim["statement"])
        claim["evidence"]["words"] = [*map(change, claim["evidence"]["words"])]
        for case in claim["evidence"]["numbers"]:
            case["quantity"], case["subset"] = change(case["quantity"]), change(case["subset"])
    files.write_json(results / "claims.json", claims)
    for path in results.rglob("provenance.json"):
        note = files.read_json(path)
        changed = {key: change(note[key]) for key in ("device", "platform")}
        versions = {name: change(number) for name, number in note["versions"].items()}
        files.write_json(path, note | changed | {"versions": versions})
    return results
