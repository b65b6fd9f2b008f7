"""The model card: valid front matter, honest licences, and no text that becomes markup."""

import dataclasses

import pytest
import yaml

from studio.merge.card import model_card
from studio.models.licences import licence_of_merge


class Model:
    def __init__(self, name, licence):
        self.name, self.licence = name, licence


@pytest.mark.parametrize(
    ("licences", "front", "words"),
    [
        (["apache-2.0", "apache-2.0"], {"license": "apache-2.0"}, "Free to use"),
        (["mit", "apache-2.0"], {"license": "apache-2.0"}, "Free to use"),
        (["mit", "mit"], {"license": "mit"}, "Free to use"),
        ([" MIT ", "CC0-1.0"], {"license": "cc0-1.0"}, "Free to use"),
        (["apache-2.0", "cc-by-nc-4.0"], {"license": "cc-by-nc-4.0"}, "non-commercial use only"),
        (
            ["llama2", "cc-by-nc-4.0"],
            {"license": "other", "license_name": "non-commercial"},
            "m1 (cc-by-nc-4.0)",
        ),
        (
            ["apache-2.0", "microsoft-research-license"],
            {"license": "other", "license_name": "microsoft-research-license"},
            "research and non-commercial use only",
        ),
        (
            ["apache-2.0", "ai2-non-commercial"],
            {"license": "other", "license_name": "ai2-non-commercial"},
            "non-commercial use only",
        ),
        (["llama2", "apache-2.0"], {"license": "llama2"}, "terms of m0 (llama2) apply"),
        (["llama3.1", "mit"], {"license": "llama3.1"}, "begins with “Llama”"),
        (
            ["llama2", "gemma"],
            {"license": "other", "license_name": "several"},
            "m0 (llama2), m1 (gemma)",
        ),
        (["apache-2.0", None], {"license": "other", "license_name": "unknown"}, "stated by m1"),
        (
            [None, "cc-by-nc-4.0"],
            {"license": "other", "license_name": "non-commercial"},
            "No licence is stated by m0",
        ),
        (["gpl-3.0", "apache-2.0"], {"license": "gpl-3.0"}, "terms of m0 (gpl-3.0) apply"),
        (["gpl-3.0", "agpl-3.0"], {"license": "agpl-3.0"}, "m0 (gpl-3.0), m1 (agpl-3.0)"),
        (
            ["cc-by-nc-4.0", "cc-by-nc-sa-4.0"],
            {"license": "cc-by-nc-sa-4.0"},
            "non-commercial use only",
        ),
        (
            ["gpl-3.0", "llama3"],
            {"license": "other", "license_name": "conflict"},
            "exclude each other",
        ),
        (
            ["cc-by-sa-4.0", "cc-by-nc-4.0"],
            {"license": "other", "license_name": "conflict"},
            "m0 (cc-by-sa-4.0), m1 (cc-by-nc-4.0) exclude each other",
        ),
        (
            ["cc-by-nc-nd-4.0", "mit"],
            {"license": "other", "license_name": "no-derivatives"},
            "m0 (cc-by-nc-nd-4.0) allows no adaptations",
        ),
    ],
)
def test_the_strictest_licence_rules(licences, front, words):
    models = [Model(f"m{index}", licence) for index, licence in enumerate(licences)]
    got, sentence = licence_of_merge(models)
    assert got == front
    assert words in sentence
    assert licence_of_merge(models[::-1])[0] == front  # whoever comes first


SCORES = [
    {"model": "ja", "task": "jmath", "split": "test", "score": 0.012, "low": 0.004, "high": 0.035,
     "n": 250},
    {"model": "merge", "task": "jmath", "split": "test", "score": 0.56, "low": 0.498, "high": 0.62,
     "n": 250},
]  # fmt: skip


def make_card(space, **changes) -> str:
    return model_card(**{
        "title": "My merge", "recipe": "name: test\n", "space": space, "genome": space.initial,
        "scores": SCORES, "lineage": {"run": "abc", "candidate": 12, "seed": 0},
    } | changes)  # fmt: skip


def test_a_card_says_everything(make_space):
    space = make_space(filters=["mlp"])
    card = make_card(space)
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "apache-2.0" and front["library_name"] == "transformers"
    assert front["tags"] == ["merge", "evollm-studio", "dare_ties"]
    assert "base_model" not in front  # local folders are nothing the hub could link to
    assert "| 56.0% (49.8% to 62.0%) | 250 |" in body
    assert "- candidate: 12" in body
    assert "arXiv:2311.03099" in body
    assert "```yaml\nname: test\n```" in body
    assert "other random masks" in body
    assert body.count("| layer 1 |") == 2 * 3
    assert all(f"| {model.licence} |" in body for model in space.models)


def test_only_what_was_searched_is_called_evolved(make_space):
    space = make_space()
    evolved, given = (make_card(space), make_card(space, lineage=None, scores=()))
    assert "evolved with EvoLLM Studio" in evolved and "2403.13187" in evolved
    assert "nothing was searched" not in evolved
    first = given.split("## Models and licences")[0]
    assert "evolved" not in first and "2403.13187" not in first
    assert "the weights given below; nothing was searched" in first
    assert "## Lineage" not in given


def test_the_rounded_numbers_lead_to_the_exact_ones(make_space):
    card = make_card(make_space())
    section = card.split("## What is merged how")[1].split("## Recipe")[0]
    assert "`genome.json` has the exact numbers" in section


def test_hub_models_are_named_in_the_front_matter(make_space):
    space = make_space()
    names = ["GAIR/Abel-7B-002", "augmxnt/shisa-gamma-7b-v1"]
    space.sources = [
        dataclasses.replace(source, name=name)
        for source, name in zip(space.sources[:2], names, strict=True)
    ] + space.sources[2:]
    front = yaml.safe_load(make_card(space).split("---\n", 2)[1])
    assert front["base_model"] == names and front["base_model_relation"] == "merge"


def test_pinned_models_and_files_are_named_by_their_repository(make_space):
    space = make_space()
    names = ["owner/one/model-Q4.gguf@main", "owner/two@v1"]
    space.sources = [
        dataclasses.replace(source, name=name)
        for source, name in zip(space.sources[:2], names, strict=True)
    ] + space.sources[2:]
    front = yaml.safe_load(make_card(space).split("---\n", 2)[1])
    assert front["base_model"] == ["owner/one", "owner/two"]


def test_strangers_text_stays_text(make_space):
    evil = "x<script>alert(1)</script>|y`z\n# heading"
    space = make_space()
    space.sources[0] = dataclasses.replace(space.sources[0], name=evil, licence=evil)
    card = make_card(
        space, title=evil, lineage={"note": evil}, recipe="a: |\n  ```\n  <script>\n",
        scores=[SCORES[0] | {"model": evil}],
    )  # fmt: skip
    front, body = yaml.safe_load(card.split("---\n", 2)[1]), card.split("---\n", 2)[2]
    assert (front["license"], front["license_name"]) == ("other", evil)
    before_recipe = body.split("## Recipe")[0]
    assert "<script>" not in before_recipe and "\n# heading" not in before_recipe
    assert "````yaml\na: |\n  ```\n  <script>\n````" in body


def test_slerp_and_linear_have_only_the_columns_they_use(make_space):
    slerp = make_card(make_space(sources=("ja", "math"), method="slerp"))
    assert "| group | t |" in slerp
    linear = make_space(method="linear", base=False)
    card = make_card(linear)
    assert "| group | source | weight |" in card and "| base |" not in card
