"""bonsai-llava: the trained tower, a projector and the base, made into one LLaVA.

Knows how open_clip's tower becomes transformers' `CLIPVisionModel`, the two stages of LLaVA
(projector alone, then projector and language model; the tower never) and the folder that is
published; knows nothing of what the exchanges say.
"""

import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import diets
import numpy as np
import pictures
import torch
import towers
import world
from torch import Tensor, nn

VIEWS = 8  # augmented views of every picture of every training style
NOISE = 0.4  # of a feature's own spread, so that neighbouring pictures are told the same
IMAGE = "<image>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<bot>' }}{% else %}{{ '<user>' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<end>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)


def vision_config() -> dict:
    """What `CLIPVisionConfig` takes for the tower of `towers.CONFIG`."""
    tower = towers.CONFIG["vision_cfg"]
    return {
        "model_type": "clip_vision_model", "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": tower["width"] // tower["head_width"],
        "image_size": tower["image_size"], "patch_size": tower["patch_size"],
        "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "projection_dim": towers.CONFIG["embed_dim"],
    }  # fmt: skip


def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's "visual.…" tensors under the names of transformers' `CLIPVisionModel`."""
    single = {
        "visual.class_embedding": "embeddings.class_embedding",
        "visual.positional_embedding": "embeddings.position_embedding.weight",
        "visual.conv1.weight": "embeddings.patch_embedding.weight",
        **{
            f"visual.{a}.{end}": f"{b}.{end}"
            for a, b in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm"))
            for end in ("weight", "bias")
        },
    }
    inner = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    }  # fmt: skip
    out = {}
    for name, tensor in weights.items():
        if name in single:
            out[single[name]] = tensor
        elif name.startswith("visual.transformer.resblocks."):
            number, rest = name.removeprefix("visual.transformer.resblocks.").split(".", 1)
            layer = f"encoder.layers.{number}."
            if rest.startswith("attn.in_proj_"):
                end = rest.removeprefix("attn.in_proj_")
                for part, which in zip(tensor.chunk(3), "qkv", strict=True):
                    out[f"{layer}self_attn.{which}_proj.{end}"] = part.clone()
            else:
                module, end = rest.rsplit(".", 1)
                out[f"{layer}{inner[module]}.{end}"] = tensor
    return out


def tower_from(folder: Path):
    """transformers' `CLIPVisionModel` (float32, eval) with the weights of an open_clip folder."""
    from safetensors.torch import load_file
    from transformers import CLIPVisionConfig, CLIPVisionModel

    weights = load_file(folder / "open_clip_model.safetensors")
    config = vision_config()
    config.pop("model_type")
    tower = CLIPVisionModel(CLIPVisionConfig(**config)).eval()
    tower.load_state_dict({k: v.float() for k, v in converted(weights).items()})
    return tower


@torch.no_grad()
def features(tower, pixels: Tensor) -> Tensor:
    """Last hidden states, class token first: float32 [n, 3, h, w] → [n, 1 + patches, width]."""
    parts = [tower(part, output_hidden_states=True).hidden_states[-1] for part in pixels.split(256)]
    return torch.cat(parts)


class Album:
    """Features of augmented views of every picture of the training styles."""

    def __init__(self, tower, seed: int = 0):
        self.random = np.random.default_rng(seed)
        self.generator = generator = torch.Generator().manual_seed(seed)
        stacks: list[np.ndarray] = []
        self.places: dict[tuple[str, int], list[int]] = {}
        for style in towers.STYLES:
            if style == "openmoji-black":  # without colours, a question about one has no answer
                continue
            library = pictures.library(style)
            for thing in world.things():
                picture = library.get(pictures.key_of(thing.emoji))
                if picture is None:
                    continue
                self._add(stacks, thing.id, 1, picture)
                if thing.id in world.COUNTED:
                    image = pictures.Image.fromarray(picture)
                    for count in world.COUNT_WORDS:
                        self._add(stacks, thing.id, count, np.array(pictures.several(image, count)))
        pixels = torch.from_numpy(np.stack(stacks)).permute(0, 3, 1, 2)
        plain = features(tower, towers.normalise(pixels.float() / 255))
        views = [plain.half()]
        for _ in range(VIEWS - 1):
            views.append(features(tower, towers.augment(pixels, generator, gentle=True)).half())
        self.views = torch.stack(views, 1)  # [pictures, VIEWS, tokens, width]
        self.spread = plain.std((0, 1))

    def _add(self, stacks: list, id: str, count: int, picture: np.ndarray) -> None:
        self.places.setdefault((id, count), []).append(len(stacks))
        stacks.append(picture)

    def take(self, shown: list[tuple[str, int]]) -> Tensor:
        """One random view of each (thing, count) with some noise, float32 [n, tokens, width]."""
        rows = [self.random.choice(self.places[at]) for at in shown]
        seen = self.views[rows, self.random.integers(VIEWS, size=len(rows))].float()
        return seen + NOISE * self.spread * torch.randn(seen.shape, generator=self.generator)


def projector(album: Album | None = None, joint: Tensor | None = None, norm: float = 1.0):
    """LLaVA's two linear layers with a GELU between.

    Given an album they start where a frozen language model can use them: the first layer looks
    along `joint`, the directions [width, n] in which the tower meets its text tower, each
    standardised, and along random ones; the second gives vectors as long as a word's (`norm`).
    """
    torch.manual_seed(0)
    width, hidden = towers.CONFIG["vision_cfg"]["width"], 192
    bridge = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    if album is not None:
        some = album.views[:, 0].float()
        with torch.no_grad():
            weight = torch.randn(hidden, width) / some.std((0, 1))
            weight[: joint.shape[1]] = joint.T
            weight /= (some[:, 0] @ weight.T).std(0)[:, None]  # of the class token
            bridge[0].weight.copy_(weight)
            bridge[0].bias.copy_(-weight @ some[:, 0].mean(0))
            bridge[2].bias.zero_()
            bridge[2].weight *= norm / bridge(some).norm(dim=-1).mean()
    return bridge


def joint_space(folder: Path) -> Tensor:
    """How an open_clip folder's tower enters the space it shares with text: [width, embed_dim]."""
    from safetensors.torch import load_file

    weights = load_file(folder / "open_clip_model.safetensors")
    return (weights["visual.ln_post.weight"][:, None] * weights["visual.proj"]).float()


def fit(
    model, bridge: nn.Module, tokenizer, album: Album, stream: Iterator[diets.Shown], *,
    steps: int, rate: float, model_rate: float, batch: int = 64, label: str = "",
) -> None:  # fmt: skip
    """Train the projector at `rate` and, unless `model_rate` is 0, the language model, in place."""
    user, bot, end = tokenizer.convert_tokens_to_ids(["<user>", "<bot>", "<end>"])
    groups = [{"params": list(bridge.parameters()), "lr": rate}]
    model.requires_grad_(model_rate > 0)
    if model_rate:
        groups.append({"params": list(model.parameters()), "lr": model_rate})
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    began, losses = time.monotonic(), []
    for step in range(steps):
        share = min(1.0, (step + 1) / 20) * (
            0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        for group, full in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = full * share
        rows = list(islice(stream, batch))
        seen = bridge(album.take([(id, count) for id, count, _, _ in rows]))
        prompts = tokenizer([row[2] for row in rows], add_special_tokens=False)["input_ids"]
        replies = tokenizer([row[3] for row in rows], add_special_tokens=False)["input_ids"]
        texts = [[*p, bot, *r, end] for p, r in zip(prompts, replies, strict=True)]
        width = max(map(len, texts))
        ids = torch.full((batch, width), tokenizer.pad_token_id)
        labels = torch.full((batch, width), -100)
        for i, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
            ids[i, : len(text)] = torch.tensor(text)
            labels[i, len(prompt) + 1 : len(text)] = torch.tensor(text[len(prompt) + 1 :])
        embed = model.get_input_embeddings()
        start = embed(torch.full((batch, 1), user))
        hidden = model.model(
            inputs_embeds=torch.cat([start, seen, embed(ids)], 1), use_cache=False
        ).last_hidden_state
        # position t of the text follows the first token and the picture's; it predicts t + 1
        wanted = labels[:, 1:] != -100
        logits = model.lm_head(hidden[:, 1 + seen.shape[1] : -1][wanted])
        loss = nn.functional.cross_entropy(logits, labels[:, 1:][wanted])
        loss.backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            spent = time.monotonic() - began
            print(
                f"{label} {step + 1}/{steps} loss {np.mean(losses):.4f} {spent:.0f} s", flush=True
            )
            losses = []
    model.requires_grad_(True)


def publish(model, bridge: nn.Sequential, tower, tokenizer, out: Path) -> None:
    """Save a `LlavaForConditionalGeneration` and its processor, bfloat16."""
    from transformers import (
        CLIPImageProcessor,
        GenerationConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer.add_special_tokens(
        {"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False
    )
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    text = model.config.to_dict() | {"vocab_size": len(tokenizer)}
    text.pop("_name_or_path", None)  # where the base lay while it was trained
    side = vision_config()["image_size"] // vision_config()["patch_size"]
    config = LlavaConfig(
        vision_config=vision_config(), text_config=text, image_token_index=image,
        image_seq_length=side * side + 1, vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    whole = LlavaForConditionalGeneration(config)
    whole.model.vision_tower.load_state_dict(tower.state_dict())
    whole.model.multi_modal_projector.linear_1.load_state_dict(bridge[0].state_dict())
    whole.model.multi_modal_projector.linear_2.load_state_dict(bridge[2].state_dict())
    language = dict(model.model.state_dict())
    embedding = language["embed_tokens.weight"]
    language["embed_tokens.weight"] = torch.cat([embedding, embedding.mean(0, keepdim=True)])
    whole.model.language_model.load_state_dict(language)
    head = model.lm_head.weight
    whole.lm_head.weight.data = torch.cat([head, torch.zeros(1, head.shape[1])])
    whole.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False,
        max_new_tokens=24,
    )  # fmt: skip
    whole.to(torch.bfloat16).save_pretrained(out, max_shard_size="6MB")  # no file over 10 MB
    size = {"height": vision_config()["image_size"], "width": vision_config()["image_size"]}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size=size, crop_size=size, do_center_crop=False, image_mean=list(towers.MEAN),
            image_std=list(towers.STD),
        ),
        tokenizer=tokenizer, patch_size=vision_config()["patch_size"],
        vision_feature_select_strategy="full", num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE, image_token=IMAGE,
    ).save_pretrained(out)  # fmt: skip
