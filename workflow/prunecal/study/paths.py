"""Paths of all files of a study, relative to the working directory of Snakemake."""

from collections.abc import Iterable

from prunecal.study import budgets
from prunecal.study.cells import Cell
from prunecal.study.design import Design
from prunecal.study.model_settings import tower_name

RESULTS = "results"
CELL_STORE = f"{RESULTS}/.cells"
RANKING_STORE = f"{RESULTS}/.rankings"
BENCHMARK = f"{RESULTS}/benchmark"
WEIGHTS = ("model.safetensors", "learning_curve.csv")  # of a model that the workflow trains


class Paths:
    """The paths of one study: folders as attributes, files and lists of files as methods.

    Models, data sets, features, rankings and predictions are shared by all studies of a folder;
    what is aggregated over them lies in `aggregates`.
    """

    def __init__(self, design: Design):
        self.design = design
        name = design.study.study
        self.aggregates = f"{RESULTS}/{name}" if name else RESULTS
        self.figures = f"{self.aggregates}/figures"
        self.tables = f"{self.aggregates}/tables"
        self.logs = f"logs/{name}" if name else "logs"  # of jobs of this study alone
        self.report = f"reports/{name or 'report'}.html"

    def manifest(self, model: str) -> str:
        """Return the file that describes a model's weights."""
        return f"{RESULTS}/models/{model}/manifest.json"

    def tower_manifests(self) -> list[str]:
        """List the files that describe the text towers of models, if a strategy reads texts."""
        towers = self.design.models if self.design.text_signals else {}
        return [self.manifest(tower_name(name)) for name in towers]

    def weights(self, model: str) -> list[str]:
        """List the weights of a model that the workflow trains; other weights are elsewhere."""
        trained = model in self.design.trained
        return [f"{RESULTS}/models/{model}/weights/model.safetensors"] if trained else []

    def weights_option(self, model: str) -> str:
        """Return the option that passes a stage the path of weights that the workflow trained."""
        trained = model in self.design.trained
        return f"--weights {RESULTS}/models/{model}/weights" if trained else ""

    def questions(self, datasets: Iterable[str] | None = None) -> list[str]:
        """List the questions of data sets, of all if none are named."""
        return [f"{RESULTS}/datasets/{name}/questions.parquet" for name in self._named(datasets)]

    def images(self, datasets: Iterable[str] | None = None) -> list[str]:
        """List the images of data sets, of all that a loader reads if none are named."""
        named = self.design.datasets if datasets is None else datasets
        return [f"{RESULTS}/datasets/{name}/images.parquet" for name in named]

    def features(self) -> list[str]:
        """List the visual tokens of every model that is run and its data sets."""
        pairs = self.design.computed_pairs
        return [f"{RESULTS}/{model}/{name}/features.safetensors" for model, name in pairs]

    def rankings(self, model: str, dataset: str, cells: Iterable[Cell] | None = None) -> list[str]:
        """List the rankings that cells need: those of strategies that rank before the LLM.

        Args:
            model: name of the model.
            dataset: name of the data set, or a wildcard.
            cells: of the model, all of them if none are named.
        """
        listed = self.design.cells[model] if cells is None else cells
        needed = {cell.strategy: None for cell in listed if cell.family in self.design.before_llm}
        return [f"{RESULTS}/{model}/{dataset}/{label}/ranking.safetensors" for label in needed]

    def signals(self, model: str, dataset: str, names: Iterable[str]) -> list[str]:
        """List the files of some signals of the vision tower."""
        return [f"{RESULTS}/{model}/{dataset}/signals/{name}.safetensors" for name in names]

    def cls_states(self, model: str, dataset: str, cells: Iterable[Cell]) -> list[str]:
        """List the states of CLS, if one of the cells needs them."""
        families = {cell.family for cell in cells} & self.design.before_llm
        needed = any("cls" in self.design.reads(family) for family in families)
        return self.signals(model, dataset, ["cls"] if needed else [])

    def smaller(self, model: str, dataset: str, cells: Iterable[Cell]) -> list[str]:
        """List the features of smaller images, of the cells that need them."""
        needed = [cell for cell in cells if cell.prunes == "before_tower"]
        return self._of_cells("smaller.safetensors", model, dataset, needed)

    def predictions(
        self, model: str, dataset: str, cells: Iterable[Cell] | None = None
    ) -> list[str]:
        """List the predictions of cells, of all of a model and data set if none are named."""
        return self._of_cells("predictions.parquet", model, dataset, cells)

    def provenance(
        self, model: str, dataset: str, cells: Iterable[Cell] | None = None
    ) -> list[str]:
        """List the provenance files of cells; arguments as those of `predictions`."""
        return self._of_cells("provenance.json", model, dataset, cells)

    def every_prediction(self) -> list[str]:
        """List all predictions of the study."""
        return [path for pair in self._pairs for path in self.predictions(*pair)]

    def unpruned_predictions(self) -> list[str]:
        """List the predictions of the unpruned models."""
        return [
            path
            for model, dataset in self._pairs
            for path in self.predictions(model, dataset, self.design.pair_cells[model, dataset][:1])
        ]

    def every_ranking(self) -> list[str]:
        """List all rankings of the study."""
        return [path for pair in self.design.computed_pairs for path in self.rankings(*pair)]

    def scores(self) -> list[str]:
        """List the score files of every model and data set."""
        return [
            f"{self.aggregates}/scores/{model}/{name}.safetensors" for model, name in self._pairs
        ]

    def downloads(self) -> list[str]:
        """List what is obtained from elsewhere: data, and models that are not trained."""
        models = [name for name in self.design.models if name not in self.design.trained]
        return [
            *map(self.manifest, models),
            *self.tower_manifests(),
            *self.questions(self.design.datasets),
            *self.images(),
        ]

    def every_result(self) -> list[str]:
        """List all files that hold the study's numbers, from data to claims.

        All, not the last alone: what a failed run or a repair deleted is then computed again.
        """
        return [
            *map(self.manifest, self.design.models),
            *self.tower_manifests(),
            *(
                f"{RESULTS}/models/{model}/weights/{name}"
                for model in self.design.trained
                for name in WEIGHTS
            ),
            *self.questions(),
            *self.images(),
            *self.features(),
            *(
                path
                for pair in self.design.computed_pairs
                for path in (
                    *self.signals(*pair, self.design.signals),
                    *self.smaller(*pair, self.design.cells[pair[0]]),
                )
            ),
            *self.every_ranking(),
            *self.every_prediction(),
            *(path for pair in self._pairs for path in self.provenance(*pair)),
            *self.scores(),
            *(
                f"{self.aggregates}/{name}.{kind}"
                for name in ("metrics", "comparisons")
                for kind in ("parquet", "csv")
            ),
            *(
                f"{self.aggregates}/{name}"
                for name in ("study.json", "detectable.csv", "calibration.csv", "claims.json")
            ),
        ]

    def _named(self, datasets: Iterable[str] | None) -> Iterable[str]:
        return self.design.dataset_names if datasets is None else datasets

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        return self.design.pairs

    def _of_cells(
        self, file: str, model: str, dataset: str, cells: Iterable[Cell] | None
    ) -> list[str]:
        listed = self.design.pair_cells[model, dataset] if cells is None else cells
        folder = f"{RESULTS}/{model}/{dataset}"
        return [f"{folder}/{cell.strategy}/{budgets.folder(cell.budget)}/{file}" for cell in listed]


def study_folder(name: str) -> str:
    """Return the folder of a study's aggregates, given its name below results, or `results`."""
    return RESULTS if name == RESULTS else f"{RESULTS}/{name}"
