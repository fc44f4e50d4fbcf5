"""The engine's loop against transformers' own text models, one prompt at a time."""

import importlib
import types

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaAttention

from prunecal.core.errors import PrunecalError
from prunecal.engine import stacks
from prunecal.engine.decoder import Decoder, Rows
from prunecal.strategies import decode

WIDTH, VOCABULARY, SYSTEM, SHARED = 32, 60, 4, 2
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
STACKS = {
    "llama": ("llama", "LlamaModel", {}),
    "llama with biases": ("llama", "LlamaModel", {"attention_bias": True, "mlp_bias": True}),
    "llama, a window it does not read": ("llama", "LlamaModel", {"sliding_window": 3}),
    "mistral": ("mistral", "MistralModel", {"sliding_window": None}),
    "mistral, window of 6": ("mistral", "MistralModel", {"sliding_window": 6}),
    "qwen2": ("qwen2", "Qwen2Model", {}),
    "qwen2, windows": (
        "qwen2",
        "Qwen2Model",
        {"use_sliding_window": True, "sliding_window": 7, "layer_types": KINDS},
    ),
    "qwen2_vl": ("qwen2_vl", "Qwen2VLTextModel", {"rope_parameters": MROPE}),
    "qwen2_5_vl, windows": (
        "qwen2_5_vl",
        "Qwen2_5_VLTextModel",
        {
            "rope_parameters": MROPE,
            "use_sliding_window": True,
            "sliding_window": 7,
            "layer_types": KINDS,
        },
    ),
    "qwen3": ("qwen3", "Qwen3Model", {"head_dim": 12}),
    "qwen3_vl": (
        "qwen3_vl",
        "Qwen3VLTextModel",
        {
            "head_dim": 8,
            "rope_parameters": MROPE | {"mrope_interleaved": True},
            "sliding_window": 3,  # which it does not read
        },
    ),
    "gemma3, window of 6": (
        "gemma3",
        "Gemma3TextModel",
        {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6, "layer_types": KINDS},
    ),
}
UNKNOWN = {
    "capped logits": ("gemma2", "Gemma2Model", {}),
    "scaled residuals": ("granite", "GraniteModel", {}),
    "one norm for both halves": ("cohere", "CohereModel", {}),
    "norms after the halves alone": ("olmo2", "Olmo2Model", {}),
    "a part of the channels rotated": ("stablelm", "StableLmModel", {}),
    "experts": ("qwen3_moe", "Qwen3MoeModel", {"num_experts": 2, "moe_intermediate_size": 8}),
    "layers without positions": ("smollm3", "SmolLM3Model", {}),
    "halves side by side, ALiBi": ("falcon", "FalconModel", {"alibi": True}),
    "recurrent layers": ("qwen3_5", "Qwen3_5TextModel", {}),
    "convolutions": ("lfm2", "Lfm2Model", {}),
    "cross-attention": ("mllama", "MllamaTextModel", {}),
    "biases of attention": ("mpt", "MptModel", {}),
}


def text_model(folder, name, settings):
    """Return a text model with random weights large enough for uneven attention."""
    module = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    kind = getattr(module, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**SHAPE | settings)).eval().requires_grad_(requires_grad=False)
    noise = torch.Generator().manual_seed(1)
    for value in model.parameters():
        scale = 1.5 / value.shape[-1] ** 0.5 if value.ndim == 2 else 0.1
        drawn = torch.randn(value.shape, generator=noise) * scale
        value.copy_(drawn if value.ndim == 2 else value + drawn)
    return model, torch.nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(requires_grad=False)


@pytest.fixture
def in_double(monkeypatch):
    """Compute in float64 what transformers and the engine do in float32, norms and softmax too."""
    importlib.import_module("safetensors.torch")  # whose tables would keep the patched type
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


class Prompts:
    """Two images with 9 and 5 visual tokens and glue between them, and 2 and 1 questions."""

    def __init__(self, model, axes, dtype):
        noise = torch.Generator().manual_seed(2)

        def draw(*shape):
            return torch.randn(*shape, generator=noise).to(dtype)

        deep = 2 if type(model).__name__ == "Qwen3VLTextModel" else 0
        self.groups = type(model).__name__ == "Gemma3TextModel"
        self.system = draw(SYSTEM, WIDTH)
        self.prompts = []  # per image: states of image and shared text, its positions, its tails
        for columns, questions in ((9, (3, 5)), (5, (4,))):
            is_visual = torch.ones(columns + 1, dtype=torch.bool)
            is_visual[columns // 2] = False  # glue
            grid = torch.stack(
                [torch.zeros(len(is_visual)), *torch.arange(len(is_visual)).div(3).expand(2, -1)]
            )
            positions = SYSTEM + (grid.long() if axes == 3 else torch.arange(len(is_visual))[None])
            end = positions.max() + 1
            visual_deep = [draw(len(is_visual), WIDTH) * is_visual[:, None] for _ in range(deep)]
            self.prompts.append(
                types.SimpleNamespace(
                    image=draw(len(is_visual), WIDTH),
                    is_visual=is_visual,
                    positions=positions,
                    deep=visual_deep,
                    end=end,
                    shared=draw(SHARED, WIDTH),
                    tails=[draw(length, WIDTH) for length in questions],
                )
            )

    def prune(self):
        """Drop two visual tokens of each image; the others keep their positions."""
        for prompt in self.prompts:
            kept = torch.ones(len(prompt.is_visual), dtype=torch.bool)
            kept[[1, 3]] = False
            prompt.image, prompt.is_visual = prompt.image[kept], prompt.is_visual[kept]
            prompt.positions = prompt.positions[:, kept]
            prompt.deep = [rows[kept] for rows in prompt.deep]

    def packed(self, axes):
        """Return both images as packed rows."""
        rows = []
        for prompt in self.prompts:
            image, texts = len(prompt.image), [prompt.shared, *prompt.tails]
            start = image + SHARED
            offsets = [
                torch.arange(len(text)) + (SHARED if at else 0) for at, text in enumerate(texts)
            ]
            text_positions = (torch.cat(offsets) + prompt.end).expand(axes, -1)
            lengths = torch.tensor([len(text) for text in prompt.tails])
            rows.append(
                {
                    "states": torch.cat((prompt.image, *texts)),
                    "positions": torch.cat((prompt.positions, text_positions), dim=1).T,
                    "blocks": torch.cat(
                        (
                            torch.zeros(start, dtype=torch.long),
                            torch.arange(1, len(lengths) + 1).repeat_interleave(lengths),
                        )
                    ),
                    "places": SYSTEM + torch.cat((torch.arange(image), torch.cat(offsets) + image)),
                    "groups": torch.cat(
                        (
                            torch.where(prompt.is_visual, (~prompt.is_visual).cumsum(0), -1),
                            torch.full((len(torch.cat(texts)),), -1),
                        )
                    ),
                    "answers": start + lengths.cumsum(0) - 1,
                    "deep": [
                        torch.cat((part, part.new_zeros(len(torch.cat(texts)), WIDTH)))
                        for part in prompt.deep
                    ],
                }
            )
        fill = {"blocks": -1, "groups": -1}
        padded = {
            name: torch.nn.utils.rnn.pad_sequence(
                [row[name] for row in rows], batch_first=True, padding_value=fill.get(name, 0)
            )
            for name in ("states", "positions", "blocks", "places", "groups", "answers")
        }
        positions = padded["positions"].permute(2, 0, 1)
        padded["positions"] = positions if axes == 3 else positions[0]
        padded["groups"] = padded["groups"] if self.groups else None
        deep = [
            torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            for part in zip(*(row["deep"] for row in rows), strict=True)
        ]
        return Rows(**padded, deep=tuple(deep))

    def plain(self, model, head):
        """Return the logits of every question by the model's own forward."""
        logits = []
        for prompt in self.prompts:
            for tail in prompt.tails:
                states = torch.cat((self.system, prompt.image, prompt.shared, tail))[None]
                text = torch.arange(SHARED + len(tail)) + prompt.end
                axes = len(prompt.positions)
                before = torch.arange(SYSTEM).expand(axes, -1)
                positions = torch.cat((before, prompt.positions, text.expand(axes, -1)), dim=1)
                is_visual = torch.zeros(states.shape[1], dtype=torch.bool)
                is_visual[SYSTEM : SYSTEM + len(prompt.image)] = prompt.is_visual
                logits.append(head(forward(model, states, positions, is_visual, prompt.deep)))
        return torch.stack(logits)


def forward(model, states, positions, is_visual, deep):
    """Return the last state [H] of one prompt by transformers' own forward."""
    more = {"attention_mask": torch.ones(states.shape[:2], dtype=torch.long)}
    if type(model).__name__ == "Gemma3TextModel":  # masks as in the forward of Gemma3Model
        from transformers.models.gemma3 import modeling_gemma3 as gemma3

        more["attention_mask"] = gemma3.create_masks_for_vision_model(
            config=model.config,
            inputs_embeds=states,
            position_ids=positions,
            past_key_values=None,
            block_sequence_ids=gemma3.get_block_sequence_ids_for_mask(
                is_visual.long()[None], device=states.device
            ),
            **more,
        )
    elif deep:
        rows = [part[is_visual[SYSTEM : SYSTEM + len(part)]] for part in deep]
        more |= {"visual_pos_masks": is_visual[None], "deepstack_visual_embeds": rows}
    positions = positions[:, None] if len(positions) == 3 else positions
    return model(inputs_embeds=states, position_ids=positions, **more).last_hidden_state[0, -1]


@pytest.mark.parametrize("pruned", [False, True], ids=["all tokens", "pruned"])
@pytest.mark.parametrize("stack", STACKS)
def test_packed_rows_equal_the_models_own_forward_to_round_off(stack, pruned, in_double):
    model, head = (part.double() for part in text_model(*STACKS[stack]))
    decoder = Decoder(model, head)
    prompts = Prompts(model, decoder.axes, torch.float64)
    if pruned:
        prompts.prune()
    with torch.inference_mode():
        past = decoder.prefill(prompts.system)
        states = decoder.run(prompts.packed(decoder.axes), past)
        logits = decoder.logits(torch.stack([states[0, 0], states[0, 1], states[1, 0]]))
        torch.testing.assert_close(logits, prompts.plain(model, head), atol=1e-12, rtol=0)


@pytest.mark.parametrize("stack", UNKNOWN)
def test_a_stack_that_the_loop_does_not_know_is_refused_by_name(stack):
    folder, name, settings = UNKNOWN[stack]
    model, head = text_model(folder, name, settings)
    with pytest.raises(PrunecalError, match=f"{name}.*does not compute exactly"):
        Decoder(model, head)


class Capped(LlamaAttention):
    """An attention whose output is capped."""

    def forward(self, *states, **more):
        output, weights = super().forward(*states, **more)
        return output.tanh(), weights


class Squared(torch.nn.Module):
    """An MLP of the same parts that combines them in another way."""

    def __init__(self, mlp):
        super().__init__()
        for name, part in mlp.named_children():
            setattr(self, name, part)

    def forward(self, states):
        return self.down_proj(self.act_fn(self.gate_proj(states)) ** 2 * self.up_proj(states))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda model: model.layers[1].add_module("gate", torch.nn.Identity()), "with gate"),
        (lambda model: model.layers[2].self_attn.add_module("sink", torch.nn.Linear(1, 1)), "sink"),
        (lambda model: model.register_parameter("scale", torch.nn.Parameter()), "with scale"),
        (lambda model: setattr(model.config, "final_logit_softcapping", 30.0), "final_logit"),
        (lambda model: setattr(model.config, "is_causal", False), "attends both ways"),
        (lambda model: setattr(model.config, "residual_multiplier", 0.2), "residual_multiplier"),
        (
            lambda model: setattr(model.layers[1], "forward", print),
            "of layer 1 has another forward",
        ),
        (
            lambda model: setattr(model.layers[2].self_attn, "forward", print),
            "LlamaAttention of layer 2 has another forward",
        ),
        (lambda model: setattr(model, "forward", print), "LlamaModel has another forward"),
        (
            lambda model: setattr(model.layers[1].self_attn, "__class__", Capped),
            "Capped of layer 1 has another forward",
        ),
        (
            lambda model: setattr(model.layers[2], "mlp", Squared(model.layers[2].mlp)),
            "Squared of layer 2 has another forward",
        ),
        (
            lambda model: model.layers[1].register_forward_hook(lambda *parts: parts[-1] * 2),
            "LlamaDecoderLayer of layer 1 has hooks",
        ),
        (
            lambda model: setattr(model.layers[2], "self_attn", model.layers[1].self_attn),
            "of layer 2 shares the attention of another",
        ),
        (lambda model: setattr(model.config, "layer_types", KINDS), "not read its layer_types"),
        (lambda model: setattr(model.config, "layer_types", ["linear_attention"] * 3), "linear"),
        (
            lambda model: model.config.rope_parameters.update(partial_rotary_factor=0.5),
            "a part of the channels",
        ),
    ],
    ids=[
        *("layer", "attention", "model", "cap", "both ways", "factor", "layer's forward"),
        *("attention's forward", "model's forward", "attention's class", "MLP's class", "hook"),
        *("shared attention", "other kinds", "kind", "rotation"),
    ],
)
def test_an_added_part_or_setting_is_refused(change, fault):
    model, head = text_model(*STACKS["llama"])
    change(model)
    with pytest.raises(PrunecalError, match=fault):
        Decoder(model, head)


def test_a_decoder_that_has_returned_its_attentions_is_known():
    model, head = text_model(*STACKS["llama"])
    model(torch.tensor([[1, 2]]), output_attentions=True, output_hidden_states=True)
    assert model.layers[1].self_attn._forward_hooks
    Decoder(model, head)


def test_a_head_that_is_no_linear_map_alone_is_refused():
    class Adapted(torch.nn.Linear):
        """A head whose weight does not tell all that it computes."""

    model, _ = text_model(*STACKS["llama"])
    with pytest.raises(PrunecalError, match="Adapted is a head of another kind"):
        Decoder(model, Adapted(WIDTH, VOCABULARY, bias=False))


@pytest.mark.parametrize(
    ("rope", "longest"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, 512),
        (
            {
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 20,
            },
            20,
        ),
        ({"rope_type": "linear", "factor": 2.0}, None),
    ],
)
def test_a_prompt_whose_length_changes_the_angles_is_not_computed_in_parts(rope, longest):
    model, head = text_model(
        "gemma3",
        "Gemma3TextModel",
        {
            "head_dim": 8,
            "layer_types": KINDS,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_theta": 1e4, **rope},
            },
        },
    )
    decoder = Decoder(model, head)
    assert decoder.most_positions == (longest or 512)
    assert stacks.same_angles(model.config) == longest


def test_decode_refuses_such_a_prompt():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    settings = {"rope_parameters": rope, "max_position_embeddings": 20}
    model, head = text_model("llama", "LlamaModel", settings)
    whole = types.SimpleNamespace(model=model, lm_head=head)
    for length in (20, 21):
        states = torch.randn(1, length, WIDTH)
        is_image = (torch.arange(length) > 3) & (torch.arange(length) < 12)
        if length == 20:
            decode("fastv", whole, states, is_image, budget=4)
            continue
        with pytest.raises(PrunecalError, match="has 21 tokens, but beyond 20 the angles"):
            decode("fastv", whole, states, is_image, budget=4)


def test_a_window_needs_places():
    model, head = text_model(*STACKS["mistral, window of 6"])
    decoder = Decoder(model, head)
    rows = Prompts(model, 1, torch.float32).packed(1)
    rows.places = None
    with pytest.raises(ValueError, match="places"):
        decoder.run(rows)
