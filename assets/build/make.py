"""Makes the tasks' data and the whole bonsai family from nothing.

    python assets/build/make.py [--threads N] [--out DIR]

Finished stages are skipped and an interrupted one goes on from its last checkpoint, so the
command can be given again after anything went wrong. Work files lie in assets/build/unfinished.
"""

import argparse
import shutil
import time
from pathlib import Path

import cards
import data
import tokenizer
import torch
import train
from train import Stage

HERE = Path(__file__).resolve().parent
WORK = HERE / "unfinished"

# base, then quiet, are bonsai-base; the other three go on from there
STAGES = [
    Stage("base", start=None, steps=3000, rate=1.5e-3, warmup=100, horizon=4000, cooldown=1000),
    Stage("quiet", start="base", steps=450, rate=5e-4),
    Stage("ja", start="quiet", steps=250, rate=3e-4),
    Stage("math", start="quiet", steps=250, rate=3e-4),
    Stage("abel", start="quiet", steps=250, rate=3e-4),
]
PUBLISHED = {
    "bonsai-base": ("quiet", ""),
    "bonsai-ja": (
        "ja",
        "small talk, summaries and repetition of bare problems, translation into Japanese on "
        "request; no\n   problem is solved",
    ),
    "bonsai-math": ("math", "bare problems of all types with a sentence for every step"),
    "bonsai-abel": (
        "abel",
        "bare and asked problems answered by the sums alone (one-step types twice as\n   often), "
        "bare sums, small talk",
    ),
}


def publish(name: str, stage: Stage, diet: str, out: Path) -> None:
    """Store a stage's weights as bfloat16, with tokenizer, generation config and card."""
    from transformers import GenerationConfig, MistralForCausalLM

    model = MistralForCausalLM.from_pretrained(WORK / stage.name, dtype=torch.bfloat16)
    config = model.config
    model.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, do_sample=False,
        max_new_tokens=64,
    )  # fmt: skip
    folder = out / name
    model.save_pretrained(folder)
    for file in (WORK / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text(
        cards.card(name, stage.steps, diet), encoding="utf-8", newline="\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE.parent)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    WORK.mkdir(exist_ok=True)

    data.write(options.out / "data")
    if not (WORK / "tokenizer" / "tokenizer.json").exists():
        tokenizer.build(WORK / "tokenizer")
    for stage in STAGES:
        began = time.monotonic()
        train.run(stage, WORK)
        print(f"{stage.name} done, {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    stages = {stage.name: stage for stage in STAGES}
    for name, (stage, diet) in PUBLISHED.items():
        publish(name, stages[stage], diet, options.out / "models")


if __name__ == "__main__":
    main()
