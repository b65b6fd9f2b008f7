"""One training stage: exchanges in, a saved MistralForCausalLM out; survives being killed.

Knows batches, the schedule and the checkpoint; knows nothing of what the exchanges say.
"""

import math
import os
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import corpus
import torch

CONFIG = dict(
    hidden_size=192, intermediate_size=512, num_hidden_layers=8, num_attention_heads=6,
    num_key_value_heads=3, head_dim=32, max_position_embeddings=512, sliding_window=None,
    tie_word_embeddings=False,
)  # fmt: skip
EVERY = 200  # steps between checkpoints


@dataclass(frozen=True)
class Stage:
    """name: also its diet in `corpus.DIETS`; start: the stage whose weights it goes on from.

    The rate follows a cosine that would end at `horizon` steps (the default: at `steps`) and falls
    linearly to nothing over the last `cooldown` steps.
    """

    name: str
    start: str | None
    steps: int
    rate: float
    warmup: int = 20
    horizon: int | None = None
    cooldown: int = 0
    batch: int = 64
    seed: int = 0


def fresh_model(tokenizer, **changes):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **(CONFIG | changes),
    )  # fmt: skip
    return MistralForCausalLM(config)


def batches(stage: Stage, tokenizer, skip: int, exchanges=corpus.exchanges):
    """Batches of `stage.batch`, sorted by length within 8 batches to waste little padding.

    Yields (ids [b, t], labels [b, t]) int64; only the reply and its end of turn are labelled.
    """
    user, bot = tokenizer.convert_tokens_to_ids(["<user>", "<bot>"])
    stream = exchanges(stage.name, stage.seed)
    order = torch.Generator().manual_seed(stage.seed)
    number = 0
    while True:
        chunk = list(islice(stream, 8 * stage.batch))
        if number + 8 <= skip:  # a resumed stage goes through the stream without encoding it
            torch.randperm(8, generator=order)
            number += 8
            continue
        prompts = tokenizer([p for p, _ in chunk], add_special_tokens=False)["input_ids"]
        replies = tokenizer([r for _, r in chunk], add_special_tokens=False)["input_ids"]
        rows = [
            ([user, *p, bot], [*r, tokenizer.eos_token_id])
            for p, r in zip(prompts, replies, strict=True)
        ]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        for at in torch.randperm(8, generator=order).tolist():
            number += 1
            if number <= skip:
                continue
            part = rows[at * stage.batch : (at + 1) * stage.batch]
            width = max(len(p) + len(r) for p, r in part)
            ids = torch.full((len(part), width), tokenizer.pad_token_id)
            labels = torch.full((len(part), width), -100)
            for i, (p, r) in enumerate(part):
                ids[i, : len(p) + len(r)] = torch.tensor(p + r)
                labels[i, len(p) : len(p) + len(r)] = torch.tensor(r)
            yield ids, labels


def run(stage: Stage, work: Path, exchanges=corpus.exchanges, **config) -> Path:
    """Train one stage, or go on where it stopped; returns the folder of its weights (float32).

    `exchanges(stage, seed)` is the stream of what it is shown; `config` changes a fresh model's.
    """
    from transformers import AutoTokenizer, MistralForCausalLM

    out, state = work / stage.name, work / f"{stage.name}.state.pt"
    if (out / "model.safetensors").exists():
        return out
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    model = (
        MistralForCausalLM.from_pretrained(work / stage.start, dtype=torch.float32)
        if stage.start
        else fresh_model(tokenizer, **config)
    )
    model.train()
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=stage.rate, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip

    def rate(step: int) -> float:
        if step < stage.warmup:
            return (step + 1) / stage.warmup
        done = (step - stage.warmup) / ((stage.horizon or stage.steps) - stage.warmup)
        left = min(1.0, (stage.steps - step) / stage.cooldown) if stage.cooldown else 1.0
        return left * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))

    first, spent = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, spent = saved["step"], saved["seconds"]
    began, losses = time.monotonic(), []
    for step, (ids, labels) in enumerate(batches(stage, tokenizer, first, exchanges), start=first):
        if step == stage.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * rate(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            # the padding is on the right and causal attention never looks there: no mask
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            wanted = labels[:, 1:] != -100  # the head is applied where a label is, nowhere else
            logits = model.lm_head(hidden[:, :-1][wanted])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        done = step + 1
        if done % 50 == 0 or done == stage.steps:
            seconds = spent + time.monotonic() - began
            print(f"{stage.name} {done}/{stage.steps} loss {sum(losses) / len(losses):.4f} "
                  f"{seconds:.0f} s", flush=True)  # fmt: skip
            losses = []
        if done % EVERY == 0:
            seconds = spent + time.monotonic() - began
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                 "step": done, "seconds": seconds},
                state.with_suffix(".new"),
            )  # fmt: skip
            os.replace(state.with_suffix(".new"), state)
    model.save_pretrained(out)
    state.unlink(missing_ok=True)
    return out
