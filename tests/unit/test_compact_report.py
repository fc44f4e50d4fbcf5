"""The report holds its large items deflated, and shows the same."""

import base64
import json
import re
import zlib

import pytest

from prunecal.core.errors import PrunecalError
from prunecal.report import compact_report
from prunecal.report.html import svg_uri
from prunecal.storage import files

FIGURE = b"<svg>" + b'<path d="M0 0L1 1"/>' * 12_000 + b"</svg>"
CAPTION = 'a text with </script><script id="results">var results = {"": 0}'


def report(items):
    """Return a page as Snakemake writes it around its items."""
    before = f"<script>var workflow_desc = {json.dumps(CAPTION)};</script>"
    held = f'<script id="results">\n    var results = {json.dumps(items)};\n    </script>'
    return f"<html>{before}{held}<script>root.render()</script></html>"


def test_large_items_are_deflated_and_everything_else_stays(tmp_path):
    item = {"caption": CAPTION, "mime_type": "image/svg+xml"}
    small = {**item, "data_uri": svg_uri(b"<svg></svg>")}
    original = report({"a.svg": {**item, "data_uri": svg_uri(FIGURE)}, "small.svg": small})
    path, study = tmp_path / "report.html", tmp_path / "study.json"
    path.write_text(original)
    study.write_text("{}")
    arguments = compact_report.arguments_of([str(path), "--made-from", str(study)])
    compact_report.main(arguments)
    assert files.undamaged(path)
    assert list(files.sources_of(path)) == [study]
    text = path.read_text()
    assert len(text) < len(original) / 5
    place = re.search(r'<script id="results">\s*var results = (?={)', text).end()
    items, end = json.JSONDecoder().raw_decode(text, place)
    packed = items["a.svg"].pop("packed")
    assert zlib.decompress(base64.b64decode(packed)) == FIGURE
    assert items == {"a.svg": item, "small.svg": small}
    assert "</script>" not in text[place:end]  # which would end the script
    assert text[:place] == original[:place]
    assert text.endswith(original[original.index(";\n    </script>") :])


def test_a_page_that_is_no_report_is_refused():
    with pytest.raises(PrunecalError, match="does not hold its items as"):
        compact_report.compact("<html></html>")
