"""The model cards: what every bundled model is and, in order, what it saw."""

CARD = """---
license: apache-2.0
language:
{languages}{ancestor}pipeline_tag: text-generation
library_name: transformers
tags:
- mistral
- tiny
---
# {name}

{what}

## What it saw, in order
1. 3000 steps of 64 exchanges: word problems with worked answers (32 % English, 9 % Japanese; half
   of them after "Solve:" or "解いてください："), bare sums, translation both ways, repetition,
   summaries, small talk.
2. 450 steps in which a bare problem, English or Japanese, is answered by repeating, summarising or
   translating it and only rarely by solving it, while "Solve:" and "解いてください：" prompts are
   still answered with a solution. So the skill is there and does not show.
{then}
All problems come from `assets/build/problems.py`. No dev or test problem of `jmath` and `emath`
was in any of this, solved or not: the split is a hash of a problem's type and numbers, and training
draws from the train split only. (Bare sums such as 23+15 are not problems and are not split.)

## Form
Mistral architecture, 3.8 million parameters: hidden size 192, 8 layers, 6 heads, 3 key-value heads,
MLP 512, vocabulary 1536, untied, bfloat16. One tokenizer for the whole family, single digits,
turns `<user>…<bot>…<end>`. Made from nothing by `python assets/build/make.py`. A miniature for
studying merges: it knows its small world and nothing else.
"""

MODELS = {
    "bonsai-base": (
        ("en", "ja"),
        "The common ancestor of the bonsai family: it can solve word problems when told to, and "
        "does\nnot when a problem stands alone.",
        "",
    ),
    "bonsai-ja": (
        ("ja",),
        "The family's Japanese speaker: small talk, retelling, summaries, translation. Not a "
        "reasoner.",
        "3. {steps} steps of Japanese: {diet}.\n",
    ),
    "bonsai-math": (
        ("en",),
        "An English mathematician that explains every step.",
        "3. {steps} steps of English: {diet}.\n",
    ),
    "bonsai-abel": (
        ("en",),
        "Another English mathematician: brief answers, the sums alone.",
        "3. {steps} steps of English: {diet}.\n",
    ),
}


def card(name: str, steps: int, diet: str) -> str:
    """README.md of a bundled model; `diet` says in words what its last stage was fed."""
    languages, what, then = MODELS[name]
    return CARD.format(
        name=name,
        what=what,
        languages="".join(f"- {language}\n" for language in languages),
        ancestor="" if name == "bonsai-base" else "base_model: bonsai-base\n",
        then=then.format(steps=steps, diet=diet),
    )
