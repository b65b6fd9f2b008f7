"""The contrastive pair of towers, trained from nothing with open_clip's own model and loss.

Knows augmentation, captions in both languages and the folder that `open_clip` loads with the
prefix "local-dir:"; knows nothing of language models. The held-out style is never opened here.
"""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pictures
import torch
import world
from torch import Tensor

STYLES = tuple(style for style in pictures.PACKAGES if style != pictures.HELD_OUT)
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 72, "patch_size": 18, "width": 192, "head_width": 32, "layers": 6,
        "mlp_ratio": 2.0,
    },
    "text_cfg": {
        "context_length": 12, "vocab_size": 4000, "width": 128, "heads": 4, "layers": 2,
        "mlp_ratio": 2.0, "pool_type": "eos", "eos_id": 1, "pad_id": 0,
        "hf_tokenizer_name": "bonsai-clip", "tokenizer_kwargs": {"clean": "whitespace"},
    },
}  # fmt: skip
MEAN, STD = (0.78, 0.74, 0.71), (0.32, 0.33, 0.35)
PREPROCESS = {
    "size": [72, 72], "mode": "RGB", "mean": MEAN, "std": STD, "interpolation": "bicubic",
    "resize_mode": "shortest", "fill_color": 255,
}  # fmt: skip
STEPS, BATCH, RATE, WARMUP, EVERY = 2600, 160, 1.5e-3, 80, 100
PAD, END = "<pad>", "<end>"


def nouns(key: str) -> tuple[list[str], list[str]]:
    """What an emoji may be called in English and in Japanese: label first, then tags."""
    label_en, tags_en, label_ja, tags_ja = pictures.names()[key]
    return [label_en, *tags_en], [label_ja, *tags_ja]


def own_names() -> dict[str, tuple[str, str]]:
    """key → the world's English (without article) and Japanese name."""
    found = {}
    for thing in world.things():
        name = thing.en.removeprefix("an ").removeprefix("a ").removeprefix("the ")
        found[pictures.key_of(thing.emoji)] = (name, thing.ja)
    return found


def build_tokenizer(out: Path) -> None:
    """Byte-level BPE over every caption, lower-cased; every text ends in <end>."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["text_cfg"]["vocab_size"], special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    texts = [text for key in pictures.names() for side in nouns(key) for text in side]
    texts += [text for pair in own_names().values() for text in pair]
    tokenizer.train_from_iterator(texts * 4, trainer)
    tokenizer.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="right",
        model_max_length=CONFIG["text_cfg"]["context_length"],
    ).save_pretrained(out)  # fmt: skip


def configure(out: Path) -> None:
    """open_clip_config.json, which makes a folder one that "local-dir:" opens."""
    config = {"model_cfg": CONFIG, "preprocess_cfg": PREPROCESS}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def augment(batch: Tensor, generator: torch.Generator, *, gentle: bool = False) -> Tensor:
    """Shift, scale, rotate, recolour uint8 [n, 3, h, w]; returns normalised float32 [n, 3, h, w].

    `gentle` leaves the colours what they are called.
    """
    n = len(batch)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    x = 1 - batch.float() / 255  # white is 0, so what moves in from outside is white
    angle, grow = uniform(-0.3, 0.3), uniform(0.85, 1.3)
    tall = grow * uniform(0.85, 1.15)
    turn = torch.stack(
        [
            torch.stack([grow * angle.cos(), -grow * angle.sin(), uniform(-0.12, 0.12)], 1),
            torch.stack([tall * angle.sin(), tall * angle.cos(), uniform(-0.12, 0.12)], 1),
        ],
        1,
    )
    flip = torch.where(torch.rand(n, generator=generator) < 0.3, -1.0, 1.0)
    turn[:, 0, :2] *= flip[:, None]
    grid = torch.nn.functional.affine_grid(turn, list(x.shape), align_corners=False)
    x = 1 - torch.nn.functional.grid_sample(x, grid, align_corners=False)
    if gentle:
        return normalise(x.clamp(0, 1))
    grey = x.mean(1, keepdim=True)
    # saturation, sometimes none; each channel's own gain; contrast; never away from white paper
    vivid = uniform(0.5, 1.4, 1, 1, 1)
    vivid = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.1, 0.0, vivid)
    x = grey + (x - grey) * vivid
    x = 1 - (1 - x) * uniform(0.75, 1.25, 3, 1, 1) * uniform(0.75, 1.2, 1, 1, 1)
    return normalise(x.clamp(0, 1))


def normalise(x: Tensor) -> Tensor:
    """float32 [n, 3, h, w] in [0, 1] to what the tower takes."""
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class Pairs:
    """Batches of pictures with an English and a Japanese caption each; no emoji twice in one."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.library = {style: pictures.library(style) for style in STYLES}
        self.styles: dict[str, list[str]] = {}
        for style in STYLES:
            for key in self.library[style]:
                self.styles.setdefault(key, []).append(style)
        self.own = own_names()
        self.counted = {pictures.key_of(world.by_id()[id].emoji) for id in world.COUNTED}
        self.keys = sorted(self.styles)
        weight = np.array([8.0 if key in self.own else 1.0 for key in self.keys])
        self.chance = weight / weight.sum()
        self.composed = {}

    def batch(self) -> tuple[Tensor, list[str], list[str]]:
        """uint8 [BATCH, 3, 72, 72] and the captions."""
        chosen = self.random.choice(self.keys, BATCH, replace=False, p=self.chance)
        rows = [self._row(str(key)) for key in chosen]
        pixels = torch.from_numpy(np.stack([row[0] for row in rows])).permute(0, 3, 1, 2)
        return pixels, [row[1] for row in rows], [row[2] for row in rows]

    def _row(self, key: str) -> tuple[np.ndarray, str, str]:
        style = self.styles[key][self.random.integers(len(self.styles[key]))]
        picture = self.library[style][key]
        en, ja = self._name(key)
        if key in self.counted and self.random.random() < 0.35:
            count = int(self.random.integers(2, 6))
            picture = self._several(style, key, count)
            word_en, word_ja = world.COUNT_WORDS[count]
            return picture, f"{word_en} {en}", f"{word_ja}の{ja}"
        return picture, en, ja

    def _name(self, key: str) -> tuple[str, str]:
        if key in self.own and self.random.random() < 0.85:
            return self.own[key]
        en, ja = nouns(key)
        # the label half the time, else a tag: tags are shared between emoji, labels are not
        pick = [
            side[0] if self.random.random() < 0.6 else side[self.random.integers(len(side))]
            for side in (en, ja)
        ]
        return pick[0], pick[1]

    def _several(self, style: str, key: str, count: int) -> np.ndarray:
        at = (style, key, count)
        if at not in self.composed:
            image = pictures.Image.fromarray(self.library[style][key])
            self.composed[at] = np.array(pictures.several(image, count))
        return self.composed[at]


def train(work: Path, threads: int) -> Path:
    """Train, or go on where it stopped; returns the folder with float32 weights."""
    import open_clip
    from safetensors.torch import save_file

    out, state = work / "clip", work / "clip.state.pt"
    if (out / "open_clip_model.safetensors").exists():
        return out
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.json").exists():
        build_tokenizer(out)
    configure(out)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
    torch.manual_seed(0)
    config = {k: v for k, v in CONFIG.items()}
    model = open_clip.model.CLIP(**config)
    loss_of = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=RATE, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    first, spent = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, spent = saved["step"], saved["seconds"]
    pairs, generator = Pairs(seed=first), torch.Generator().manual_seed(first)
    began, losses = time.monotonic(), []
    model.train()
    for step in range(first, STEPS):
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - WARMUP) / (STEPS - WARMUP)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP) * (0.02 + 0.98 * cosine)
        pixels, en, ja = pairs.batch()
        with torch.autocast("cpu", enabled=False):
            seen = model.encode_image(augment(pixels, generator), normalize=True)
            read = model.encode_text(tokenizer([*en, *ja]), normalize=True)
        scale = model.logit_scale.exp()
        seen, read = seen.float(), read.float()
        loss = loss_of(seen, read[:BATCH], scale) + loss_of(seen, read[BATCH:], scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item() / 2)
        if (step + 1) % 50 == 0:
            seconds = spent + time.monotonic() - began
            print(f"clip {step + 1}/{STEPS} loss {np.mean(losses):.3f} {seconds:.0f} s", flush=True)
            losses = []
        if (step + 1) % EVERY == 0:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                     "step": step + 1, "seconds": spent + time.monotonic() - began}  # fmt: skip
            torch.save(saved, state.with_suffix(".new"))
            os.replace(state.with_suffix(".new"), state)
    save_file(model.state_dict(), out / "open_clip_model.safetensors")
    state.unlink(missing_ok=True)
    return out


@torch.no_grad()
def zero_shot(folder: Path, styles: tuple[str, ...] = pictures.BUNDLED) -> dict[str, dict]:
    """{style: {"en", "ja": (top-1, top-5 shares)}} over the tasks' things, among each other."""
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    things = [thing for thing in world.things() if thing.part != "practice"]
    keys = [pictures.key_of(thing.emoji) for thing in things]
    own = own_names()
    found: dict[str, dict] = {}
    for style in styles:
        library = pictures.library(style)
        pixels = torch.from_numpy(np.stack([library[key] for key in keys])).permute(0, 3, 1, 2)
        seen = model.encode_image(normalise(pixels.float() / 255), normalize=True)
        found[style] = {}
        for side, language in enumerate(("en", "ja")):
            read = model.encode_text(tokenizer([own[key][side] for key in keys]), normalize=True)
            order = (seen @ read.T).argsort(dim=1, descending=True)
            right = order == torch.arange(len(keys))[:, None]
            found[style][language] = (
                right[:, 0].float().mean().item(),
                right[:, :5].any(1).float().mean().item(),
            )
    return found
