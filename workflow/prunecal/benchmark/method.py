"""A pruning method on a model of the benchmark: its tokens, and one question at a time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from prunecal.core import plugins
from prunecal.storage.checksums import text_digest
from prunecal.study.strategy_settings import reads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from prunecal.engine.interfaces import Encoded, Stage

    Seen = tuple[Encoded, dict[str, Tensor]]  # an image's features and signals

EMBEDDED = 768  # width of the space that CLIP's towers share
TEXTS: dict[str, Any] = {"text_embeds": 0, "text_segments": slice(None)}  # of the segments of one


@dataclass
class Method:
    """A pruning method on a model.

    Attributes:
        model: a model with random weights.
        name: the strategy's.
        budget: visual tokens that it keeps.
    """

    model: Any
    name: str
    budget: int

    @cached_property
    def module(self) -> Any:
        """The strategy."""
        return plugins.load("strategies", self.name)

    @property
    def inside(self) -> bool:
        """Whether it prunes inside the decoder."""
        return self.module.PRUNES == "inside_llm"

    @cached_property
    def reads(self) -> dict[str, Any]:
        """Which signals it reads, by its own names."""
        return {} if self.inside else reads(self.module, self.params)

    @property
    def asks(self) -> bool:
        """Whether each question has tokens of its own before the decoder."""
        return not self.inside and plugins.declared("strategies", self.module, "PER") == "question"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its parameters, where the model takes others than the default."""
        ragged = hasattr(self.model, "block") and "positions" in self.module.Params.model_fields
        return {"positions": "original"} if ragged else {}

    @cached_property
    def params(self) -> Any:
        """The same, checked."""
        return self.module.Params(**self.settings)

    @cached_property
    def stages(self) -> list[Stage]:
        """Where it drops tokens inside the decoder; none if it does so before."""
        if not self.inside:
            return []
        visual = self.model.settings["visual_tokens"]
        return self.module.stages(visual, self.budget, len(self.model.decoder.layers), self.params)

    def select(self, images: Sequence[Seen], names: Sequence[str], texts: Sequence[str]) -> Tensor:
        """Return the kept tokens of rows, int64 [R, K], or weights [R, K, N + 1] that merge.

        Args:
            images: features and signals of each row's image, or of one image that all are about;
                that is expanded, not copied, as in `rank`.
            names: of the images.
            texts: a question for each row, of which embeddings are made up.
        """
        import torch

        from prunecal.strategies import merge_many, rank_many

        def rows(values: Iterable[Tensor]) -> Tensor:
            stacked = torch.stack(list(values)).cpu()
            return stacked.expand(len(texts), *stacked.shape[1:])

        signals = {}
        for name, signal in self.reads.items():
            if signal in TEXTS:
                signals[name] = rows(_text(text)[TEXTS[signal]] for text in texts)
            elif signal == "image_embeds":
                pairs = zip(images, names, strict=True)
                signals[name] = rows(_patches(at, len(one.features)) for (one, _), at in pairs)
            else:
                signals[name] = rows(own[signal][0] for _, own in images)
        many = merge_many if hasattr(self.module, "merge") else rank_many
        features = rows(encoded.features for encoded, _ in images)
        saliency = rows(encoded.saliency for encoded, _ in images)
        ids = [*names] * (len(texts) // len(names))
        return many(self.name, features, saliency, self.budget, [self.settings], ids, signals)[0]

    def ranking(
        self, images: Sequence[Seen], asked: Iterable[tuple[int, str]]
    ) -> tuple[Any, list[tuple[str, str]] | None]:
        """Return what `Session.run` takes as order, and as pairs.

        Args:
            images: features and signals of each.
            asked: the image of each question, and its text.
        """
        import torch

        from prunecal.engine.merged import Merged

        names = [f"image{at}" for at in range(len(images))]
        pairs = None
        if self.asks:
            texts: dict[int, dict[str, None]] = {at: {} for at in range(len(images))}
            for image, text in asked:
                texts[image][text] = None
            pairs = [(names[at], text_digest(text)) for at, own in texts.items() for text in own]
            parts = zip(images, names, texts.values(), strict=True)
            selected = torch.cat([self.select([one], [name], list(t)) for one, name, t in parts])
        else:
            selected = self.select(images, names, names)
        if not hasattr(self.module, "merge"):
            return selected.short().numpy(), pairs
        sparse = selected.flatten().to_sparse().coalesce()
        cls = [own["cls"].cpu() for _, own in images if "cls" in own]
        places, weight = sparse.indices()[0].numpy(), sparse.values().numpy()
        starts = [at * selected[0].numel() for at in range(len(selected) + 1)]
        return Merged(places, weight, starts, torch.cat(cls) if cls else None), pairs

    def one_at_a_time(self, picture: Any, name: str, text: str, options: Sequence[str]) -> Tensor:
        """Return the option logits of one question about an image that is encoded for it."""
        import torch

        model = self.model
        image = model.seen(picture, list(self.reads.values()))
        encoded, kept = image[0], None
        tokens = encoded.features
        if self.inside:
            return self._in_decoder(encoded, text, options)
        if hasattr(self.module, "merge"):
            (weights,) = self.select([image], [name], [text])
            cls = image[1].get("cls", torch.zeros_like(tokens[None, :1]))[0]
            tokens = weights.to(tokens) @ torch.cat((cls, tokens))
        else:
            kept = self.select([image], [name], [text])[0].sort().values
            tokens = tokens[kept]
        before, (after,) = model.tokenize([text])
        embed = model.decoder.embed
        parts = (embed(self._ids(before)), model.project(tokens), embed(self._ids(after)))
        states = torch.cat(parts)[None]
        positions = torch.arange(states.shape[1], device=model.device)[None]
        if kept is not None and hasattr(model, "block"):
            block = model.block(encoded.layout, len(encoded.features))
            visual = block.positions[:, kept].to(model.device) + len(before)
            shared = torch.arange(len(before), device=model.device).expand(3, -1)
            rest = positions[:, : len(after)].expand(3, -1) + len(before) + block.end
            positions = torch.cat((shared, visual, rest), dim=1)[:, None]
        output = model.model(
            inputs_embeds=states, position_ids=positions, logits_to_keep=1, use_cache=False
        )
        return output.logits[0, -1, model.option_tokens(text, options)].float().cpu()

    def _in_decoder(self, encoded: Encoded, text: str, options: Sequence[str]) -> Tensor:
        """Run one prompt through the loop over the method's stages, as the official codes do."""
        from prunecal.engine import stages
        from prunecal.engine.batch import single
        from prunecal.engine.unpruned import Unpruned

        model = self.model
        before, (after,) = model.tokenize([text])
        prompt = model.project(encoded.features), model.decoder.embed(self._ids(after))
        past = model.decoder.prefill(model.decoder.embed(self._ids(before)))
        batch = single(*prompt, len(before))
        unpruned = Unpruned(model.decoder, past, batch, encoded.features[None])
        pruned = stages.run(unpruned, self.stages, self.module, self.params)
        tokens = self._ids(model.option_tokens(text, options))
        return model.decoder.logits(pruned.states, tokens)[0].cpu()

    def _ids(self, tokens: Sequence[int]) -> Tensor:
        import torch

        return torch.tensor(tokens, device=self.model.device)


@cache
def _patches(name: str, tokens: int) -> Tensor:
    """Return embeddings of an image's patches, made up, as CLIP would give them."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(tokens, EMBEDDED, generator=generator)


@cache
def _text(text: str) -> Tensor:
    """Return the embedding of a text, made up, as CLIP's text tower would give it."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return torch.randn(1, EMBEDDED, generator=generator)
