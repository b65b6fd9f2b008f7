"""Vision-language models are opened, merged, searched in and exported like language models."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from studio.errors import StudioError
from studio.evolve import library
from studio.evolve.generate import GREEDY, Decoding, chat_prompt
from studio.evolve.spaces import build_space
from studio.merge.data_flow import DataFlowSpace
from studio.merge.export import export
from studio.merge.parameter_space import ParameterSpace
from studio.models import open_source
from studio.models.vocabulary import align, with_pictures
from studio.recipe import Recipe
from tests.vlm.families import KINDS

QUESTION = "これは何ですか。"
every_kind = pytest.mark.parametrize("kind", KINDS)
tied_or_not = pytest.mark.parametrize("tied", [False, True])


def opened(folder):
    return [open_source(folder / name) for name in ("base", "vlm", "ja")]


def mixing(folder, **options) -> ParameterSpace:
    base, *sources = opened(folder)
    choice = with_pictures("same", base, sources)
    base, sources = align(base, sources, choice)
    return ParameterSpace(base, sources, layer_granularity=1, **options)


def answers(model, tokenizer, processor, pictures, decoding=GREEDY, tokens=6) -> list[str]:
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = chat_prompt(processor, [{"role": "user", "content": content}])
    found = library.generate(
        model, tokenizer, [prompt] * len(pictures), pictures, processor=processor,
        max_new_tokens=tokens, batch_size=2, decoding=decoding,
    )  # fmt: skip
    return [response.text for response in found]


def by_transformers(folder, pictures, tokens=6, **options) -> list[str]:
    """What plain transformers makes of an exported folder, a picture at a time."""
    from PIL import Image

    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    turns = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    found = []
    for file in pictures:
        inputs = processor(
            text=[prompt], images=[Image.open(file)], return_tensors="pt", add_special_tokens=False
        )
        rows = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)
        tail = rows[0, inputs["input_ids"].shape[1] :]
        found.append(processor.decode(tail, skip_special_tokens=True).strip())
    return found


def voice(live):
    return live.model, live.tokenizer, live.processor


@every_kind
@tied_or_not
def test_a_source_is_the_model_that_transformers_loads(vlm_factory, pictures, kind, tied):
    folder = vlm_factory(kind, tied=tied) / "vlm"
    source = open_source(folder)
    assert source.architecture in ("MistralForCausalLM", "Qwen2ForCausalLM")
    assert source.tied == tied
    loaded = source.load(torch.float32)
    reference = AutoModelForImageTextToText.from_pretrained(folder)
    expected = reference.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    found = answers(loaded, source.tokenizer(), source.processor(), pictures)
    assert found == by_transformers(folder, pictures)


@every_kind
def test_answers_depend_on_the_picture(vlm_factory, pictures, kind):
    source = open_source(vlm_factory(kind) / "vlm")
    model = source.load(torch.float32)
    found = answers(model, source.tokenizer(), source.processor(), pictures, tokens=12)
    assert len(set(found)) > 1


@every_kind
@tied_or_not
def test_a_merge_lives_is_exported_and_answers_the_same(
    vlm_factory, pictures, tmp_path, kind, tied
):
    folder = vlm_factory(kind, tied=tied)
    space = mixing(folder, method="dare_ties")
    rng = np.random.default_rng(1)
    live = space.live("fp32")
    for number in range(2):
        genome = rng.uniform(space.lower, space.upper)
        live.apply(genome)
        spoken = answers(*voice(live), pictures)
        out = export(space.checkpoint(genome, "fp32", "m"), tmp_path / f"{number}", card="# card")
        assert by_transformers(out, pictures) == spoken

    before = load_file(folder / "vlm" / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    seen = [name for name in before if "vis" in name or "projector" in name or "newline" in name]
    assert len(seen) > 20
    assert all(torch.equal(before[name], after[name]) for name in seen)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert set(changed) == set(before) - set(seen)


@every_kind
def test_weight_one_of_the_seeing_source_alone_is_that_source(vlm_factory, pictures, kind):
    folder = vlm_factory(kind)
    space = mixing(folder, method="task_arithmetic")
    live = space.live("fp32")
    alone = np.array([1.0 if gene.source.endswith("vlm") else 0.0 for gene in space.genes])
    live.apply(alone)
    source = open_source(folder / "vlm")
    expected = source.load(torch.float32)
    inside = source.language(expected)
    for name, value in live.state_dict().items():
        there = inside.get_parameter(name) if name != "lm_head.weight" else inside.lm_head.weight
        assert torch.allclose(value, there, atol=1e-6)
    assert answers(*voice(live), pictures) == answers(
        expected, source.tokenizer(), source.processor(), pictures
    )


@every_kind
def test_paths_go_through_layers_of_both(vlm_factory, pictures, tmp_path, kind):
    folder = vlm_factory(kind)
    space = DataFlowSpace([open_source(folder / "vlm"), open_source(folder / "ja")], repeats=2)
    live = space.live("fp32")
    rng = np.random.default_rng(3)
    lengths = set()
    for number in range(2):
        genome = rng.uniform(space.lower, space.upper)
        live.apply(genome)
        spoken = answers(*voice(live), pictures)
        out = export(space.checkpoint(genome, "fp32", "p"), tmp_path / f"{number}", card="# card")
        assert by_transformers(out, pictures) == spoken
        config = json.loads((out / "config.json").read_text())
        lengths.add(config["text_config"]["num_hidden_layers"])
        assert config["text_config"]["num_hidden_layers"] == len(space.path(genome))
    assert len(lengths) == 2


def test_a_path_begins_with_the_model_that_sees(vlm_factory):
    folder = vlm_factory("llava")
    with pytest.raises(StudioError, match="sees no pictures; put .*vlm first"):
        DataFlowSpace([open_source(folder / "ja"), open_source(folder / "vlm")])


def test_both_spaces_one_after_the_other(vlm_factory, pictures, tmp_path):
    folder = vlm_factory("llava")
    space = mixing(folder, method="linear")
    merged = space.checkpoint(space.initial, "fp32", "winner")
    paths = DataFlowSpace([merged, open_source(folder / "ja")], repeats=1)
    genome = np.random.default_rng(0).uniform(paths.lower, paths.upper)
    live = paths.live("fp32")
    live.apply(genome)
    out = export(paths.checkpoint(genome, "fp32", "p"), tmp_path / "out", card="# card")
    assert by_transformers(out, pictures) == answers(*voice(live), pictures)


@every_kind
@pytest.mark.parametrize("precision", ["int8", "nf4", "bf16"])
def test_smaller_precisions_merge_the_language_model_alone(vlm_factory, pictures, kind, precision):
    folder = vlm_factory(kind)
    space = mixing(folder, method="task_arithmetic")
    exact = space.live("fp32")
    small = space.live(precision)
    genome = np.full(len(space.genes), 0.4)
    exact.apply(genome)
    small.apply(genome)
    content = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": QUESTION}]
    prompt = chat_prompt(small.processor, [{"role": "user", "content": content}])
    with torch.no_grad():
        one, two = (
            live.model(
                **library.encode(live.tokenizer, [prompt], [pictures], live.processor, live.model)
            ).logits.float()
            for live in (exact, small)
        )
    assert (one - two).norm() / one.norm() < {"int8": 0.05, "nf4": 0.3, "bf16": 0.05}[precision]
    for name, value in exact.model.state_dict().items():
        if "vis" in name or "projector" in name:
            there = small.model.state_dict()[name].float()
            assert torch.allclose(value, there, rtol=0.01, atol=1e-6), name


def test_the_vocabulary_of_the_seeing_model_is_taken_where_only_pictures_differ(vlm_factory):
    folder = vlm_factory("llava")
    base, *sources = opened(folder)
    assert with_pictures("same", base, sources) == sources[0].name
    assert with_pictures("union", base, sources) == "union"
    assert with_pictures("same", base, sources[1:]) == "same"
    with pytest.raises(StudioError, match="lacks tokens of .*vlm.*vocabulary: union"):
        with_pictures("base", base, sources)
    with pytest.raises(StudioError, match="lacks tokens of"):
        with_pictures(sources[1].name, base, sources)


def test_a_union_keeps_the_ids_of_pictures(vlm_factory, pictures, tmp_path):
    folder = vlm_factory("llava")
    base, *sources = opened(folder)
    base, sources = align(base, sources, "union")
    space = ParameterSpace(base, sources, method="linear")
    live = space.live("fp32")
    live.apply(space.initial)
    out = export(space.checkpoint(space.initial, "fp32", "u"), tmp_path / "out", card="# card")
    assert by_transformers(out, pictures) == answers(*voice(live), pictures)


def test_a_recipe_needs_nothing_special(vlm_factory):
    folder = vlm_factory("llava_next")
    recipe = Recipe.from_dict({
        "base": str(folder / "base"),
        "sources": [str(folder / "ja"), str(folder / "vlm")],
        "objectives": [{"task": "jmath"}],
        "decoding": {"beams": 5, "repetition_penalty": 1.5},
    })  # fmt: skip
    models = opened(folder)
    space = build_space(recipe, recipe.stages()[0], [models[0], models[2], models[1]])
    assert space.frame.name == str(folder / "vlm")
    assert "mergekit.yaml" not in space.checkpoint(space.initial, "fp32", "m").documents()


@pytest.mark.parametrize("decoding", [Decoding(beams=5), Decoding(3, 1.5)])
def test_beams_and_penalty_are_those_of_transformers(vlm_factory, pictures, decoding):
    folder = vlm_factory("llava") / "vlm"
    source = open_source(folder)
    model = source.load(torch.float32)
    found = answers(model, source.tokenizer(), source.processor(), pictures, decoding)
    options = {"num_beams": decoding.beams, "repetition_penalty": decoding.repetition_penalty}
    assert found == by_transformers(folder, pictures, **options)
    assert found != answers(model, source.tokenizer(), source.processor(), pictures)
