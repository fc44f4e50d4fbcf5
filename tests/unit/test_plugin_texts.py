"""Hostile text in any setting of any plugin is refused in one sentence, or taken as text.

`test_escaping.py` renders those that are taken.
"""

import pytest

from helpers.plugin_texts import PLUGINS, kind_of, settings_with

TEXTS = {
    "html": "</td></script><script>alert('x')</script><img src=x onerror=\"alert(1)\"><!-- &lt;",
    "latex": "\\input{x} \\write18{y} #1 % $x$ & _ ^ ~ {",
    "rst": "x\n\n.. raw:: html\n\n   <script>alert(1)</script>\n\n.. include:: /etc/passwd\n\n",
    "format": "{wildcards.model} {{ x }} {% y %} $(touch PWN) `touch PWN` '; touch PWN; '",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_hostile_text_in_a_setting_of_a_plugin_is_refused_in_one_sentence_or_taken(text):
    taken, refused = set(), set()
    for folder, name in PLUGINS:
        given, why = settings_with(folder, name, text)
        taken |= {(folder, name, field) for field in given}
        refused |= {(folder, name, field) for field in why}
        for field, reason in why.items():
            assert "\n" not in reason, (name, field)
            assert field in reason, (name, field)
            assert len(reason) < 1000, (name, field)
    assert taken | refused == {
        (folder, name, field)
        for folder, name in PLUGINS
        for field in kind_of(folder, name).model_fields
    }
    assert {("strategies", "scope", "alpha"), ("models", "llava", "image")} <= refused
