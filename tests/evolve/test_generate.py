"""Batched greedy decoding says what transformers' own `generate` says, token for token."""

import math

import pytest
import torch

from studio.errors import StudioError
from studio.evolve.evaluate import evaluate, prompts_for
from studio.evolve.generate import WAVE, BrokenModel, chat_prompt, encode, generate, stop_ids
from studio.models import Checkpoint
from studio.tasks import load_task
from studio.tasks.base import Example, Score

QUESTIONS = [
    "Tom has 12 apples.",
    "太郎はりんごを12個持っていて、さらに30個買いました。全部で何個ですか。",
    "How many?",
    "?",
    "He buys 30 more, and then 30 more again. How many apples does he have now in all?",
    "Tom has 12 apples.",  # the same question twice gets the same answer twice
    "答え",
]


class Recording:
    """A tokenizer that notes the token ids it is asked to decode."""

    def __init__(self, tokenizer):
        self._tokenizer, self.decoded = tokenizer, []

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments, **options):
        return self._tokenizer(*arguments, **options)

    def decode(self, ids, **options):
        self.decoded.append(list(ids))
        return self._tokenizer.decode(ids, **options)


@pytest.fixture(scope="module", params=["untied", "tied", "llama"])
def speaker(request, family_factory):
    options = {
        "untied": {"layers": 2, "scale": 0.6},
        "tied": {"layers": 2, "tied": True},
        "llama": {"layers": 2, "architecture": "llama"},
    }[request.param]
    checkpoint = Checkpoint.open(family_factory(**options)["ja"])
    return checkpoint.load(torch.float32), checkpoint.tokenizer()


def ours(model, tokenizer, prompts, **options):
    recording = Recording(tokenizer)
    responses = generate(model, recording, prompts, **options)
    # what was said is read batch by batch, the shortest prompts first
    order = sorted(range(len(prompts)), key=lambda i: (len(encode(tokenizer, prompts[i])), i))
    decoded = dict(zip(order, recording.decoded, strict=True))
    return responses, [decoded[i] for i in range(len(prompts))]


def theirs(model, tokenizer, prompt, max_new_tokens) -> list[int]:
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    answer = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=0,
    )
    return answer[0, ids.shape[1] :].tolist()


def chat(tokenizer, questions):
    return [chat_prompt(tokenizer, [{"role": "user", "content": q}]) for q in questions]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batched_answers_are_those_of_transformers(speaker, batch_size):
    model, tokenizer = speaker
    prompts = chat(tokenizer, QUESTIONS)
    responses, tokens = ours(model, tokenizer, prompts, max_new_tokens=24, batch_size=batch_size)
    assert len(responses) == len(prompts)
    for prompt, response, ids in zip(prompts, responses, tokens, strict=True):
        expected = theirs(model, tokenizer, prompt, 24)
        assert ids == expected
        assert response.tokens == len(expected)
        assert response.text == tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert responses[0] == responses[5]


@pytest.mark.parametrize("name", ["bonsai-ja", "bonsai-math"])
def test_bundled_models_answer_as_under_transformers(name):
    checkpoint = Checkpoint.open(name)
    model, tokenizer = checkpoint.load(torch.float32), checkpoint.tokenizer()
    task = load_task("jmath")
    prompts = prompts_for(tokenizer, task, task.examples("dev")[:12])
    responses, tokens = ours(model, tokenizer, prompts, max_new_tokens=96, batch_size=5)
    for prompt, ids in zip(prompts, tokens, strict=True):
        assert ids == theirs(model, tokenizer, prompt, 96)
    assert all(r.text and "<" not in r.text[-8:] for r in responses)  # no special tokens shown
    assert any(r.tokens < 96 for r in responses)  # a trained model ends its turn


def test_an_answer_ends_with_its_turn(speaker):
    """Every token that is ever said, made the end of turn: each answer stops at its first one."""
    model, tokenizer = speaker
    prompts = chat(tokenizer, QUESTIONS)
    _, free = ours(model, tokenizer, prompts, max_new_tokens=16, batch_size=4)
    before = model.generation_config.eos_token_id
    stop = free[0][2]
    try:
        model.generation_config.eos_token_id = [2, stop]
        responses, tokens = ours(model, tokenizer, prompts, max_new_tokens=16, batch_size=4)
    finally:
        model.generation_config.eos_token_id = before
    for whole, cut in zip(free, tokens, strict=True):
        assert cut == (whole[: whole.index(stop) + 1] if stop in whole else whole)
    assert responses[0].tokens == len(tokens[0]) <= 3


def test_the_token_limit_holds(speaker):
    model, tokenizer = speaker
    prompts = chat(tokenizer, QUESTIONS)
    _, long = ours(model, tokenizer, prompts, max_new_tokens=16, batch_size=64)
    for limit in (1, 5):
        _, short = ours(model, tokenizer, prompts, max_new_tokens=limit, batch_size=64)
        assert short == [ids[:limit] for ids in long]


def test_without_a_chat_template_the_whole_prompt_begins_a_sequence(speaker):
    model, tokenizer = speaker
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        plain, tokens = ours(model, tokenizer, ["Tom has"], max_new_tokens=8, batch_size=1)
        assert chat_prompt(tokenizer, [{"role": "user", "content": "Tom"}]) == "Tom\n"
    finally:
        tokenizer.chat_template = template
    assert tokens[0] == theirs(model, tokenizer, "<s>Tom has", 8)


def test_a_model_without_any_end_of_turn_runs_to_the_limit(speaker):
    model, tokenizer = speaker
    before = model.generation_config.eos_token_id, tokenizer.eos_token
    try:
        model.generation_config.eos_token_id, tokenizer.eos_token = None, None
        assert stop_ids(model, tokenizer) == []
        (response,) = generate(model, tokenizer, ["Tom"], max_new_tokens=5, batch_size=2)
    finally:
        model.generation_config.eos_token_id, tokenizer.eos_token = before
    assert response.tokens == 5


# ── evaluation ────────────────────────────────────────────────────────────────────────────────


class Length:
    """A task that scores graded, 1 / (1 + characters), and says how it came to that."""

    name, metric, max_new_tokens = "length", "brevity", 7

    def examples(self, split):
        return [Example(f"{split}-{n}", q, "") for n, q in enumerate(QUESTIONS)]

    def prompt(self, example, chat):
        return example.question

    def score(self, example, response):
        return Score(1 / (1 + len(response)), {"characters": len(response)})


def measure(model, tokenizer, **options):
    task = Length()
    options = {"subject": "candidate:0", "split": "dev", "batch_size": 4} | options
    return evaluate(model, tokenizer, task, task.examples("dev"), **options)


def test_an_evaluation_holds_every_answer(speaker):
    model, tokenizer = speaker
    found = measure(model, tokenizer)
    expected = generate(
        model, tokenizer, chat(tokenizer, QUESTIONS), max_new_tokens=7, batch_size=64
    )
    assert [o.response for o in found.outcomes] == [r.text for r in expected]
    assert [o.example for o in found.outcomes] == [f"dev-{n}" for n in range(len(QUESTIONS))]
    assert all(o.score == 1 / (1 + o.details["characters"]) for o in found.outcomes)
    assert found.score == pytest.approx(sum(o.score for o in found.outcomes) / len(QUESTIONS))
    assert found.tokens == sum(r.tokens for r in expected) and found.seconds > 0
    assert (found.task, found.split, found.broken) == ("length", "dev", "")


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_broken_model_is_a_recorded_zero(family_factory, poison):
    checkpoint = Checkpoint.open(family_factory(layers=2, scale=0.6)["ja"])
    model, tokenizer = checkpoint.load(torch.float32), checkpoint.tokenizer()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = poison
    with pytest.raises(BrokenModel):
        generate(model, tokenizer, ["Tom"], max_new_tokens=4, batch_size=1)
    found = measure(model, tokenizer)
    assert found.score == 0.0 and "not finite" in found.broken
    assert len(found.outcomes) == len(QUESTIONS)
    assert all(o.response == "" and o.tokens == 0 for o in found.outcomes)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
]


def limited(model, monkeypatch, most: int, error: Exception = OUT_OF_MEMORY[0]):
    """Let the model's head run out of memory on more than `most` sequences."""
    forward = model.lm_head.forward

    def wrapped(hidden):
        if len(hidden) > most:
            raise error
        return forward(hidden)

    monkeypatch.setitem(model._modules, "lm_head", Wrapped(wrapped))


class Wrapped(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "mps", "cpu"])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(speaker, monkeypatch, error):
    model, tokenizer = speaker
    whole = measure(model, tokenizer, batch_size=7)
    limited(model, monkeypatch, 2, error)
    halvings = []
    found = measure(model, tokenizer, batch_size=7, on_halving=halvings.append)
    assert halvings == [3, 1]
    assert found.outcomes == whole.outcomes


def test_another_error_is_no_lack_of_memory(speaker, monkeypatch):
    limited(speaker[0], monkeypatch, 2, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        measure(*speaker, batch_size=7)


def test_a_model_that_fits_no_memory_is_a_sentence(speaker, monkeypatch):
    model, tokenizer = speaker
    limited(model, monkeypatch, 0)
    with pytest.raises(StudioError, match="does not fit the memory of cpu.*precision"):
        measure(model, tokenizer)


def test_what_is_known_is_not_decoded_again(speaker):
    """An interruption loses no finished batch, and none is laid out anew because of it."""
    model, tokenizer = speaker
    prompts = chat(tokenizer, [f"{n} {question}" for n in range(3) for question in QUESTIONS])
    options = {"max_new_tokens": 8, "batch_size": 1}
    whole = generate(model, tokenizer, prompts, **options)
    known, steps = {}, []

    def third_wave():
        steps.append(len(known))
        if len(known) == 2 * WAVE:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        generate(model, tokenizer, prompts, on_token=third_wave, known=known, **options)
    assert len(known) == 2 * WAVE and all(whole[i] == response for i, response in known.items())
    widths = []
    options |= {"known": known, "on_token": lambda: widths.append(len(known))}
    assert generate(model, tokenizer, prompts, **options) == whole
    assert min(widths) == 2 * WAVE and len(known) == len(prompts)
