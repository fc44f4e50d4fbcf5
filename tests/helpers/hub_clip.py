"""Configurations of published LLaVA checkpoints, as their files on the Hub have them.

Facts alone: keys and values of `config.json` and `preprocessor_config.json`, read in copies that
public repositories hold, or in the Hub's own pages:
- LLaVA-1.5-7B with its processor, special tokens and tensor names: llava-1.5-7b-hf/ of
  tung2kg1/AI-Stock-Chart-Analysis, 61f63b5;
- LLaVA-1.5-13B: page of llava-hf/llava-1.5-13b-hf, refs/pr/5; BakLLaVA: of
  llava-hf/bakLlava-v1-hf, af2d425 to 8c88b6b;
- ViP-LLaVA: pages of llava-hf/vip-llava-7b-hf, ca0c538, and llava-hf/vip-llava-13b-hf, 70f2909;
- LLaVA-1.6-Mistral-7B: NVIDIA/TensorRT-LLM, test_modeling_llava_next.py, b93e14c;
- LLaVA-1.6-Vicuna: pages of llava-hf/llava-v1.6-vicuna-7b-hf, 78d9aec, and
  llava-hf/llava-v1.6-vicuna-13b-hf, 9718786;
- LLaVA-OneVision-7B: 0702hjj/SingGuard, convert_llavashield_hf.py, ce72acf.
"""

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = [0.5, 0.5, 0.5]
RESCALED = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "rescale_factor": 0.00392156862745098}  # fmt: skip
CLIP_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
CLIP_PROCESSOR = {
    **RESCALED,
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "image_mean": CLIP_MEAN,
    "image_processor_type": "CLIPImageProcessor",
    "image_std": CLIP_STD,
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "size": {"shortest_edge": 336},
}
VICUNA_7B = {
    "_name_or_path": "lmsys/vicuna-7b-v1.5",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
VICUNA_13B = {
    "_name_or_path": "lmsys/vicuna-13b-v1.5",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "max_length": 4096,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 40,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
LLAMA_2_13B = {
    **{
        key: value for key, value in VICUNA_13B.items() if key not in ("max_length", "pad_token_id")
    },
    "_name_or_path": "meta-llama/Llama-2-13b-hf",
}
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": VICUNA_7B,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.36.0.dev0",
    "vision_config": CLIP_336,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
LLAVA_13B = {
    **LLAVA,
    "architectures": ["LlavaForCausalLM"],  # which no release of transformers has
    "text_config": LLAMA_2_13B,
}
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "torch_dtype": "bfloat16",
    "vocab_size": 32064,
}
BAKLLAVA = {
    **{key: value for key, value in LLAVA.items() if key != "tie_word_embeddings"},
    "text_config": {
        **MISTRAL_7B,
        "_name_or_path": "mistralai/Mistral-7B-v0.1",
        "sliding_window": 4096,
    },
    "torch_dtype": "float32",
}
VIP_7B = {  # its layer -2 is left from LLaVA: it takes the class's five
    **BAKLLAVA,
    "architectures": ["VipLlavaForConditionalGeneration"],
    "model_type": "vipllava",
    "projector_layernorm": False,
    "projector_layernorm_eps": 1e-05,
    "text_config": {**VICUNA_7B, "pad_token_id": 0},
    "torch_dtype": "float16",
}
VIP_13B = {
    **{
        key: value
        for key, value in VIP_7B.items()
        if not key.startswith("vision_feature") and key != "projector_layernorm"
    },
    "text_config": LLAMA_2_13B,
    "transformers_version": "4.37.0.dev0",
    "vision_feature_layers": [-2, -5, -8, -11, 6],
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
NEXT = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": PINPOINTS,
    "image_token_index": 32000,
    "model_type": "llava_next",
    "projector_hidden_act": "gelu",
    "text_config": {
        **MISTRAL_7B,
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
        "rope_theta": 1000000.0,
        "sliding_window": None,
    },
    "torch_dtype": "float16",
    "transformers_version": "4.39.0.dev0",
    "use_image_newline_parameter": True,
    "vision_config": CLIP_336,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
NEXT_VICUNA_7B = {**NEXT, "text_config": {**VICUNA_7B, "pad_token_id": 0}}
NEXT_VICUNA_13B = {**NEXT, "text_config": VICUNA_13B}
NEXT_PROCESSOR = {
    **CLIP_PROCESSOR,
    "aspect_ratio_setting": "anyres",
    "do_pad": True,
    "image_grid_pinpoints": PINPOINTS,
    "image_processor_type": "LlavaNextImageProcessor",
    "processor_class": "LlavaNextProcessor",
}
ONEVISION_PINPOINTS = [[384 * row, 384 * column] for row in range(1, 7) for column in range(1, 7)]
ONEVISION = {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": ONEVISION_PINPOINTS,
    "image_seq_length": 729,
    "image_token_index": 151646,
    "model_type": "llava_onevision",
    "multimodal_projector_bias": True,
    "projector_hidden_act": "gelu",
    "text_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "vocab_size": 152064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "video_token_index": 151647,
    "vision_aspect_ratio": "anyres_max_9",
    "vision_config": {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "layer_norm_eps": 1e-06,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
ONEVISION_PROCESSOR = {
    **RESCALED,
    "do_pad": True,
    "image_grid_pinpoints": ONEVISION_PINPOINTS,
    "image_mean": HALF,
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "image_std": HALF,
    "processor_class": "LlavaOnevisionProcessor",
    "resample": 3,
    "size": {"height": 384, "width": 384},
}
