"""What the models of all families share: prompts as tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecal.core.errors import PrunecalError, brief
from prunecal.models._checkpoint import readable
from prunecal.study.prompts import IMAGE, answer_joint, conversation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from prunecal.engine.decoder import Decoder


class Prompting:
    """The part of a model around its decoder. A family's class adds the vision side.

    Attributes:
        placeholder: the image in a prompt's text: its image token once, and what stands around it
            in every prompt.
        without_image: what the model's own template has in its place for a text alone.
    """

    settings: Mapping[str, Any]
    tokenizer: Any
    model: Any
    decoder: Decoder
    placeholder: str = IMAGE
    without_image: str = ""

    @property
    def image_token(self) -> int:
        """The id of the image token."""
        return self.model.config.image_token_id

    def project(self, features: Tensor) -> Tensor:
        """Return visual tokens in the decoder's space: the features, unless a family differs."""
        return features

    def tokenize(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the token ids before the image, and each user text's ids after it.

        The whole prompt is tokenized and then split at its image token, so that both parts have the
        ids that they have in the whole prompt.

        Raises:
            PrunecalError: a text itself holds the image placeholder.
        """
        image = self.image_token
        before, after = None, []
        for text in texts:
            ids = self._ids(text)
            if ids.count(image) != 1:
                token = self.tokenizer.convert_ids_to_tokens(image)
                raise PrunecalError(
                    f"the question {brief(text)} holds the image's token {token}; reword it"
                )
            at = ids.index(image)
            before = ids[:at]
            after.append(ids[at + 1 :])
        return before or [], after

    def tokenize_without_image(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of whole prompts that have no image, only the user's texts.

        The placeholder is left out, and with it a line break that follows it: templates of
        transformers' processors write it for an image alone.
        """
        alone = [conversation(self.settings["template"], text) for text in texts]
        return [
            self._tokenized(
                prompt.replace(f"{IMAGE}\n", self.without_image).replace(IMAGE, self.without_image)
            )
            for prompt in alone
        ]

    def option_tokens(self, text: str, options: Sequence[str]) -> list[int]:
        """Return the first token of each answer option, as it would follow the prompt.

        Raises:
            PrunecalError: two options begin with the same token, so that their logits are one, or
                one with the token of unknown words.
        """
        prompt, joint = self._ids(text), answer_joint(self.settings["template"])
        first = []
        for option in options:
            ids = self._ids(text, f"{joint}{option}")
            if ids[: len(prompt)] != prompt or len(ids) == len(prompt):
                raise PrunecalError(
                    f"the option {option!r} does not begin with its own token after the "
                    f"prompt of {text!r}; use other options"
                )
            first.append(ids[len(prompt)])
            if first[-1] == self.tokenizer.unk_token_id:
                raise PrunecalError(
                    f"the option {option!r} begins with {self.tokenizer.unk_token}, the token of "
                    "unknown words; use other options, or the model's own tokenizer files"
                )
        for at, token in enumerate(first):
            if token in first[:at]:
                other = options[first.index(token)]
                words = any(len(text) > 1 for text in options)
                remedy = "use letters as options" if words else "use the model's own tokenizer"
                raise PrunecalError(
                    f"the options {other!r} and {options[at]!r} begin with the same token "
                    f"{self.tokenizer.convert_ids_to_tokens(token)!r}, so the model's first "
                    f"answer token cannot tell them apart; {remedy}"
                )
        return first

    def option_spellings(self, text: str, options: Sequence[str]) -> list[list[int]]:
        """Return the tokens that stand for each option in another case or without the space.

        Only tokens that are a whole spelling count. A letter's case is left as it is: "a" begins
        other answers than "A".
        """
        before = self._ids(text)
        spellings = []
        for option in options:
            cases = {option}
            if len(option) > 1:
                cases |= {option.lower(), option.upper(), option.capitalize()}
            rest = [
                self._ids(text, f"{space}{case}") for case in sorted(cases) for space in (" ", "")
            ]
            whole = {ids[-1] for ids in rest if ids[:-1] == before}
            spellings.append(sorted(whole - {self.tokenizer.unk_token_id}))
        return spellings

    def end_tokens(self) -> list[int]:
        """Return the tokens that end an answer, as the model's generate() takes them.

        Raises:
            PrunecalError: generation_config.json cannot be read or names something else.
        """
        from transformers import GenerationConfig

        folder = Path(self.model.name_or_path)
        told: Any = self.model.config.get_text_config()
        if (folder / "generation_config.json").is_file():
            with readable(folder, "generation_config.json"):
                told = GenerationConfig.from_pretrained(folder, local_files_only=True)
        ends = told.eos_token_id
        if ends is None:
            ends = self.tokenizer.eos_token_id
        listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
        tokens = range(self.model.config.get_text_config().vocab_size)
        if not all(isinstance(one, int) and one in tokens for one in listed):
            raise PrunecalError(
                f"{folder}: the eos_token_id {brief(ends)} names no tokens of the model; give its "
                "own generation_config.json"
            )
        return sorted(listed)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def _ids(self, text: str, answer: str = "") -> list[int]:
        prompt = conversation(self.settings["template"], text).replace(IMAGE, self.placeholder)
        return self._tokenized(prompt + answer)

    def _tokenized(self, prompt: str) -> list[int]:
        # a template may hold the token with which texts begin: the tokenizer would add a second one
        begin = self.tokenizer.bos_token
        begun = bool(begin) and prompt.startswith(begin)
        return self.tokenizer(prompt, add_special_tokens=not begun)["input_ids"]
