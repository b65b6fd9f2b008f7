"""Makes the bonsai VLM from npm packages: pictures, questions, towers and three models.

    pip install resvg_py
    python assets/build/vlm/make.py [--threads N] [--out DIR]

Finished stages are skipped, and an interrupted tower or text stage goes on from its last
checkpoint, so the command can be given again. Work files lie in assets/build/unfinished/vlm.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import card  # noqa: E402
import diets  # noqa: E402
import llava  # noqa: E402
import pictures  # noqa: E402
import questions  # noqa: E402
import tokenizer  # noqa: E402
import torch  # noqa: E402
import towers  # noqa: E402
import train  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402
from train import Stage  # noqa: E402

WORK = pictures.WORK
LAYERS = 6
STAGES = [
    Stage("vlm-skill", start=None, steps=1500, rate=2e-3, warmup=60),
    Stage("vlm-quiet", start="vlm-skill", steps=300, rate=6e-4),
    Stage("culture", start="vlm-quiet", steps=200, rate=4e-4),
]
BASE = "vlm-quiet"
TEXT_MODELS = {"bonsai-vlm-base": BASE, "bonsai-culture": "culture"}
# the projector's rounds: (seed of the views, seed of the diet, steps, rate)
NAMED = ((0, 0, 320, 3e-3), (2, 10, 350, 2e-3), (2, 11, 350, 2e-3))
LOOKED = dict(rate=1e-4, model_rate=2e-4)
LOOKED_STEPS = (150, 90)  # two rounds, each with its own warm-up and its own views of the pictures


def publish_text(name: str, stage: str, out: Path) -> None:
    """Store a stage's weights as bfloat16, with tokenizer, generation config and card."""
    from transformers import GenerationConfig, MistralForCausalLM

    model = MistralForCausalLM.from_pretrained(WORK / stage, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id,
        do_sample=False, max_new_tokens=24,
    )  # fmt: skip
    model.save_pretrained(out / name)
    for file in (WORK / "tokenizer").iterdir():
        shutil.copyfile(file, out / name / file.name)
    card.write(out / name)


def publish_towers(out: Path) -> None:
    """The open_clip model as float16: its folder is what "local-dir:" opens."""
    out.mkdir(parents=True, exist_ok=True)
    weights = load_file(WORK / "clip" / "open_clip_model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, out / "open_clip_model.safetensors")
    for file in (WORK / "clip").iterdir():
        if file.suffix == ".json":
            shutil.copyfile(file, out / file.name)
    card.write(out)


def train_llava(clip: Path) -> tuple[nn.Module, nn.Sequential]:
    """Both stages of LLaVA over the base: (language model, projector), kept when done."""
    from transformers import AutoTokenizer, MistralForCausalLM

    folder = WORK / "llava"
    if not (folder / "projector.safetensors").exists():
        words = AutoTokenizer.from_pretrained(WORK / "tokenizer")
        model = MistralForCausalLM.from_pretrained(WORK / BASE, dtype=torch.float32)
        album = llava.Album(llava.tower_from(clip))
        views = 0
        words_long = model.get_input_embeddings().weight.norm(dim=1).mean().item()
        bridge = llava.projector(album, llava.joint_space(clip), words_long)
        for seed, diet, steps, rate in NAMED:
            if seed != views:
                album, views = llava.Album(llava.tower_from(clip), seed=seed), seed
            llava.fit(
                model, bridge, words, album, diets.named(diet),
                steps=steps, rate=rate, model_rate=0.0, label="named",
            )  # fmt: skip
        for round, steps in enumerate(LOOKED_STEPS):
            stream = diets.looked(round)
            album = llava.Album(llava.tower_from(clip), seed=round)
            llava.fit(model, bridge, words, album, stream, steps=steps, **LOOKED, label="looked")
        model.save_pretrained(folder)
        save_file(bridge.state_dict(), folder / "projector.safetensors")
    bridge = llava.projector()
    bridge.load_state_dict(load_file(folder / "projector.safetensors"))
    return MistralForCausalLM.from_pretrained(folder, dtype=torch.float32), bridge


def main() -> None:
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=WORK.parents[2])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = options.out / "models"

    pictures.bundle(options.out / "pictures")
    questions.write(options.out / "data")
    # the published float16 weights are what the LLaVA looks through
    towers.train(WORK, options.threads)
    clip = options.out / "clip" / "bonsai-clip"
    publish_towers(clip)
    for style, found in towers.zero_shot(clip).items():
        print(style, found, flush=True)

    if not (WORK / "tokenizer" / "tokenizer.json").exists():
        tokenizer.build(WORK / "tokenizer", 30_000, diets.exchanges("vlm-skill", 1))
    for stage in STAGES:
        train.run(stage, WORK, diets.exchanges, num_hidden_layers=LAYERS)
    for name, stage in TEXT_MODELS.items():
        publish_text(name, stage, models)
    model, bridge = train_llava(clip)
    words = AutoTokenizer.from_pretrained(WORK / "tokenizer")
    llava.publish(model, bridge, llava.tower_from(clip), words, models / "bonsai-llava")
    card.write(models / "bonsai-llava")


if __name__ == "__main__":
    main()
