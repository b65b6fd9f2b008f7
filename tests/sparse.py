"""Checkpoints of real shapes that take no disk: headers as they are, and holes for the weights."""

import json
import math
from pathlib import Path

#: config.json of mistralai/Mistral-7B-v0.1, as published.
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32000,
}


#: config.json of llava-hf/llava-v1.6-mistral-7b-hf: Mistral-7B-Instruct-v0.2 behind CLIP ViT-L/14.
LLAVA_16 = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "ignore_index": -100,
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "image_token_index": 32000,
    "model_type": "llava_next",
    "projector_hidden_act": "gelu",
    "text_config": MISTRAL_7B | {"rope_theta": 1e6, "sliding_window": None, "vocab_size": 32064},
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_image_newline_parameter": True,
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


def _on_the_hub(name: str) -> str:
    """What files of 2024 call a tensor of a LLaVA."""
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.")
    if name.startswith("model.vision_tower."):
        return "vision_tower.vision_model." + name.removeprefix("model.vision_tower.").removeprefix(
            "vision_model."
        )
    return f"language_model.{name}" if name == "lm_head.weight" else name.removeprefix("model.")


def sparse_model(folder: Path, config: dict, shards: int = 2, tokens: int | None = None) -> Path:
    """A folder that opens as a bf16 model of that config; its weights read as zeros.

    ``tokens`` of the vocabulary have names; all of them when left out.
    """
    import torch
    import transformers

    from tests.conftest import make_tokenizer

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer().save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    known = len(vocabulary)
    tokens = tokens or config["vocab_size"]
    vocabulary |= {f"filler{n}": n for n in range(known, tokens)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with torch.device("meta"):
        settings = transformers.AutoConfig.from_pretrained(folder)
        if "vision_config" in config:
            model = transformers.AutoModelForImageTextToText.from_config(settings)
            state = {_on_the_hub(name): value for name, value in model.state_dict().items()}
        else:
            state = transformers.AutoModelForCausalLM.from_config(settings).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    names, where = list(shapes), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        where |= dict.fromkeys(part, file)
        header, at = {}, 0
        for name in part:
            size = 2 * math.prod(shapes[name])
            entry = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [at, at + size]}
            header[name], at = entry, at + size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + at)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
