"""A path is, live and exported, h ← h + f(norm(h))/c; checked against a loop written out here."""

import functools
import gc
import json
import math

import numpy as np
import pytest
import torch
import transformers
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from studio.errors import StudioError
from studio.evolve.generate import generate
from studio.merge.card import model_card
from studio.merge.data_flow import DataFlowSpace
from studio.merge.export import export
from studio.merge.mergekit_config import mergekit_obstacle, mergekit_path_yaml
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint
from tests.conftest import save_model

COMMON = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
#: Layers of the main model and of those that lend it theirs.
DEPTHS = (3, 2, 4)
WINDOW = 5
SLIDING, FULL = "sliding_attention", "full_attention"
#: Every kind of model whose layers can be rearranged; windows are shorter than the prompts.
KINDS: dict[str, dict] = {
    "Llama": {},
    "Llama with biases": {"attention_bias": True, "mlp_bias": True},
    "Mistral": {"sliding_window": None},
    "Mistral with a window": {"sliding_window": WINDOW},
    "Qwen2": {},
    "Qwen2 with windows": {"use_sliding_window": True, "sliding_window": WINDOW},
    "Qwen3": {},
    "Qwen3 with windows": {"use_sliding_window": True, "sliding_window": WINDOW},
    "Gemma": {},
    "Gemma2": {"sliding_window": WINDOW},
    "Gemma3Text": {"sliding_window": WINDOW},
}
#: Which layers look through a window, by depth, where a kind has such.
PATTERNS = {3: (FULL, SLIDING, SLIDING), 2: (SLIDING, FULL), 4: (SLIDING, SLIDING, FULL, FULL)}
PROMPTS = [
    "Tom",
    "Tom has 12 apples and buys 30 more.",
    "太郎はりんごを12個持っていて",
    "How many apples does he have now? The answer is",
]
TOKENS = torch.randint(5, 320, (2, 17), generator=torch.Generator().manual_seed(0))
#: Reproducible examples: two correct implementations may differ where an argmax is tied.
FEW = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# ── models and paths ──────────────────────────────────────────────────────────────────────────


def random_model(kind: str, seed: int, layers: int, **changes):
    """A model whose every parameter is drawn anew: a bias of zero would hide a mistake."""
    options = COMMON | KINDS[kind] | {"num_hidden_layers": layers} | changes
    if "windows" in kind or kind in ("Gemma2", "Gemma3Text"):
        options.setdefault("layer_types", list(PATTERNS[layers]))
    config = getattr(transformers, f"{kind.split()[0]}Config")(**options)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(noise * 0.3)
            elif "norm" in name:
                parameter.add_(noise * 0.3)
            elif "layers" in name:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))
            else:
                parameter.copy_(noise * 0.3)
    return model


@pytest.fixture(scope="module")
def lenders(tmp_path_factory):
    """`lenders(kind, count, **changes)`: models of one kind and `DEPTHS` layers; made once."""

    @functools.cache
    def make(kind: str, count: int = 3, **changes) -> list[Checkpoint]:
        folder = tmp_path_factory.mktemp("lenders")
        return [
            Checkpoint.open(save_model(random_model(kind, seed, depth, **changes), folder / name))
            for seed, (depth, name) in enumerate(zip(DEPTHS, ("main", "one", "two"), strict=True))
        ][:count]

    return make


@pytest.fixture(scope="module")
def lives(lenders):
    """`lives(kind, count, precision)`: a live path model, one for all examples of a test."""

    @functools.cache
    def make(kind: str, count: int, precision: str = "fp32"):
        space = DataFlowSpace(lenders(kind)[:count], repeats=2, scaling="matrix")
        return space.live(precision, "cpu")

    return make


def genome_of(space, slots=(), scales=None, seed: int = 0) -> np.ndarray:
    """The path over these slots; scales drawn from the whole range unless `scales` is 0 or more."""
    random = np.random.default_rng(seed)
    genome = np.array(
        random.uniform(-1, 1, len(space.names)) if scales is None
        else np.full(len(space.names), float(scales))
    )  # fmt: skip
    genome[: len(space.slots)] = -random.uniform(0.01, 1, len(space.slots))
    genome[list(slots)] *= -1
    return genome


#: Paths of few slots, in all orders that slots allow, with scales from a seed.
paths = st.tuples(st.sets(st.integers(0, 100), min_size=0, max_size=6), st.integers(0, 10**6))


def drawn(space, path) -> np.ndarray:
    slots, seed = path
    return genome_of(space, {slot % len(space.slots) for slot in slots}, seed=seed)


class Numbers:
    """A tokenizer whose texts are the token ids, so that equal answers are equal tokens."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments, **options):
        return self._tokenizer(*arguments, **options)

    def decode(self, ids, **options):
        return " ".join(map(str, ids))


def answers(model, tokenizer, tokens: int = 8) -> list[list[str]]:
    """Greedy answers, decoded in left-padded batches with our own cache, as lists of tokens."""
    found = generate(
        model, Numbers(tokenizer), PROMPTS, max_new_tokens=tokens, batch_size=len(PROMPTS)
    )
    return [response.text.split() for response in found]


@torch.no_grad()
def logits(model, tokens=TOKENS) -> torch.Tensor:
    return model(tokens).logits.double()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference relative to the largest logit; infinite where one is not finite."""
    worst = float((a - b).abs().max() / a.abs().max())
    return worst if math.isfinite(worst) else math.inf


def reload(space, genome, folder, precision: str = "fp32"):
    """What stands in the exported folder, read by transformers alone."""
    merged = space.checkpoint(genome, precision, "a path")
    export(merged, folder, card="", recipe_yaml="")
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


# ── the reference ─────────────────────────────────────────────────────────────────────────────


def steps_of(space, genome) -> list[tuple[int, int, float]]:
    """(source, layer, w) by the words of the paper, from the names of the genes alone."""
    values = dict(zip(space.names, genome.tolist(), strict=True))
    order = [(s, layer) for s, model in enumerate(space.sources) for layer in range(model.layers)]
    called = {(s, layer): f"{space.sources[s].path.name} {layer}" for s, layer in order}
    chosen = [
        place
        for repeat in range(space.repeats)
        for place in order
        if values[f"repeat {repeat + 1}/{called[place]}/keep"] > 0
    ]
    path = [(0, 0), *chosen, (0, space.sources[0].layers - 1)]
    scales = [1.0]
    for before, after in zip(path, path[1:], strict=False):
        scales.append(2 ** values[f"{called[before]} → {called[after]}/scale"])
    return [(*place, scale) for place, scale in zip(path, scales, strict=True)]


def surroundings(model, kind: str, hidden):
    """Rotary embeddings and mask of a layer of this kind of attention, for whole sequences."""
    length = hidden.shape[1]
    positions = torch.arange(length)[None]
    back = positions.T - positions  # [query, key]
    seen = back >= 0
    if kind == SLIDING:
        seen &= back < model.config.sliding_window
    mask = torch.zeros(length, length).masked_fill(~seen, -torch.inf)[None, None]
    rotary = model.model.rotary_emb
    both = [rotary(hidden, positions, kind)] if model.config.model_type == "gemma3_text" else [
        rotary(hidden, positions)
    ]  # fmt: skip
    return both[0], mask


def kind_of(model, layer: int) -> str:
    types = getattr(model.config, "layer_types", None)
    if types:
        return types[layer]
    return SLIDING if getattr(model.config, "sliding_window", None) else FULL


@torch.no_grad()
def reference(space, genome, tokens=TOKENS, folded: bool = True) -> torch.Tensor:
    """Logits of a path by an explicit loop over the sources' own layers.

    Folded, what a block adds is divided by c; unfolded, the layer's input is multiplied by w.
    """
    models = [source.load() for source in space.sources]
    main = models[0]
    hidden = main.model.embed_tokens(tokens)
    c = 1.0
    for source, number, w in steps_of(space, genome):
        layer, kind = models[source].model.layers[number], kind_of(models[source], number)
        rotary, mask = surroundings(main, kind, hidden)
        c *= w
        divisor = c if folded else 1.0
        if not folded:
            hidden = w * hidden
        added, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            position_embeddings=rotary,
            attention_mask=mask,
        )
        if hasattr(layer, "pre_feedforward_layernorm"):
            hidden = hidden + layer.post_attention_layernorm(added) / divisor
            added = layer.mlp(layer.pre_feedforward_layernorm(hidden))
            hidden = hidden + layer.post_feedforward_layernorm(added) / divisor
        else:
            hidden = hidden + added / divisor
            added = layer.mlp(layer.post_attention_layernorm(hidden))
            hidden = hidden + added / divisor
    found = main.lm_head(main.model.norm(hidden))
    cap = getattr(main.config, "final_logit_softcapping", None)
    return (torch.tanh(found / cap) * cap if cap else found).double()


# ── live, exported and by hand ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "count"), [("Llama", 1), *((kind, count) for kind in KINDS for count in (2, 3))]
)
def test_live_exported_and_by_hand_are_one_model(lives, kind, count, tmp_path_factory):
    live = lives(kind, count)
    space = live.space

    @FEW
    @given(paths)
    def compare(path):
        genome = drawn(space, path)
        live.apply(genome)
        ours = logits(live.model)
        assert difference(ours, reference(space, genome)) < 1e-5
        exported = reload(space, genome, tmp_path_factory.mktemp("path") / "out")
        assert difference(ours, logits(exported)) < 1e-5
        said = answers(live.model, live.tokenizer)
        assert said == answers(exported, live.tokenizer)
        assert all(said)

    compare()


@pytest.mark.parametrize("kind", ["Llama with biases", "Qwen2 with windows", "Gemma3Text"])
def test_one_layer_again_and_again(lives, kind, tmp_path):
    """Every slot of all repeats: each layer twice, twice as many layers as the models have."""
    live = lives(kind, 3)
    space = live.space
    genome = genome_of(space, range(len(space.slots)), seed=3)
    live.apply(genome)
    exported = reload(space, genome, tmp_path / "out")
    assert len(exported.model.layers) == 2 * sum(DEPTHS) + 2
    ours = logits(live.model)
    assert difference(ours, logits(exported)) < 1e-5
    assert difference(ours, reference(space, genome)) < 1e-5
    assert answers(live.model, live.tokenizer) == answers(exported, live.tokenizer)


@pytest.mark.parametrize("gene", [-1.0, 1.0])
@pytest.mark.parametrize("kind", ["Mistral", "Gemma2"])
def test_all_scales_at_a_bound(lives, kind, gene, tmp_path):
    live = lives(kind, 2)
    genome = genome_of(live.space, range(6), scales=gene)
    assert live.space.path(genome)[-1].divisor == 2.0 ** (7 * gene)
    live.apply(genome)
    exported = reload(live.space, genome, tmp_path / "out")
    assert difference(logits(live.model), logits(exported)) < 1e-5
    assert difference(logits(live.model), reference(live.space, genome)) < 1e-5


@pytest.mark.parametrize("kind", ["Llama with biases", "Mistral", "Qwen2", "Qwen3", "Gemma"])
def test_without_epsilon_it_is_the_papers_scaled_input(lenders, kind):
    """w·x + f(norm(w·x)), layer after layer, as the paper has it: equal where a norm has no eps."""
    space = DataFlowSpace(lenders(kind, 2, rms_norm_eps=0.0), repeats=2, scaling="matrix")
    live = space.live("fp32", "cpu")
    for seed in range(3):
        slots = np.random.default_rng(seed).choice(len(space.slots), 5, replace=False)
        genome = genome_of(space, slots, seed=seed)
        live.apply(genome)
        assert difference(logits(live.model), reference(space, genome, folded=False)) < 1e-5


def test_with_an_epsilon_folded_and_unfolded_differ(lenders):
    """Why the folded form defines the path: the comparison above can tell the two apart."""
    space = DataFlowSpace(lenders("Llama", 2, rms_norm_eps=1e-2), repeats=2, scaling="matrix")
    genome = genome_of(space, range(6), scales=1.0)
    live = space.live("fp32", "cpu")
    live.apply(genome)
    assert difference(logits(live.model), reference(space, genome)) < 1e-5
    assert difference(logits(live.model), reference(space, genome, folded=False)) > 1e-3


@pytest.mark.parametrize("scaling", ["network", "off"])
def test_scales_of_a_network_or_none_reach_the_weights(lenders, scaling, tmp_path):
    space = DataFlowSpace(lenders("Llama", 2), repeats=1, scaling=scaling)
    genome = genome_of(space, [1, 3, 4], seed=5)
    live = space.live("fp32", "cpu")
    live.apply(genome)
    scales = {step.scale for step in space.path(genome)}
    assert scales == {1.0} if scaling == "off" else len(scales) > 3
    exported = reload(space, genome, tmp_path / "out")
    assert difference(logits(live.model), logits(exported)) < 1e-5
    assert answers(live.model, live.tokenizer) == answers(exported, live.tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16_most_answers_are_the_same(lives, kind, tmp_path):
    """The export rounds W/c once more; the share of equal tokens is what a report gives."""
    live = lives(kind, 2, "bf16")
    same = []
    for seed in range(3):
        slots = np.random.default_rng(seed).choice(len(live.space.slots), 3, replace=False)
        genome = genome_of(live.space, slots, seed=seed)
        live.apply(genome)
        exported = reload(live.space, genome, tmp_path / str(seed), "bf16")
        assert exported.dtype == live.model.dtype == torch.bfloat16
        assert difference(logits(live.model), logits(exported)) < 0.15
        pairs = zip(
            answers(live.model, live.tokenizer, 4), answers(exported, live.tokenizer, 4),
            strict=True,
        )  # fmt: skip
        same += [one == two for one, two in pairs]
    assert np.mean(same) > 0.5


# ── what a candidate costs, and what it leaves behind ─────────────────────────────────────────


class Operations(TorchDispatchMode):
    """Notes every tensor operation."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def storages() -> dict[int, int]:
    """Address → bytes of every storage that a living tensor has."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    kept = [tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in kept}


def test_a_candidate_costs_no_copy(lenders):
    before = storages()
    space = DataFlowSpace(lenders("Mistral"), repeats=3)
    live = space.live("fp32", "cpu")
    made = {at: size for at, size in storages().items() if at not in before}
    lent = sum(source.parameters for source in space.sources)
    outside = sum(
        math.prod(source.shape(name))
        for source in space.sources[1:]
        for name in source.names()
        if "layers" not in name
    )
    rotary = 10_000  # a table of frequencies
    assert 4 * (lent - outside) <= sum(made.values()) <= 4 * (lent - outside) + rotary
    assert sum(made.values()) <= space.memory("fp32") + rotary
    for slots in ((), [1, 4, 7], range(len(space.slots))):  # 2, 5, 29 layers
        with Operations() as operations:
            live.apply(genome_of(space, slots))
        assert operations.seen == []  # not a single tensor was made, however long the path
        assert {p.untyped_storage().data_ptr() for p in live.model.parameters()} <= set(made)
    assert len(live.model.model.layers) == 29
    assert sum(size for at, size in storages().items() if at not in before) <= sum(made.values())


def test_every_slot_has_its_own_cache_entry(lives):
    live = lives("Llama", 2)
    layers = len(live.space.layers)
    live.apply(genome_of(live.space, [1, 1 + layers, 3, 3 + layers], seed=1))
    cache = transformers.DynamicCache(config=live.model.config)
    with torch.no_grad():
        live.model(TOKENS, past_key_values=cache, use_cache=True)
    positions = [layer.self_attn.layer_idx for layer in live.model.model.layers]
    assert positions == list(range(6)) and len(cache.layers) == 6
    assert all(layer.get_seq_length() == TOKENS.shape[1] for layer in cache.layers)
    keys = [layer.keys for layer in cache.layers]
    assert len({key.data_ptr() for key in keys}) == 6
    # a repeated layer reads another input the second time
    assert not torch.equal(keys[1], keys[3]) and not torch.equal(keys[2], keys[4])


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_leaves_nothing_behind_for_the_next(lives, kind):
    live = lives(kind, 3)
    space = live.space
    one, two = genome_of(space, [1, 5, 12], seed=1), genome_of(space, [1, 1, 5, 6, 10], seed=2)
    live.apply(one)
    first, said = logits(live.model), answers(live.model, live.tokenizer)
    live.apply(two)
    assert not torch.equal(logits(live.model), first)
    live.apply(one)
    assert torch.equal(logits(live.model), first)
    assert answers(live.model, live.tokenizer) == said
    fresh = space.live("fp32", "cpu")
    fresh.apply(one)
    assert torch.equal(logits(fresh.model), first)
    assert np.array_equal(live.genome, one)


def test_before_a_path_it_is_the_main_model_and_a_bad_genome_changes_nothing(lenders):
    space = DataFlowSpace(lenders("Llama"))
    live = space.live("fp32", "cpu")
    main = space.main.load()
    assert torch.equal(logits(live.model), logits(main)) and live.genome is None
    live.apply(space.initial)
    assert difference(logits(live.model), logits(main)) == 0
    live.apply(genome := genome_of(space, [2, 5]))
    before = logits(live.model)
    bad = genome.copy()
    bad[-1] = np.nan
    for wrong in (bad, genome[:-1], genome * 10):
        with pytest.raises(StudioError):
            live.apply(wrong)
        assert torch.equal(logits(live.model), before) and np.array_equal(live.genome, genome)


# ── the exported folder ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["Qwen2 with windows", "Qwen3 with windows", "Gemma2",
                                  "Gemma3Text"])  # fmt: skip
def test_the_configuration_has_one_entry_per_slot(lives, kind, tmp_path):
    space = lives(kind, 3).space
    genome = genome_of(space, [2, 3, 5, 6, 7, 11])
    reload(space, genome, tmp_path / "out")
    assert not (tmp_path / "out" / "mergekit.yaml").exists()
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = [PATTERNS[DEPTHS[source]][layer] for source, layer, _ in steps_of(space, genome)]
    assert written["num_hidden_layers"] == 8 == len(expected)
    assert written["layer_types"] == expected and set(expected) == {SLIDING, FULL}
    assert len(transformers.AutoConfig.from_pretrained(tmp_path / "out").layer_types) == 8
    # nothing else in the file speaks of single layers
    per_layer = [key for key, value in written.items() if isinstance(value, list)]
    assert sorted(per_layer) == ["architectures", "layer_types"]
    # the sources' own configurations are as they were
    assert [source.config.num_hidden_layers for source in space.sources] == list(DEPTHS)
    assert [source.config.layer_types for source in space.sources] == [
        list(PATTERNS[depth]) for depth in DEPTHS
    ]


@pytest.mark.parametrize("all_of", [SLIDING, FULL])
@pytest.mark.parametrize("kind", ["Qwen2 with windows", "Gemma2", "Gemma3Text"])
def test_a_path_of_one_kind_of_attention(lenders, kind, all_of, tmp_path):
    """Neither the mask nor the cache of the kind that is missing is asked for."""
    ends = {SLIDING: (SLIDING, FULL, SLIDING), FULL: (FULL, SLIDING, FULL)}[all_of]
    main = save_model(random_model(kind, 7, 3, layer_types=list(ends)), tmp_path / "main")
    space = DataFlowSpace([Checkpoint.open(main), lenders(kind)[2]], repeats=1, scaling="matrix")
    others = [3 + n for n, found in enumerate(PATTERNS[4]) if found == all_of]
    genome = genome_of(space, others, seed=2)
    live = space.live("fp32", "cpu")
    live.apply(genome)
    exported = reload(space, genome, tmp_path / "out")
    assert set(exported.config.layer_types) == {all_of} and len(exported.model.layers) == 4
    assert difference(logits(live.model), logits(exported)) < 1e-5
    assert difference(logits(live.model), reference(space, genome)) < 1e-5
    assert answers(live.model, live.tokenizer) == answers(exported, live.tokenizer)


@pytest.mark.parametrize("tied", [(True, False), (False, True), (True, True)])
def test_head_and_embedding_are_the_main_models(lenders, tied, tmp_path):
    main, other = (
        lenders("Llama", 3, tie_word_embeddings=each)[number] for number, each in enumerate(tied)
    )
    space = DataFlowSpace([main, other], repeats=1)
    genome = genome_of(space, [1, 3, 4], seed=2)
    live = space.live("fp32", "cpu")
    live.apply(genome)
    exported = reload(space, genome, tmp_path / "out")
    assert (exported.lm_head.weight is exported.model.embed_tokens.weight) == tied[0]
    assert torch.equal(exported.model.embed_tokens.weight, main.get("model.embed_tokens.weight"))
    assert torch.equal(exported.lm_head.weight, main.get("lm_head.weight"))
    assert torch.equal(exported.model.norm.weight, main.get("model.norm.weight"))
    assert difference(logits(live.model), logits(exported)) < 1e-5
    checkpoint = space.checkpoint(genome, "fp32", "p")
    assert checkpoint.tied == tied[0] and ("lm_head.weight" in checkpoint.names()) != tied[0]
    assert checkpoint.parameters == exported.num_parameters() == Checkpoint.open(
        tmp_path / "out"
    ).parameters  # fmt: skip


def test_vocabularies_may_differ(lenders, tmp_path):
    other = save_model(random_model("Mistral", 9, 3, vocab_size=300), tmp_path / "other")
    space = DataFlowSpace([Checkpoint.open(other), lenders("Mistral")[1]], repeats=1)
    genome = genome_of(space, [1, 3, 4], seed=2)
    live = space.live("fp32", "cpu")
    live.apply(genome)
    exported = reload(space, genome, tmp_path / "out")
    tokens = TOKENS % 300
    assert logits(exported, tokens).shape[-1] == 300
    assert difference(logits(live.model, tokens), logits(exported, tokens)) < 1e-5
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.get_vocab() == Checkpoint.open(other).tokenizer().get_vocab()


@pytest.mark.parametrize("kind", ["Llama with biases", "Gemma2"])
def test_an_export_is_a_source_again(lives, lenders, kind, tmp_path):
    """Opened from its folder it is the virtual checkpoint, tensor by tensor, and lends layers."""
    live = lives(kind, 2)
    genome = genome_of(live.space, [1, 3, 4, 6], seed=4)
    exported = reload(live.space, genome, tmp_path / "out")
    virtual = live.space.checkpoint(genome, "fp32", "out")
    opened = Checkpoint.open(tmp_path / "out")
    assert opened.names() == virtual.names() and opened.layers == virtual.layers == 6
    for name in opened.names():
        assert torch.equal(opened.get(name), virtual.get(name)), name
        assert opened.shape(name) == virtual.shape(name) == tuple(virtual.get(name).shape)
    with torch.no_grad():
        assert torch.equal(virtual.load()(TOKENS).logits, exported(TOKENS).logits)
    # as the main model, and as one that lends; from the folder, and never written
    for source in (opened, virtual):
        for sources in ([source, lenders(kind)[2]], [lenders(kind)[2], source]):
            again = DataFlowSpace(sources, repeats=1, scaling="matrix")
            longer = genome_of(again, [1, 2, 5, 7, 8], seed=5)
            path = again.live("fp32", "cpu")
            path.apply(longer)
            written = reload(again, longer, tmp_path / f"{len(list(tmp_path.iterdir()))}")
            assert difference(logits(path.model), logits(written)) < 1e-5
            assert answers(path.model, path.tokenizer) == answers(written, path.tokenizer)


def test_a_merge_leads_a_path(family_factory, random_genome, tmp_path):
    """The paper's PS + DFS: the merge was never written, and the path over it exports whole."""
    family = {name: Checkpoint.open(at) for name, at in family_factory(scale=0.6).items()}
    mixing = ParameterSpace(family["base"], [family["ja"], family["math"]], method="ties")
    winner = mixing.checkpoint(random_genome(mixing), "fp32", "winner")
    space = DataFlowSpace([winner, family["ja"]], repeats=2)
    genome = genome_of(space, [1, 3, 4, 7], seed=6)
    live = space.live("fp32", "cpu")
    live.apply(genome)
    exported = reload(space, genome, tmp_path / "out")
    assert difference(logits(live.model), logits(exported)) < 1e-5
    assert answers(live.model, live.tokenizer) == answers(exported, live.tokenizer)
    layer = "model.layers.{}.self_attn.q_proj.weight"
    read = exported.state_dict()
    assert torch.equal(read[layer.format(0)], winner.get(layer.format(0)))
    assert torch.equal(read[layer.format(2)], family["ja"].get(layer.format(0)))
    live.apply(space.initial)  # the merge itself
    assert difference(logits(live.model), logits(winner.load())) == 0
    assert "never written" in mergekit_obstacle(space)
    assert "mergekit.yaml" not in space.checkpoint(genome, "fp32", "p").documents()
    card = model_card(title="p", recipe="r", space=space, genome=genome, lineage={"run": "ab12"})
    for part in ("winner", "ja", "math", "base"):
        assert part in card
    assert "never written" in card and "apache-2.0" in card


def test_a_checkpoints_path_tells_models_apart(lenders):
    space = DataFlowSpace(lenders("Llama"), repeats=1)
    one, two, three = (genome_of(space, slots, seed=1) for slots in ([1], [2], [1, 2]))
    scaled = one.copy()
    scaled[len(space.slots) :] *= 0.5

    def of(genome, precision="fp32"):
        return space.checkpoint(genome, precision, "p").path

    assert len({of(one), of(two), of(three), of(scaled), of(one, "bf16")}) == 5
    surer = one.copy()
    surer[: len(space.slots)] /= 2  # other numbers, the same path
    assert of(surer) == of(one)


def test_documents_say_the_path_exactly(lenders, tmp_path):
    space = DataFlowSpace(lenders("Llama", 2), repeats=2)
    genome = genome_of(space, [1, 3, 6], seed=8)
    reload(space, genome, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "genome.json").read_text(encoding="utf-8"))
    assert [gene["value"] for gene in document["genes"]] == genome.tolist()
    assert [gene["gene"] for gene in document["genes"]] == space.names
    told = [(row["source"], row["layer"], row["scale"]) for row in document["path"]]
    names = [source.path.name for source in space.sources]
    assert told == [(names[source], layer, w) for source, layer, w in steps_of(space, genome)]
    assert str(tmp_path.parent) not in (tmp_path / "out" / "genome.json").read_text()


# ── mergekit, and the card ────────────────────────────────────────────────────────────────────


def run_mergekit(text: str, out) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge
    from safetensors.torch import load_file

    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, str(out), MergeOptions(quiet=True, write_model_card=False))
    merged = {}
    for file in out.glob("*.safetensors"):
        merged |= load_file(file)
    return merged


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma"])
def test_mergekit_builds_the_same_path(lives, kind, count, tmp_path):
    space = lives(kind, count).space
    slots = {1: [1, 2, 4], 3: [1, 3, 5, 8, 10, 14]}[count]
    genome = genome_of(space, slots, seed=2)
    theirs = run_mergekit(mergekit_path_yaml(space, genome, "float32"), tmp_path / "mergekit")
    ours = space.checkpoint(genome, "fp32", "p")
    assert set(theirs) - {"lm_head.weight"} == set(ours.names()) - {"lm_head.weight"}
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours.get(name), tensor, rtol=1e-6, atol=1e-7, msg=name)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "mergekit").eval()
    assert difference(logits(read), logits(ours.load())) < 1e-5


def test_mergekit_takes_what_is_not_a_layer_from_the_main_model(lenders, tmp_path):
    """Whatever the models are called: mergekit's own choice is the first of a set."""
    other = save_model(random_model("Mistral", 9, 3, vocab_size=300), tmp_path / "other")
    space = DataFlowSpace([Checkpoint.open(other), *lenders("Mistral")[1:]], repeats=1)
    text = mergekit_path_yaml(space, genome_of(space, [1, 3, 4, 6]), "float32")
    assert yaml.safe_load(text)["base_model"] == str(other)
    run_mergekit(text, tmp_path / "mergekit")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "mergekit")
    assert (config.vocab_size, config.num_hidden_layers) == (300, 6)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("Gemma2", "norms"), ("Gemma3Text", "norms"), ("Llama with biases", "biases"),
     ("Qwen2", "layer_types"), ("Qwen3 with windows", "layer_types")],
)  # fmt: skip
def test_what_mergekit_cannot_express(lives, kind, why):
    space = lives(kind, 2).space
    genome = genome_of(space, [1, 3])
    assert mergekit_path_yaml(space, genome, "float32") is None
    assert why in mergekit_obstacle(space)
    assert "mergekit.yaml" not in space.checkpoint(genome, "fp32", "p").documents()
    card = model_card(title="p", recipe="r", space=space, genome=genome)
    assert "There is no mergekit configuration" in card


def test_a_merge_of_weights_with_biases_mergekit_would_silently_lose(lenders):
    space = ParameterSpace(None, lenders("Llama with biases", 1), method="linear")
    assert "biases" in mergekit_obstacle(space)
    assert "mergekit.yaml" not in space.checkpoint(space.initial, "fp32", "m").documents()


def test_the_card_tells_layers_licences_and_lineage(lenders, tmp_path):
    main = lenders("Mistral")[0]
    restricted = Checkpoint.open(
        save_model(random_model("Mistral", 3, 2), tmp_path / "nc", licence="cc-by-nc-4.0")
    )
    space = DataFlowSpace([main, restricted], repeats=1)
    genome = genome_of(space, [1, 3, 4], seed=8)
    scores = [{"model": "p", "task": "jmath", "split": "test", "score": 0.5, "low": 0.4,
               "high": 0.6, "n": 9}]  # fmt: skip
    card = model_card(
        title="a path", recipe="seed: 7", space=space, genome=genome, scores=scores,
        lineage={"run": "ab12cd34", "proposed by": "data_flow, generation 3"},
    )  # fmt: skip
    assert "license: cc-by-nc-4.0" in card and "For research and non-commercial use only" in card
    assert "A path of 5 layers through 2 model(s)" in card and "data-flow space" in card
    assert "run: ab12cd34" in card and "data\\_flow" not in card
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    steps = [line.split(" | ") for line in lines if line.split(" | ")[0].strip("| ").isdigit()]
    rows = space.table(genome)
    assert len(steps) == len(rows) == 5
    for line, row in zip(steps, rows, strict=True):
        assert str(row["layer"]) in line and f"{row['scale']:.4f}" in line[-1]
    assert "mergekit.yaml" in card and "seed: 7" in card
