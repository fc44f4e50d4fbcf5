"""What a study consists of: its cells, the pairs of model and data set, and how they make jobs."""

from collections.abc import Iterable
from functools import cached_property
from types import ModuleType
from typing import Any

from prunecal.core import plugins
from prunecal.study.budgets import Budget, fewest_first, kept_tokens
from prunecal.study.cells import Cell, cells, imported_cell, outcome_cell
from prunecal.study.data_settings import Dataset, Imported
from prunecal.study.model_settings import Model
from prunecal.study.settings import Study
from prunecal.study.strategy_settings import TEXT_SIGNALS, read_signals

CELLS_PER_IMPORT = STRATEGIES_PER_RANK = 250


class Design:
    """The design of a study, as the rules need it.

    Attributes:
        models: settings of those that are run, by name, in the order of the config, as are the
            others.
        datasets: settings of those that a loader reads, by name.
        cells: of each model that is run, by its name.
        imported: entries of `imported:` by (model, data set).
        computed_pairs: (model, data set) of which cells are computed.
        pairs: all (model, data set), those of imported cells alone last.
        trained: names of the models that the workflow trains.
    """

    def __init__(self, study: Study):
        self.study = study
        self.models: dict[str, Model] = {model.name: model for model in study.models}
        self.datasets: dict[str, Dataset] = {dataset.name: dataset for dataset in study.datasets}
        self.cells = {name: cells(study, model) for name, model in self.models.items()}
        self.computed_pairs = [(model, name) for model in self.models for name in self.datasets]
        self.imported: dict[tuple[str, str], list[Imported]] = {}
        for entry in study.imported:
            self.imported.setdefault(entry.task, []).append(entry)
        self.pairs = list(dict.fromkeys([*self.computed_pairs, *self.imported]))
        self.trained = [name for name, model in self.models.items() if model.train]

    @cached_property
    def model_names(self) -> list[str]:
        """Names of all models, those that are run first."""
        return list(dict.fromkeys([*self.models, *(model for model, _ in self.pairs)]))

    @cached_property
    def dataset_names(self) -> list[str]:
        """Names of all data sets, those that a loader reads first."""
        return list(dict.fromkeys([*self.datasets, *(name for _, name in self.pairs)]))

    @cached_property
    def imported_datasets(self) -> dict[str, Imported]:
        """The first entry of each data set that no loader reads: its questions are in the file."""
        first: dict[str, Imported] = {}
        for entry in self.study.imported:
            if entry.dataset not in self.datasets:
                first.setdefault(entry.dataset, entry)
        return first

    @cached_property
    def pair_cells(self) -> dict[tuple[str, str], list[Cell]]:
        """The cells of each pair of model and data set, computed and imported, `full` first."""
        listed = {}
        for pair in self.pairs:
            computed = self.cells[pair[0]] if pair in self.computed_pairs else []
            cells_ = [*computed, *map(imported_cell, self.imported.get(pair, []))]
            listed[pair] = sorted(cells_, key=lambda cell: cell.family != "full")
        return listed

    def images_vary(self, pair: tuple[str, str]) -> bool:
        """Tell whether a data set's images have different numbers of visual tokens for a model."""
        shares = any(str(cell.budget).endswith("%") for cell in self.pair_cells[pair])
        return shares or (pair[0] in self.models and self.models[pair[0]].visual_tokens is None)

    @cached_property
    def strategies(self) -> dict[str, Cell]:
        """One cell of each strategy that is computed, by the strategy's label."""
        return {cell.strategy: cell for listed in self.cells.values() for cell in listed}

    @cached_property
    def plugins(self) -> list[str]:
        """Names of the plugins that the computed strategies use."""
        return list(dict.fromkeys(cell.family for cell in self.strategies.values()))

    @cached_property
    def before_llm(self) -> set[str]:
        """Plugins that drop tokens before the LLM: they rank visual tokens."""
        return {
            name for name in self.plugins if plugins.load("strategies", name).PRUNES == "before_llm"
        }

    @cached_property
    def before_tower(self) -> list[str]:
        """Labels of strategies that make images smaller before the vision tower."""
        return [label for label, cell in self.strategies.items() if cell.prunes == "before_tower"]

    @cached_property
    def signals(self) -> list[str]:
        """What strategies read of the vision tower beside features and saliency."""
        return self._read_by_any(of_text=False)

    @cached_property
    def text_signals(self) -> list[str]:
        """What strategies read of the questions' texts, embedded by a text tower."""
        return self._read_by_any(of_text=True)

    def _read_by_any(self, *, of_text: bool) -> list[str]:
        every = {name for plugin in self.before_llm for name in self.reads(plugin)}
        return sorted(name for name in every if (name in TEXT_SIGNALS) == of_text)

    def reads(self, plugin: str) -> list[str]:
        """List the signals that the study reads for a plugin that ranks before the LLM.

        `image_embeds` is not stored: ranking computes it from features and a text signal's file.
        """
        return self._reads.get(plugin, [])

    def read_by(self, cells: Iterable[Cell]) -> list[str]:
        """List the signals that some cells' strategies read."""
        return sorted({name for cell in cells for name in self.reads(cell.family)})

    @cached_property
    def _reads(self) -> dict[str, list[str]]:
        names: dict[str, set[str]] = {plugin: set() for plugin in self.before_llm}
        for cell in self.strategies.values():
            if cell.family in names:
                names[cell.family].update(read_signals(cell.family, dict(cell.parameters)))
        return {plugin: sorted(one - {"image_embeds"}) for plugin, one in names.items()}

    def asks(self, plugin: str) -> bool:
        """Tell whether a plugin that ranks before the LLM ranks for each question."""
        return plugins.declared("strategies", _load(plugin), "PER") == "question"

    def has_one_order(self, plugin: str) -> bool:
        """Tell whether one order of an image's tokens serves all budgets and questions."""
        return plugins.declared("strategies", _load(plugin), "NESTED") and not self.asks(plugin)

    def budgets(self, model: str) -> list[Budget]:
        """List the budgets of a model's pruned cells, in ascending order; not 0, of no image."""
        budgets = {cell.budget for cell in self.cells[model] if cell.family != "full"} - {0}
        return sorted(budgets, key=fewest_first)

    def outcome_of(self, model: str, dataset: str) -> list[str]:
        """Return strategy and budget by whose answers questions are split; [] if they are not."""
        if (model, dataset) not in self.computed_pairs:
            return []
        cell = outcome_cell(self.study, self.models[model], self.cells[model])
        return [] if cell is None else [cell.strategy, str(cell.budget)]

    def drawn_budget(self, model: str) -> Budget:
        """Return the budget at which kept tokens are drawn, the middle one; 0 if there is none."""
        budgets = self.budgets(model)
        return budgets[len(budgets) // 2] if budgets else 0

    def drawn_inside(self, model: str) -> list[Cell]:
        """List the cells at that budget that drop tokens inside the decoder."""
        budget = self.drawn_budget(model)
        return [
            cell
            for cell in self.cells[model]
            if cell.budget == budget and cell.prunes == "inside_llm"
        ]

    def most_kept(self, model: str, cells: list[Cell]) -> list[int]:
        """Return the most visual tokens of an image that each cell of a model keeps."""
        most = self.models[model].most_tokens()
        return [kept_tokens(cell.budget, most) for cell in cells]

    def rank_jobs(self, model: str) -> list[list[Cell]]:
        """Cut a model's strategies that rank before the LLM into jobs, one cell of each strategy.

        In the config's order, at most STRATEGIES_PER_RANK in a job (see `import_jobs`).
        """
        by_label = {
            cell.strategy: cell for cell in self.cells[model] if cell.family in self.before_llm
        }
        ranked, step = list(by_label.values()), STRATEGIES_PER_RANK
        return [ranked[start : start + step] for start in range(0, len(ranked), step)]

    def rank_settings(self, model: str, cell: Cell) -> dict[str, Any]:
        """Return what determines a strategy's ranking, beside its inputs and code."""
        return {
            "strategy": cell.strategy,
            "family": cell.family,
            "parameters": dict(cell.parameters),
            # of strategies that keep other tokens at another budget, or for another question
            "budgets": [] if self.has_one_order(cell.family) else self.budgets(model),
        }

    def import_jobs(self) -> dict[tuple[str, str, int], list[Imported]]:
        """Cut the imported cells of each model and data set into jobs, by a number from 0 on.

        In the config's order, so that few files are read by two jobs. Snakemake compares every file
        that it looks up with all outputs of the job that makes it: a job of thousands is slow.
        """
        return {
            (*pair, start // CELLS_PER_IMPORT): entries[start : start + CELLS_PER_IMPORT]
            for pair, entries in self.imported.items()
            for start in range(0, len(entries), CELLS_PER_IMPORT)
        }

    def infer_jobs(self, model: str) -> list[list[Cell]]:
        """Cut a model's cells into jobs of whole strategies, about `cells_per_job` cells each.

        Whole strategies, in the config's order: a new budget adds cells to every job, but a new
        strategy at the end leaves the jobs before it as they are.
        """
        by_strategy: dict[str, list[Cell]] = {}
        for cell in self.cells[model]:
            by_strategy.setdefault(cell.strategy, []).append(cell)
        jobs: list[list[Cell]] = [[]]
        for strategy in by_strategy.values():
            if jobs[-1] and len(jobs[-1]) + len(strategy) > self.study.inference.cells_per_job:
                jobs.append([])
            jobs[-1] += strategy
        return jobs

    def swept_parameters(self) -> list[str]:
        """List the parameters whose number differs between strategies of one plugin, but seeds."""
        values: dict[tuple[str, str], set[str]] = {}
        numeric = set()
        known = set(plugins.names("strategies"))  # a figure asks the plugin for the default
        imported = (cell for listed in self.pair_cells.values() for cell in listed)
        every = {cell.strategy: cell for cell in imported if cell.family in known}
        for cell in every.values():
            for key, value in cell.parameters:
                values.setdefault((cell.family, key), set()).add(repr(value))
                if isinstance(value, int | float) and not isinstance(value, bool) and key != "seed":
                    numeric.add((cell.family, key))
        return sorted({key for family, key in numeric if len(values[family, key]) > 1})


def _load(plugin: str) -> ModuleType:
    return plugins.load("strategies", plugin)
