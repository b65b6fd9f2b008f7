"""Whether an exported path is the path that was measured: logits and answers, in fp32 and bf16.

    python benchmarks/path_export.py RUN [--candidate N]

The run's best path is exported, loaded by transformers' own `from_pretrained`, and asked the whole
test split beside the live path model. Prints a Markdown table and writes it to
benchmarks/results/path_export.md.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from publish import machine, publish

from studio import api
from studio.evolve.evaluate import prompts_for
from studio.evolve.generate import encode, generate
from studio.evolve.spaces import rebuild_space
from studio.merge.export import export
from studio.models.precision import DTYPES
from studio.recipe import Recipe


def main() -> None:
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--candidate", default="best")
    options = parser.parse_args()
    store = api.open_store()
    record = store.run(options.run)
    candidate = store.pick(record.id, options.candidate)
    recipe = Recipe.from_yaml(record.recipe)
    task = recipe.build_tasks()[0]
    examples = task.examples("test")
    space = rebuild_space(store, record.id, candidate.stage)
    path = space.path(candidate.genome)
    lines = [
        "| precision | largest difference of a logit, of the largest logit | equal answers |",
        "|---|---|---|",
    ]
    for precision, dtype in DTYPES.items():
        live = space.live(precision)
        live.apply(candidate.genome)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = space.checkpoint(candidate.genome, precision, "path")
            out = export(checkpoint, Path(folder) / "path", card="", recipe_yaml="")
            plain = AutoModelForCausalLM.from_pretrained(out, dtype=dtype).to(live.device).eval()
        prompts = prompts_for(live.tokenizer, task, examples)
        largest, difference = 0.0, 0.0
        said = []
        for model in (live.model, plain):
            said.append(
                generate(
                    model, live.tokenizer, prompts, max_new_tokens=task.max_new_tokens,
                    batch_size=recipe.batch_size,
                )
            )  # fmt: skip
        for prompt in prompts:
            ids = torch.tensor([encode(live.tokenizer, prompt)], device=live.device)
            with torch.inference_mode():
                one, two = (m(ids, use_cache=False).logits.float() for m in (live.model, plain))
            largest = max(largest, one.abs().max().item())
            difference = max(difference, (one - two).abs().max().item())
        equal = sum(a == b for a, b in zip(*said, strict=True))
        lines.append(
            f"| {precision} | {difference / largest:.1e} | {equal} of {len(examples)} "
            f"({100 * equal / len(examples):.1f} %) |"
        )
    lines += [
        "",
        f"Candidate #{candidate.id} of '{record.name}', a path of {len(path)} layers through "
        f"{len(space.sources)} models, {len({(s.source, s.layer) for s in path})} of them "
        f"different; {task.name}. {machine()}.",
    ]
    publish("path_export", lines)


if __name__ == "__main__":
    main()
