import pytest

from helpers import pages, synthetic_results

pytestmark = pytest.mark.slow
OTHERS = ("public-functions", "tutorial", "import-answers", "caching")
GUIDES = [
    *sorted(pages.ROOT.glob("docs/add-a-*.md")),
    *(pages.ROOT / "docs" / f"{name}.md" for name in OTHERS),
]


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    few = ["full", {"strategy": "random", "seed": 0}, {"strategy": "scope", "alpha": 0.0}]
    settings = synthetic_results.study(few, budgets=(4, 8))
    made = synthetic_results.write(tmp_path_factory.mktemp("study"), settings)
    synthetic_results.write_sources(made)
    return made


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_works_as_written(page, tmp_path, results):
    pages.copy_project(tmp_path, results)
    # from imported answers to every page of the report: without what runs models
    absent = ("torch", "transformers", "tokenizers") if page.stem == "import-answers" else ()
    pages.follow(page, tmp_path, absent)
