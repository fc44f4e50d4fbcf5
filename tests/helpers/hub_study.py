"""The repositories of the paper's study as the Hub has them, but small: schemas, names, revisions.

The model is `hub_llava`; photographs are stand-ins and the questions are few.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from helpers.hub_llava import hub_llava
from helpers.loopback_hub import Hub, Hubs
from helpers.tiny_llava import picture, png
from prunecal.study.cells import load_study
from prunecal.study.design import Design

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "llava-1.5-7b.yaml"
NAME, DATASETS = "llava-1.5-7b", ("pope", "scienceqa-img")
SIZES = ((640, 427), (375, 500), (336, 336), (2, 300))
MODES = ("RGB", "RGB", "L", "RGBA", "P")
THINGS = ("dog", "red car", "umbrella")
TOKENS = {"Yes": 3869, "No": 1939, "A": 319, "B": 350, "C": 315, "D": 360, "E": 382}


def design():
    """Return the study as Snakemake reads it."""
    settings = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    return Design(load_study(settings | yaml.safe_load(STUDY.read_text(encoding="utf-8"))))


def hubs(seed=0, photographs=2):
    """Return the three repositories of the study at the revisions that it pins."""
    study = design()
    llava = study.models[NAME]
    sets = [study.datasets[name].params() for name in DATASETS]
    contents = (pope_files(seed, photographs), scienceqa_files(seed, photographs))
    return Hubs(
        Hub(llava.repo, "model", hub_llava(seed), llava.revision),
        *(
            Hub(one["repo"], "dataset", content, one["revision"])
            for one, content in zip(sets, contents, strict=True)
        ),
    )


def pope_files(seed, photographs):
    """Photographs with six questions per subset, in the three parts of the Hub's copy."""
    pictures = [
        png(picture(100 * seed + at, SIZES[at % len(SIZES)]).convert(MODES[at % len(MODES)]))
        for at in range(photographs)
    ]
    rows = [
        {
            "id": f"{photo}-{number}",
            "question_id": f"{photo}-{number}",
            "question": f"Is there a {thing} in the image?",
            "answer": answer,
            "image_source": f"COCO_val2014_{photo:012}",
            "image": {"bytes": pictures[photo], "path": None},
            "category": subset,
        }
        for subset in ("adversarial", "popular", "random")
        for photo in range(photographs)
        for number, (thing, answer) in enumerate(zip(THINGS, ("yes", "no", "no"), strict=True))
    ]
    each = len(rows) // 3
    return {
        f"data/test-{part:05}-of-00003.parquet": _parquet(rows[each * part : each * (part + 1)])
        for part in range(3)
    }


def scienceqa_files(seed, photographs):
    """Questions with two to five choices, of which one has no image."""
    rows = [
        {
            "image": None
            if count == 0
            else {"bytes": png(picture(100 * seed + 50 + count, (200, 120))), "path": None},
            "question": f"Which is number {count}?",
            "choices": [f"thing {at}" for at in range(2 + count % 4)],
            "answer": 1 + count % 4,
            "hint": "Look closely." if count % 2 else "",
            "subject": "natural science",
        }
        for count in range(2 + photographs + 1)
    ]
    types = {"choices": pa.list_(pa.string()), "answer": pa.int8()}
    return {"data/test-00000-of-00001-f0e719df791966ff.parquet": _parquet(rows, **types)}


def _parquet(rows, **types):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = {**{name: pa.string() for name in rows[0]}, **types, "image": image}
    table = pa.Table.from_pylist(rows, pa.schema(list(fields.items())))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def reference(folder):
    """Return a function that answers one question about one image by transformers alone.

    Args:
        folder: the model, as the Hub's cache holds it.

    Returns:
        A function of an image, a question's text and its options: their logits in float32.
    """
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    processor.patch_size, processor.vision_feature_select_strategy = 14, "default"
    processor.num_additional_image_tokens = 1

    def answer(image, text, options):
        prompt = (
            "A chat between a curious user and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the user's questions. "
            f"USER: <image>\n{text} ASSISTANT:"
        )
        inputs = processor(text=prompt, images=_padded(image), return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs).logits[0, -1]
        return logits[[TOKENS[option] for option in options]].numpy()

    return answer


def _padded(image):
    """Centre an image on a square of CLIP's mean colour, by numpy alone."""
    values = np.asarray(image.convert("RGB"))
    height, width, _ = values.shape
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = (122, 116, 104)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = values
    return Image.fromarray(square)
