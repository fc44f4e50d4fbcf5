import subprocess
import sys
from pathlib import Path

import pytest

from prunecal.core import plugins
from prunecal.core.errors import PrunecalError, nearest

FOLDERS = ["strategies", "datasets", "models", "recipes"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_plugins_are_its_files(folder):
    found = Path(plugins.__file__).parents[1].joinpath(folder).glob("[!_]*")
    expected = sorted(path.stem.replace("_", "-") for path in found)
    assert plugins.names(folder) == expected
    assert expected


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_plugin_is_loaded_by_its_name(folder):
    for name in plugins.names(folder):
        module = plugins.load(folder, name)
        assert module.__name__ == plugins.module_name(folder, name)
        assert module.__doc__


def test_underscores_of_files_are_hyphens_of_names():
    assert plugins.module_name("strategies", "fastv-two-pass") == (
        "prunecal.strategies.fastv_two_pass"
    )


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("strategies", "scoop", "the strategy 'scoop' is unknown (did you mean 'scope'?); known "),
        ("strategies", "fastv_two_pass", "(did you mean 'fastv-two-pass'?)"),
        ("datasets", "popes", "the data set loader 'popes' is unknown (did you mean 'pope'?)"),
        ("models", "lava", "the model family 'lava' is unknown (did you mean 'llava'?); known are"),
        ("recipes", "digit", "the recipe 'digit' is unknown (did you mean 'digits'?); known are"),
        ("strategies", "zzz", "the strategy 'zzz' is unknown; known are divprune, "),
        ("strategies", "_similarity", "the strategy '_similarity' is unknown"),
        ("strategies", "", "the strategy '' is unknown; known are"),
    ],
)
def test_an_unknown_plugin_gets_the_nearest_name(folder, name, message):
    with pytest.raises(PrunecalError) as caught:
        plugins.load(folder, name)
    assert message in str(caught.value)


def test_a_name_far_from_all_gets_no_suggestion():
    assert nearest("quux", ["scope", "random"]) == ""
    assert nearest("sope", ["random", "scope"]) == " (did you mean 'scope'?)"


def test_a_new_file_is_a_new_plugin(tmp_path):
    (tmp_path / "prunecal" / "strategies").mkdir(parents=True)
    (tmp_path / "prunecal" / "strategies" / "my_own.py").write_text('"""Mine."""\nLABEL = "Mine"\n')
    code = (
        "import sys, prunecal.strategies as folder\n"
        "folder.__path__.append(sys.argv[1] + '/prunecal/strategies')\n"
        "from prunecal.core import plugins\n"
        "assert 'my-own' in plugins.names('strategies')\n"
        "assert plugins.load('strategies', 'my-own').LABEL == 'Mine'\n"
    )
    workflow = Path(plugins.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=workflow, check=True)
