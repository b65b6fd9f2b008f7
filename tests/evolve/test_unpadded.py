"""Decoding without padding says what transformers' own forward pass says, whatever the model."""

import numba
import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from studio.evolve import passes, unpadded, whole
from studio.evolve.flat import FlatModel, Memory, reads
from studio.evolve.generate import BrokenModel, _decoder, _padded
from studio.evolve.passes import attend, remember, rms_norm
from studio.evolve.products import product
from studio.evolve.whole import Whole

SIZES = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 256, "tie_word_embeddings": False, "pad_token_id": 0,
}  # fmt: skip
KINDS = {
    "llama": {},
    "llama-biased": {"attention_bias": True, "mlp_bias": True},
    "llama-tied": {"tie_word_embeddings": True, "num_key_value_heads": 6, "head_dim": 8},
    "llama-far": {
        "rope_parameters": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_theta": 10000.0,
        }
    },
    "mistral": {"sliding_window": None},
    "mistral-near": {"sliding_window": 200},  # a window that nothing here is too long for
    "qwen2": {},
    "qwen3": {},
}  # fmt: skip


def made(kind: str, dtype: torch.dtype = torch.float32, **changes):
    """A model of random weights, large enough that its tokens depend on what was said."""
    torch.manual_seed(len(kind))
    name = kind.partition("-")[0]
    config = CONFIG_MAPPING[name](**(SIZES | KINDS.get(kind, {}) | changes))
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model.to(dtype)


def prompts(count: int, common: int = 0, longest: int = 30) -> list[list[int]]:
    random = np.random.default_rng(count)
    begin = random.integers(3, 101, common).tolist()
    return [
        begin + random.integers(3, 101, random.integers(1, longest)).tolist() for _ in range(count)
    ]


def said(decode, model, asked, slots=8, **options):
    options = {
        "stops": [5, 17, 40], "max_new_tokens": 20, "on_token": lambda: None, "cut_loops": False,
    } | options  # fmt: skip
    stops = options.pop("stops")
    return decode(model, asked, stops, slots=slots, **options)


@torch.inference_mode()
def by_transformers(model, asked, **options):
    return said(_padded, model, asked, **options)


@pytest.fixture
def passed(monkeypatch):
    """How many tokens are passed at a time."""
    found, following = [], FlatModel.next

    def watched(self, tokens, *arguments):
        found.append(len(tokens))
        return following(self, tokens, *arguments)

    monkeypatch.setattr(FlatModel, "next", watched)
    return found


#: Ways of passing a model: module by module, in compiled code with torch's BLAS, and without.
WAYS = ("parts", "whole", "few")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    if request.param == "parts":
        monkeypatch.setattr(Whole, "of", lambda *_: None)
    elif request.param == "few":
        monkeypatch.setattr(whole, "sgemm", lambda: 0)
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_transformers(kind, way):
    model, asked = made(kind), prompts(21)
    assert reads(model, 50)
    assert (Whole.of(model, model.model.layers) is None) == (way == "parts")
    found = said(unpadded.decode, model, asked)
    assert found == by_transformers(model, asked)
    lengths = {len(tokens) for tokens, _ in found}
    assert len(lengths) > 3 and max(lengths) == 20  # some end early, some do not


@pytest.mark.parametrize("common", [0, 3, unpadded.COMMON, 40])
def test_what_prompts_begin_with_is_read_once(common, passed):
    model, asked, read = made("llama"), prompts(9, common), passed
    found = said(unpadded.decode, model, asked, slots=9)
    once = common if common >= unpadded.COMMON else 0
    begins = sum(map(len, asked)) - len(asked) * once
    assert read[:1] == [once] if once else read[0] > 8
    assert sum(read[bool(once) :][:2]) == begins  # two groups
    assert found == by_transformers(model, asked)


def test_a_prompt_that_another_begins_with_is_not_read_away():
    model = made("llama")
    long = prompts(1, 40)[0]
    asked = [long, long[:12], long]
    assert said(unpadded.decode, model, asked) == by_transformers(model, asked)


@pytest.mark.parametrize("slots", [1, 2, 5, 64])
def test_whoever_is_done_makes_room_at_once(slots, passed):
    """No step has an empty slot while a prompt waits, and none has more sequences than slots."""
    model, asked = made("qwen2"), prompts(24)
    asked = [[3, 4, *ids] for ids in asked]  # longer than the next token of an answer
    steps, calls = passed, []
    found = said(unpadded.decode, model, asked, slots, on_token=lambda: calls.append(None))
    assert len(calls) == len(steps)
    assert found == by_transformers(model, asked)
    together = -(-min(slots, 24) // unpadded.READ)
    if slots >= 24:
        together = max(together, unpadded.TOGETHER)
    reading = [sum(map(len, asked[n : n + together])) for n in range(0, 24, together)]
    under_way = []  # what remains is a token of each sequence
    for count in steps:
        under_way += [count] if not reading or count != reading[0] else []
        reading = reading[1:] if reading and count == reading[0] else reading
    assert not reading
    assert sum(under_way) == sum(len(answer) - 1 for answer, _ in found)
    full = [rows == min(slots, len(asked)) for rows in under_way]
    rest = under_way[full.count(True) :]  # nobody is waiting any more
    assert all(full[: full.count(True)]) and rest == sorted(rest, reverse=True)


def test_cores_share_sequences_and_order_is_kept():
    threads = torch.get_num_threads()
    model, asked = made("mistral"), prompts(70, 10)
    torch.set_num_threads(3)
    try:
        shared = said(unpadded.decode, model, asked, slots=3 * unpadded.SHARE)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert shared == by_transformers(model, asked, slots=70)


def test_loops_are_cut_as_by_transformers():
    model, asked = made("llama"), prompts(30)
    for layer in model.model.layers:  # each token has its successor: sooner or later, a circle
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    options = {"cut_loops": True, "max_new_tokens": 90}
    found = said(unpadded.decode, model, asked, **options)
    assert found == by_transformers(model, asked, **options)
    assert {runaway for _, runaway in found} == {True, False}


def test_long_prompts_are_read_in_several_steps(monkeypatch):
    monkeypatch.setattr(unpadded, "PREFILL", 40)
    model, asked = made("llama"), prompts(12, longest=90)
    steps = []
    found = said(unpadded.decode, model, asked, 12, on_token=lambda: steps.append(None))
    assert found == by_transformers(model, asked, slots=12) and len(steps) > 22


def test_a_candidate_leaves_nothing_to_the_next():
    model, asked = made("qwen3"), prompts(10, 12)
    first = said(unpadded.decode, model, asked)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-0.7)
    other = said(unpadded.decode, model, asked[::-1], slots=3)
    assert other == by_transformers(model, asked[::-1]) and other[::-1] != first
    model.load_state_dict(kept)
    assert said(unpadded.decode, model, asked) == first


def test_memory_is_used_again():
    model, asked = made("llama"), prompts(10)
    said(unpadded.decode, model, asked)
    lanes = Memory._left[model]._lanes
    before = lanes[0]
    said(unpadded.decode, model, asked[:4])
    assert Memory._left[model]._lanes[0] is before
    said(unpadded.decode, model, asked, max_new_tokens=40)  # more is needed
    assert Memory._left[model]._lanes[0].size > before.size


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_what_is_not_finite_is_broken_whichever_core_sees_it(poison, where, way):
    model = made("llama")
    model.get_parameter(where).data[7, 3] = poison
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(BrokenModel):
            said(unpadded.decode, model, prompts(40), slots=2 * unpadded.SHARE)
    finally:
        torch.set_num_threads(threads)


def test_an_interruption_stops_every_core():
    model, steps = made("llama"), []
    threads = torch.get_num_threads()

    def third():
        steps.append(None)
        if len(steps) == 3:
            raise InterruptedError

    torch.set_num_threads(2)
    try:
        with pytest.raises(InterruptedError):
            said(unpadded.decode, model, prompts(40), 2 * unpadded.SHARE, on_token=third,
                 max_new_tokens=200)  # fmt: skip
        assert len(steps) == 3 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert said(unpadded.decode, model, prompts(4)) == by_transformers(model, prompts(4))


def test_half_precision_is_as_near_as_half_precision_is():
    """Logits of bfloat16 differ in their last digits: nearly all first tokens are the same."""
    model, asked = made("llama", torch.bfloat16), prompts(60)
    options = {"max_new_tokens": 1}
    found = said(unpadded.decode, model, asked, **options)
    exact = by_transformers(model.float(), asked, **options)
    assert sum(a == b for a, b in zip(found, exact, strict=True)) >= 54


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mistral", {"sliding_window": 12}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        ("gemma2", {}),
        ("gpt_neox", {}),
    ],
)
def test_what_cannot_be_decoded_so_is_left_to_transformers(kind, changes):
    model = made(kind, **changes)
    assert not reads(model, 50)
    assert _decoder(model, 50) == (_padded, 1)


def packed(model) -> None:
    mlp = model.model.layers[1].mlp
    mlp.down_proj = torch.nn.Sequential(mlp.down_proj)


def narrow(model) -> None:
    """A layer of another model, which has a smaller MLP."""
    model.model.layers[1].mlp = made("llama", intermediate_size=32).model.layers[1].mlp


def half(model) -> None:
    model.bfloat16()


def curved(model) -> None:
    model.config.hidden_act = "gelu"
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.GELU()


@pytest.mark.parametrize("change", [packed, narrow, half, curved])
def test_what_is_not_plain_is_passed_module_by_module(change):
    model, asked = made("llama"), prompts(21)
    assert Whole.of(model, model.model.layers) is not None
    change(model)
    assert Whole.of(model, model.model.layers) is None
    found = said(unpadded.decode, model, asked)
    assert change is half or found == by_transformers(model, asked)


def test_a_library_without_a_product_is_passed_by(monkeypatch, tmp_path):
    whole.sgemm.cache_clear()
    monkeypatch.setattr(whole.torch, "__file__", str(tmp_path / "__init__.py"))
    assert whole.sgemm() == 0
    monkeypatch.undo()
    monkeypatch.setattr(whole, "_is_product", lambda function: False)
    whole.sgemm.cache_clear()
    assert whole.sgemm() == 0
    whole.sgemm.cache_clear()


# ── the loops ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("heads", "group", "size"), [(1, 1, 4), (3, 2, 32), (2, 4, 64)])
def test_attention_is_that_of_its_definition(heads, group, size):
    """Against softmax(q·k) v in float64, sequences of three slots in any order."""
    random = np.random.default_rng(size)
    places = np.array([0, 1, 2, 0, 1, 3, 2, 4], np.int32)
    slots = np.array([2, 2, 2, 0, 0, 0, 0, 0], np.int32)
    projected = random.normal(size=(8, (heads * group + 2 * heads) * size), scale=3)
    projected = projected.astype(np.float32)
    angles = np.outer(np.arange(6), 10.0 ** -np.arange(size // 2))
    angles = np.concatenate([angles, angles], axis=1)
    turns = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    keys, values = (np.full((3, heads, 6, size), np.nan, np.float32) for _ in range(2))
    found = np.empty((8, heads * group * size), np.float32)
    start = heads * group * size
    remember(projected, start, *turns, slots, places, keys, values)
    attend(projected, group, *turns, slots, places, keys, values, np.float32(0.2), found)

    def turned(x, place):
        cos, sin = np.cos(angles[place]), np.sin(angles[place])
        return x * cos + np.concatenate([-x[size // 2 :], x[: size // 2]]) * sin

    exact = projected.astype(np.float64)
    for t in range(8):
        seen = [u for u in range(8) if slots[u] == slots[t] and places[u] <= places[t]]
        for head in range(heads * group):
            at = start + head // group * size
            query = turned(exact[t, head * size : (head + 1) * size], places[t])
            scores = [0.2 * query @ turned(exact[u, at : at + size], places[u]) for u in seen]
            shares = np.exp(np.array(scores) - max(scores))
            expected = shares / shares.sum() @ exact[seen, at + heads * size :][:, :size]
            got = found[t, head * size : (head + 1) * size]
            assert np.allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_norm_is_that_of_its_definition():
    x = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    weight, out = np.linspace(0.5, 2, 48, dtype=np.float32), np.empty_like(x)
    rms_norm(x, weight, np.float32(1e-6), out)
    exact = weight * x / np.sqrt((x.astype(float) ** 2).mean(1, keepdims=True) + 1e-6)
    assert np.allclose(out, exact, rtol=1e-6)


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("tokens", "count"), [(1, 7), (4, 8), (6, 9), (11, 2), (12, 5), (40, 33)])
def test_a_product_is_that_of_its_definition(tokens, count, biased, adds):
    random = np.random.default_rng(tokens)
    x, weight, bias, before = (
        random.normal(size=size).astype(np.float32)
        for size in [(tokens, 19), (count, 19), count, (tokens, count + 5)]
    )
    exact = before.astype(np.float64)
    exact[:, 3 : 3 + count] = (
        x @ weight.T + biased * bias + (exact[:, 3 : 3 + count] if adds else 0)
    )
    for blas in {0, whole.sgemm()}:
        out = before.copy()
        at = bias.ctypes.data if biased else 0
        passes._multiply(blas, x, weight.ctypes.data, at, out, 3, count, adds)
        assert np.allclose(out, exact, atol=1e-5)


def test_an_exponential_is_that_of_its_definition():
    compiled = numba.njit(lambda x: passes.exponential(x))
    for x in np.linspace(-86, 87, 1001, dtype=np.float32):
        assert np.isclose(compiled(x), np.exp(np.float64(x)), rtol=1e-6)
    assert np.isnan(compiled(np.float32(np.nan))) and compiled(np.float32(-1e9)) < 1e-37


@pytest.mark.parametrize("biases", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("size", [8, 600])  # the larger is laid out anew
def test_products_side_by_side_are_each_their_own(size, biases):
    modules = [torch.nn.Linear(size, size - 3 * n, bias=bias) for n, bias in enumerate(biases)]
    x = torch.randn(7, size)
    with torch.inference_mode():
        expected = torch.cat([module(x) for module in modules], dim=1)
        assert torch.allclose(product(*modules)(x), expected, atol=1e-5)
        assert torch.equal(product(*modules, copies=False)(x), expected)
        assert torch.allclose(product(modules[0])(x), modules[0](x), atol=1e-5)
        odd = torch.nn.Sequential(modules[1])  # no plain layer
        assert torch.allclose(product(modules[0], odd)(x), expected, atol=1e-5)
