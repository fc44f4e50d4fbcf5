"""Properties of the visual tokens that are kept."""

from prunecal.calibration.metric import Metric

ENTRIES = (
    Metric(
        "n_visual",
        "Visual tokens kept",
        "Mean number of visual tokens that the model is given for a question.",
    ),
    Metric(
        "tokens_per_layer",
        "Visual tokens per layer",
        "Visual tokens that a decoder layer computes on, averaged over layers.",
    ),
    Metric(
        "evidence_coverage",
        "Evidence coverage",
        "How well the kept tokens K represent the image: cosine similarity of each of the N "
        "tokens to the nearest kept token, averaged over tokens and questions.",
        "Σ_i max_{j ∈ K} cos(i, j) / N",
    ),
    Metric(
        "saliency_share",
        "Share of saliency kept",
        "Saliency of the kept tokens as a share of the image's saliency, averaged over "
        "questions; undefined for strategies that choose tokens inside the decoder.",
    ),
    Metric(
        "mean_saliency",
        "Mean saliency kept",
        "Mean saliency of the kept tokens, averaged over questions; undefined for strategies "
        "that choose tokens inside the decoder.",
    ),
)
