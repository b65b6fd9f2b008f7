"""A tiny random open_clip model, in a folder as open_clip writes its own."""

import json
from pathlib import Path

from tests.conftest import make_tokenizer

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 320,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "pool_type": "last",
        "hf_tokenizer_name": "beside-the-weights",
    },
}


def make_encoder(folder: Path, *, seed: int = 0, **text) -> Path:
    """16 dimensions, pictures of 32 × 32, texts of 16 tokens; ``text`` is added to its text_cfg."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**ARCHITECTURE)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = ARCHITECTURE | {"text_cfg": ARCHITECTURE["text_cfg"] | text}
    settings = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    make_tokenizer().save_pretrained(folder)
    return folder
