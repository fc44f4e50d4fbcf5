"""The listing names everything that a study can name, with its settings."""

from prunecal.calibration.catalogue import CATALOGUE
from prunecal.core import plugins
from prunecal.report.list import HEADINGS, lines


def test_every_plugin_is_listed_with_its_label_and_settings():
    text = "\n".join(lines())
    assert set(HEADINGS) == set(plugins.KINDS)
    for folder in plugins.KINDS:
        for name in plugins.names(folder):
            module = plugins.load(folder, name)
            assert f"\n  {name}: {module.LABEL}" in text
            for key in module.Params.model_fields if hasattr(module, "Params") else ():
                assert f"\n      - {key} (" in text
    assert "      - alpha (default 1.0): Saliency weight" in text
    assert "  fastv: FastV, prunes inside_llm\n" in text


def test_every_metric_is_listed_with_its_direction_and_definition():
    text = " ".join(" ".join(lines()).split())
    for key, metric in CATALOGUE.items():
        assert f"{key}: {metric.label}" in text
        assert metric.definition in text
    assert "ece: ECE (lower is better) Expected calibration error:" in text
    assert "nll: NLL in nats (lower is better)" in text
