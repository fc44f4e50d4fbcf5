"""Configurations of published checkpoints, as their files on the Hub have them, and thin models.

Facts alone: keys and values of `config.json` and `preprocessor_config.json`, read in copies that
public repositories hold:
- LLaVA-1.5-7B with its processor, special tokens and tensor names: llava-1.5-7b-hf/ of
  tung2kg1/AI-Stock-Chart-Analysis, 61f63b5;
- LLaVA-1.6-Mistral-7B: NVIDIA/TensorRT-LLM, test_modeling_llava_next.py, b93e14c;
- LLaVA-OneVision-7B: 0702hjj/SingGuard, convert_llavashield_hf.py, ce72acf;
- Qwen2.5-VL-7B: Harrison-HXLiu/vlm_api_test, da6f793, its early preprocessor
  remodlai/qwen-2.5-vl-7b-instruct-lexiq, a22b9b2, and as transformers 4.54 writes it
  modelscope/DiffSynth-Studio, qwen_image_text_encoder.py, 288fb76;
- Qwen3-VL-4B: DiffSynth-Studio, an encoder of Wan;
- InternVL3, its tower and tensor names: OpenGVLab/InternVL, internvl_custom2hf.py, 5d8ab0e;
- SmolVLM2-500M: qewr1234/Lightweight-VLA, offline_vlm_cache.py, d40424b;
- Gemma 3 27B: NVIDIA/TensorRT-LLM, test_modeling_gemma3.py, fe6fa01.
Of ViP-LLaVA, Qwen2-VL and the SmolVLMs of Idefics3's class no whole file was found: theirs is that
of the nearest model, with what documents say of them.

Of a thin model the widths, depths and heads are smaller, and what follows from them: the sections
of rotary axes and numbers of layers. All other keys stay as they are.
"""

import json

from helpers.tiny_llava import fast_tokenizer

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
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
NEXT = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": PINPOINTS,
    "image_token_index": 32000,
    "model_type": "llava_next",
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
        "architectures": ["MistralForCausalLM"],
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "vocab_size": 32064,
    },
    "torch_dtype": "float16",
    "transformers_version": "4.39.0.dev0",
    "use_image_newline_parameter": True,
    "vision_config": CLIP_336,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
NEXT_PROCESSOR = {
    **CLIP_PROCESSOR,
    "aspect_ratio_setting": "anyres",
    "do_pad": True,
    "image_grid_pinpoints": PINPOINTS,
    "image_processor_type": "LlavaNextImageProcessor",
    "processor_class": "LlavaNextProcessor",
}
QWEN_2_5 = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}
QWEN_2_5_NEW = {  # as transformers 4.54 writes it
    **QWEN_2_5,
    "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
    "text_config": {
        **{key: value for key, value in QWEN_2_5.items() if key != "vision_config"},
        "image_token_id": None,
        "layer_types": ["full_attention"] * 28,
        "model_type": "qwen2_5_vl_text",
        "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
        "sliding_window": None,
        "torch_dtype": "float32",
        "video_token_id": None,
    },
    "torch_dtype": "float32",
    "transformers_version": "4.54.0",
    "vision_config": {
        **QWEN_2_5["vision_config"],
        "in_channels": 3,
        "initializer_range": 0.02,
        "model_type": "qwen2_5_vl",
        "torch_dtype": "float32",
    },
}
QWEN_PROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}
QWEN_EARLY_PROCESSOR = QWEN_PROCESSOR | {"image_processor_type": "Qwen2_5_VLImageProcessor"}
QWEN_2 = {
    **{key: value for key, value in QWEN_2_5.items() if key != "vision_config"},
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "max_position_embeddings": 32768,
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
}
QWEN_3 = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2560,
        "initializer_range": 0.02,
        "intermediate_size": 9728,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 151656,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
QWEN_3_PROCESSOR = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": HALF,
    "image_std": HALF,
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
INTERNVL = {
    "architectures": ["InternVLForConditionalGeneration"],
    "downsample_ratio": 0.5,
    "image_seq_length": 256,
    "image_token_id": 151667,
    "model_type": "internvl",
    "projector_hidden_act": "gelu",
    "text_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 70,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151674,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.52.0.dev0",
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 1024,
        "image_size": [448, 448],
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-06,
        "layer_scale_init_value": 0.1,
        "model_type": "internvl_vision",
        "norm_type": "layer_norm",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": [14, 14],
        "projection_dropout": 0.0,
        "torch_dtype": "bfloat16",
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
}
INTERNVL_PROCESSOR = {
    **RESCALED,
    "crop_to_patches": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 12,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "size": {"height": 448, "width": 448},
}
SMOLVLM = {
    "architectures": ["SmolVLMForConditionalGeneration"],
    "image_token_id": 49190,
    "model_type": "smolvlm",
    "pad_token_id": 128002,
    "scale_factor": 4,
    "text_config": {
        "architectures": ["VLlama3ForCausalLM"],
        "head_dim": 64,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "neftune_noise_alpha": 0.0,
        "num_attention_heads": 15,
        "num_hidden_layers": 32,
        "num_key_value_heads": 5,
        "pad_token_id": 2,
        "pixel_shuffle_factor": 4,
        "qk_layer_norms": False,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_theta": 100000,
        "torch_dtype": "bfloat16",
        "use_resampler": False,
        "vocab_size": 49280,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.47.1",
    "use_cache": False,
    "use_reentrant_checkpointing": False,
    "vision_config": {
        "hidden_size": 768,
        "image_size": 512,
        "max_image_size": {"longest_edge": 512},
        "model_type": "smolvlm_vision",
        "num_attention_heads": 12,
        "patch_size": 16,
        "size": {"longest_edge": 2048},
        "tie_word_embeddings": False,
        "use_base_siglip": False,
    },
    "vocab_size": 49280,
}
SMOLVLM_PROCESSOR = {
    **RESCALED,
    "do_image_splitting": True,
    "do_pad": True,
    "image_mean": HALF,
    "image_processor_type": "SmolVLMImageProcessor",
    "image_std": HALF,
    "max_image_size": {"longest_edge": 512},
    "processor_class": "SmolVLMProcessor",
    "resample": 1,
    "size": {"longest_edge": 2048},
    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}},
}
IDEFICS3 = {  # SmolVLM's, under the name of the class of SmolVLM-256M and 500M
    **SMOLVLM,
    "architectures": ["Idefics3ForConditionalGeneration"],
    "model_type": "idefics3",
    "vision_config": {**SMOLVLM["vision_config"], "model_type": "idefics3"},
}
IDEFICS3_PROCESSOR = {
    **{key: value for key, value in SMOLVLM_PROCESSOR.items() if key != "video_sampling"},
    "image_processor_type": "Idefics3ImageProcessor",
    "processor_class": "Idefics3Processor",
}
GEMMA3 = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "model_type": "gemma3_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 168,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "vision_use_head": False,
    },
}
GEMMA3_PROCESSOR = {
    **RESCALED,
    "do_convert_rgb": None,
    "do_pan_and_scan": None,
    "image_mean": HALF,
    "image_processor_type": "Gemma3ImageProcessor",
    "image_seq_length": 256,
    "image_std": HALF,
    "pan_and_scan_max_num_crops": None,
    "pan_and_scan_min_crop_size": None,
    "pan_and_scan_min_ratio_to_activate": None,
    "processor_class": "Gemma3Processor",
    "resample": 2,
    "size": {"height": 896, "width": 896},
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
VIP = {
    **{key: value for key, value in LLAVA.items() if not key.startswith("vision_feature")},
    "architectures": ["VipLlavaForConditionalGeneration"],
    "model_type": "vipllava",
    "projector_layernorm_eps": 1e-05,
    "vision_feature_layers": [-2, -5, -8, -11, 6],
}


def thin(config):
    """Return a configuration of smaller widths, depths and heads; the other keys are as they are.

    What the file leaves to the class's defaults is stated, so that it is small, too.
    """
    small = json.loads(json.dumps(config))
    kind = small["model_type"]
    text, vision = small.get("text_config", small), small["vision_config"]
    heads = 3 if kind in ("smolvlm", "idefics3") else 2
    text |= {"hidden_size": 16 * heads, "intermediate_size": 48, "num_attention_heads": heads}
    text["num_hidden_layers"] = {"gemma3": 7, "qwen3_vl": 4}.get(kind, 2)
    if "num_key_value_heads" in text:
        text["num_key_value_heads"] = 1
    if "head_dim" in text:
        text["head_dim"] = 16
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][: text["num_hidden_layers"]]
    if "mrope_section" in text.get("rope_scaling", {}):
        text["rope_scaling"]["mrope_section"] = [4, 2, 2] if kind == "qwen3_vl" else [2, 3, 3]
    if kind.startswith("qwen"):
        vision |= {"num_heads": 2, "depth": 6}
        if "fullatt_block_indexes" in vision:
            vision["fullatt_block_indexes"] = [2, 5]
        if "deepstack_visual_indexes" in vision:
            vision["deepstack_visual_indexes"] = [1, 2, 4]
        for key in ("embed_dim", "hidden_size"):
            if key in vision and (kind, key) != ("qwen2_vl", "hidden_size"):
                vision[key] = 32
        for key in ("out_hidden_size", *(["hidden_size"] if kind == "qwen2_vl" else [])):
            if key in vision:
                vision[key] = 16 * heads
        if "intermediate_size" in vision:
            vision["intermediate_size"] = 48
    else:
        vision |= {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
        vision["num_hidden_layers"] = 12 if kind == "vipllava" else 2  # its 11th last is read
    return small


def tokenizer(special):
    """Return a tokenizer of whole words that has a checkpoint's special tokens at their ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ("<unk>", "<s>", "</s>", "<pad>", "Yes", "No", "Is", "there", "a", "cat")
    taken = set(special.values())
    free = (number for number in range(100_000) if number not in taken)
    vocabulary = {word: next(free) for word in words} | special
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast_tokenizer(tokenizer, [*special])
