"""Evaluation prompts as plain text: conversation templates, and the texts of questions.

Sources: the conversation template `vicuna_v1` and the evaluation scripts `model_vqa_loader` (POPE),
`model_vqa_science --single-pred-prompt` (ScienceQA) and `model_vqa_mmbench --single-pred-prompt`
(other multiple choice) of github.com/haotian-liu/LLaVA; for the text of a ScienceQA question, task
`scienceqa_img` of github.com/EvolvingLMMs-Lab/lmms-eval, which reads the Hub's copy of the data and
leaves out the context line where a question has no hint.

Templates whose names end in -hf are those of the models' processors in transformers, -lmms those of
lmms-eval, -vlmevalkit those of VLMEvalKit; a data set with `wording: vlmevalkit` has the texts of
that project's Qwen2-VL instead of LLaVA's.
"""

import string
from collections.abc import Sequence

from prunecal.core.errors import PrunecalError, brief, nearest

IMAGE = "<image>"
LETTERS = "ABCDE"
SHORT = "Answer the question using a single word or phrase."  # the forms of answers
LETTER = "Answer with the option's letter from the given choices directly."
YES_NO = "Please answer yes or no."  # VLMEvalKit's
SELECT = "Please select the correct answer from the options above."
SELECT_CHINESE = "请直接回答选项字母。"
HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
HELPFUL = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ANSWERS = "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATES = {
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        f"USER: {IMAGE}\n{{text}} ASSISTANT:"
    ),
    # templates of HF's processors, "-hf", of lmms-eval, "-lmms", and of VLMEvalKit, which puts the
    # questions of data sets in words of its own (`wording: vlmevalkit`)
    "vip_llava-hf": f"{HUMAN}###Human: {IMAGE}\n{{text}}###Assistant:",
    "llava_next-vicuna-hf": f"{HUMAN} USER: {IMAGE}\n{{text}} ASSISTANT:",
    "llava_next-mistral-hf": f"[INST] {IMAGE}\n{{text}} [/INST]",
    "llava_onevision-hf": f"<|im_start|>user\n{IMAGE}\n{{text}}{ANSWERS}",
    "llava_onevision-lmms": f"{HELPFUL}<|im_start|>user\n{IMAGE}\n{{text}}{ANSWERS}",
    # of Qwen3-VL; that of Qwen2-VL and Qwen2.5-VL has the system text of lmms-eval's
    "qwen_vl-hf": f"<|im_start|>user\n{IMAGE}{{text}}{ANSWERS}",
    "qwen_vl-lmms": f"{HELPFUL}<|im_start|>user\n{IMAGE}{{text}}{ANSWERS}",
    "qwen_vl-vlmevalkit": f"{HELPFUL}<|im_start|>user\n{IMAGE}{{text}}{ANSWERS}",
    "internvl-hf": f"<|im_start|>user\n{IMAGE}\n{{text}}{ANSWERS}",
    "idefics3-hf": f"<|begin_of_text|>User:{IMAGE}{{text}}<end_of_utterance>\nAssistant:",
    "smolvlm-hf": f"<|im_start|>User:{IMAGE}{{text}}<end_of_utterance>\nAssistant:",
    "gemma3-hf": f"<start_of_turn>user\n{IMAGE}{{text}}<end_of_turn>\n<start_of_turn>model\n",
}


def answer_joint(template: str) -> str:
    """Return what stands between a prompt and its answer: a space after a word and a colon.

    Also after Mistral's "[/INST]": models were trained with "[/INST] Yes" (`conv_mistral_instruct`
    of LLaVA), whose first token is that of a word with its space. After a line break or a special
    token the answer follows at once: with a space its first token would be another one ("Yes" and
    " Yes" are two tokens of most tokenizers).
    """
    return " " if TEMPLATES[template].endswith((":", "[/INST]")) else ""


def pope_text(question: str) -> str:
    """Return what the user says for a question that is answered by Yes or No."""
    return f"{question}\n{SHORT}"


def scienceqa_text(question: str, choices: Sequence[str], hint: str = "") -> str:
    """Return what the user says for a question of ScienceQA.

    Args:
        question: the question itself.
        choices: two to five answers, lettered A to E in this order.
        hint: the question's context; a blank one leaves out the line.

    Raises:
        PrunecalError: fewer than two or more than five choices.
    """
    return choice_text(question, choices, f"Context: {hint}" if hint.strip() else "", LETTERS)


def choice_text(
    question: str, choices: Sequence[str], hint: str = "", letters: str = string.ascii_uppercase
) -> str:
    """Return what the user says for a multiple-choice question.

    Args:
        question: the question itself.
        choices: two or more answers, lettered in this order.
        hint: a text before the question; a blank one leaves out the line.
        letters: those that choices can have.

    Raises:
        PrunecalError: fewer than two choices or more than letters.
    """
    if not 2 <= len(choices) <= len(letters):
        raise PrunecalError(
            f"{brief(question)} has {len(choices)} choices; give 2 to {len(letters)}, lettered "
            f"{letters[0]} to {letters[-1]}"
        )
    lines = [hint] if hint.strip() else []
    lines.append(question)
    lines += [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return letter_text("\n".join(lines))


def letter_text(question: str) -> str:
    """Return what the user says for a question whose text holds its lettered choices."""
    return f"{question}\n{LETTER}"


def bare(text: str) -> str:
    """Return what the user says without the sentence on the answer's form, if it ends with one."""
    lines = (f"\n{form}" for form in (SHORT, LETTER, SELECT, SELECT_CHINESE))
    for end in (*lines, f" {YES_NO}"):
        text = text.removesuffix(end)
    return text


def conversation(template: str, text: str) -> str:
    """Return the whole prompt: system sentence, one `<image>` placeholder, the user's text.

    The answer is what the model says next; its first token follows "ASSISTANT:".

    Raises:
        PrunecalError: the template is unknown, or the text holds a placeholder of its own.
    """
    if template not in TEMPLATES:
        raise PrunecalError(
            f"template {template!r} is unknown{nearest(template, list(TEMPLATES))}; "
            f"known are {', '.join(TEMPLATES)}"
        )
    if IMAGE in text:
        raise PrunecalError(
            f"the text {brief(text)} contains {IMAGE}, which is reserved for the image"
        )
    return TEMPLATES[template].replace("{text}", text)
