"""Tiny random vision-language models in `save_pretrained` form, with language models of their kind.

What is real is their form: transformers' own classes, processors with their picture tokens, chat
templates, and language models that differ from those inside by small deltas.
"""

from pathlib import Path

from tests.conftest import make_tokenizer

TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.08, "rms_norm_eps": 1e-5,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PICTURE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
KINDS = ("llava", "llava_next", "qwen2_vl")


def plain_tokenizer(kind: str):
    tokenizer = make_tokenizer()
    if kind == "qwen2_vl":  # transformers gives every tokenizer beside a Qwen 2 this token
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    return tokenizer


def make_family(kind: str, folder: Path, *, tied: bool = False) -> Path:
    """A folder with ``base``, ``ja`` (language models) and ``vlm``, whose tokenizer has more."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    tokenizer = plain_tokenizer(kind)
    seeing = plain_tokenizer(kind)
    processor, config = _PARTS[kind](seeing, tied)
    text = "qwen2" if kind == "qwen2_vl" else "mistral"
    language = transformers.AutoConfig.for_model(
        text, **TEXT, vocab_size=len(tokenizer), tie_word_embeddings=tied
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(language)
        ja = AutoModelForCausalLM.from_config(language)
        whole = AutoModelForImageTextToText.from_config(config)
        inside = {"model": whole.get_decoder(), "lm_head": whole.get_output_embeddings()}
        with torch.no_grad():
            for name, value in base.named_parameters():
                ja.get_parameter(name).copy_(value + 0.02 * torch.randn_like(value))
                first, _, rest = name.partition(".")
                there = inside[first].get_parameter(rest)
                rows = len(value) if value.ndim else 0
                there[:rows] = value + 0.02 * torch.randn_like(value)
    for model in (base, ja, whole):
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=2, pad_token_id=0, bos_token_id=1
        )
    for name, model, voice in (
        ("base", base, tokenizer), ("ja", ja, tokenizer), ("vlm", whole, processor),
    ):  # fmt: skip
        model.save_pretrained(folder / name)
        voice.save_pretrained(folder / name)
    return folder


def _llava(tokenizer, tied):
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaProcessor,
        MistralConfig,
    )

    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE.replace("PICTURE", "<image>")
    pictures = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer), tie_word_embeddings=tied),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    return processor, config


def _llava_next(tokenizer, tied):
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        MistralConfig,
    )

    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = TEMPLATE.replace("PICTURE", "<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    pictures = LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        pictures, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer), tie_word_embeddings=tied),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        tie_word_embeddings=tied,
    )
    return processor, config


def _qwen2_vl(tokenizer, tied):
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>", *marks]})
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    tokenizer.chat_template = TEMPLATE.replace("PICTURE", picture)
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size),
        chat_template=tokenizer.chat_template,
    )  # fmt: skip
    start, end, image, video = tokenizer.convert_tokens_to_ids(marks)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = Qwen2VLConfig(
        text_config={
            **TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope,
            "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": TEXT["hidden_size"], "num_heads": 2,
            "patch_size": 14, "mlp_ratio": 2,
        },
        vision_start_token_id=start, vision_end_token_id=end, image_token_id=image,
        video_token_id=video, tie_word_embeddings=tied,
    )  # fmt: skip
    return processor, config


_PARTS = {"llava": _llava, "llava_next": _llava_next, "qwen2_vl": _qwen2_vl}
