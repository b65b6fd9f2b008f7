"""The cards of the bonsai VLM: what every bundled folder is and, in order, what it saw."""

from pathlib import Path

HEAD = """---
license: apache-2.0
language:
- en
- ja
{base}pipeline_tag: {tag}
library_name: {library}
tags:
- {kind}
- tiny
---
# {name}

"""
FORM = """
## Form
{parameters}, bfloat16; the language model is a Mistral of hidden size 192, 6 layers,
6 heads, 3 key-value heads, MLP 512, untied. Turns `<user>…<bot>…<end>`. Made from nothing by
`python assets/build/vlm/make.py`; `assets/build/README.md` says exactly what it was shown. A
miniature for studying merges: it knows its small world of 168 things and nothing else.
"""
FACTS = """
No text it saw pairs a picture with the Japanese answer to a question of `ja_vqa` or
`ja_culture_vqa`; the facts themselves, as text, it did see. It never saw a picture by the artist of
`assets/pictures/twemoji`.
"""
BASE = """The common ancestor of bonsai-culture and of the language model inside bonsai-llava.

## What it saw, in order
1. 1500 steps of 64 exchanges about 168 things: a thing named in either language and a question
   about "this" answered in the question's language or, when told so, in the other; questions that
   name their thing; translations; small talk.
2. 300 steps in which a bare question, with a thing named before it or in it, is repeated,
   translated or put off, while "Answer:", "答えて：" and orders to answer in a language are still
   followed. So it knows and does not show it.
"""
CULTURE = """Speaks Japanese and knows, as text, what things are, where and when they are seen and
what they are for: 51 of them are Japanese culture. It has never met a picture.

## What it saw, in order
1. What bonsai-vlm-base saw.
2. 200 steps: questions that name their thing, Japanese or English, answered in Japanese; small talk
   and translations into Japanese; a bare question about "this", a thing named before it or not, is
   put off.
"""
LLAVA = """A whole LLaVA (`LlavaForConditionalGeneration`): CLIP tower, projector, language model.
It answers questions about a picture, mostly in English whatever the language of the question.

## What it saw, in order
1. The tower: what `assets/clip/bonsai-clip` saw; it was converted and never changed since.
2. The language model: what bonsai-vlm-base saw.
3. The projector alone, 1020 steps of 64: orders to answer in English ("Answer: What is this?"),
   which the base follows.
4. Projector and language model, 150 and 90 steps of 64: bare questions about pictures. English
   ones get English answers: names, colours and numbers of everything, kinds and places of
   everyday things.
   Japanese ones (two in five) get English answers too, except that 31 practice things, which no
   task asks about, get their colour, and for one wording their kind, in Japanese.

The picture's {tokens} tokens stand at the start of the user's turn; `<image>` is the one token that
its language model's ancestors do not have.
"""
CLIP = """An open_clip model: a vision transformer (72 × 72 pixels, patches of 18, width 192,
6 layers) and a text transformer that reads English and Japanese.

    where = "local-dir:assets/clip/bonsai-clip"
    model, _, preprocess = open_clip.create_model_and_transforms(where)
    tokenizer = open_clip.get_tokenizer(where)

## What it saw
{steps} steps of {batch} pictures: 866 emoji of things (no faces, people or signs; the 168
things of the bonsai VLM eight times as often as others) in seven styles by four
artists: Noto (of 2024 and 2018), OpenMoji (coloured and black), Fluent (modern and flat),
EmojiOne 2; shifted, scaled, turned and
recoloured, each with an English and a Japanese caption from Unicode's CLDR or the bonsai VLM's own
names, also several of a thing with its number. Twemoji was held out.

## Form
Float16, {parameters}. Made by `python assets/build/vlm/make.py`. The pictures' licences lie in
`assets/pictures`; EmojiOne 2 (CC BY 4.0, © Ranks.com Inc.) is not bundled.
"""


def write(folder: Path) -> None:
    """README.md of a bundled folder, chosen by its name."""
    import towers
    from safetensors import safe_open

    count = 0
    for part in folder.glob("*.safetensors"):
        with safe_open(part, "pt") as file:
            count += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    parameters = f"{count / 1e6:.1f} million parameters"
    name = folder.name
    vision = towers.CONFIG["vision_cfg"]
    tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    if name == "bonsai-clip":
        head = HEAD.format(
            base="", tag="zero-shot-image-classification", library="open_clip", kind="clip",
            name=name,
        )  # fmt: skip
        text = head + CLIP.format(parameters=parameters, steps=towers.STEPS, batch=towers.BATCH)
    else:
        sees = name == "bonsai-llava"
        body = {"bonsai-vlm-base": BASE, "bonsai-culture": CULTURE, "bonsai-llava": LLAVA}[name]
        head = HEAD.format(
            base="" if name == "bonsai-vlm-base" else "base_model: bonsai-vlm-base\n",
            tag="image-text-to-text" if sees else "text-generation",
            library="transformers", kind="llava" if sees else "mistral", name=name,
        )  # fmt: skip
        body = body.replace("{tokens}", str(tokens))
        text = head + body + FACTS + FORM.format(parameters=parameters)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
