"""Whether the model answers at all, and metrics under other readings of its confidence."""

from dataclasses import replace

from prunecal.calibration.constants import READ, READOUTS
from prunecal.calibration.entries import answers, errors, proper, selective
from prunecal.calibration.metric import Metric

RECORD = {
    metric.key: metric
    for metric in (*answers.ENTRIES, *errors.ENTRIES, *proper.ENTRIES, *selective.ENTRIES)
}
ENTRIES = (
    Metric(
        "option_mass",
        "Option mass",
        "Probability, among all words of the vocabulary, that the answer begins with one of the "
        "question's options, averaged over questions.",
        "Σ Σ_k exp(z_k − log Σ_v exp z_v) / n, z_k the logits of the options, z_v of all words",
    ),
    Metric(
        "answer_rate",
        "Answer rate",
        "Share of questions whose most likely word is one of the question's options.",
        higher_is_better=True,
    ),
    Metric(
        "option_mass_spellings",
        "Option mass, all spellings",
        "Option mass with an option's spellings in another case or without the space counted too.",
    ),
    Metric(
        "answer_rate_spellings",
        "Answer rate, all spellings",
        "Answer rate with an option's spellings in another case or without the space counted too.",
        higher_is_better=True,
    ),
    *(
        replace(
            RECORD[key],
            key=f"{key}_{name}",
            label=f"{RECORD[key].label} {readout.label}",
            definition=f"{RECORD[key].label} where confidence is {readout.confidence}.",
            formula="",
            source=readout.source,
            function="",
            # a debiased one may begin at 0 by a test of the recorded confidence alone
            interval="non-negative" if key == "ece_debiased" else RECORD[key].interval,
            pooled=True,
        )
        for name, readout in READOUTS.items()
        for key in READ
        if key != "accuracy" or readout.own_prediction
    ),
)
