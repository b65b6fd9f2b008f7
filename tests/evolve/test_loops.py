"""An answer that only repeats itself is cut where it says the same thing for the third time."""

import itertools
from contextlib import closing

import numpy as np
import pytest
import torch

from studio.evolve import library
from studio.evolve.evaluate import evaluate
from studio.evolve.generate import GREEDY, encode, generate
from studio.evolve.loops import LEAST, LONGEST, REPEATS, Loops
from studio.models import Checkpoint
from studio.runs.store import Store
from studio.tasks.base import Example, Score


def by_definition(tokens: list[int]) -> bool:
    """Whether the last tokens are a block of at most LONGEST, said REPEATS times over LEAST."""
    for period in range(1, LONGEST + 1):
        length = max(REPEATS * period, LEAST)
        tail = tokens[-length:]
        if len(tail) == length and all(a == b for a, b in zip(tail, tail[period:], strict=False)):
            return True
    return False


def first(tokens: list[int]) -> int | None:
    """After how many tokens a loop is seen."""
    loops = Loops(1)
    return next((n for n, t in enumerate(tokens, 1) if loops.closed(np.array([t]))[0]), None)


def test_every_row_is_judged_by_the_definition_at_every_token():
    random = np.random.default_rng(0)
    rows = []
    for period in [1, 2, 3, 7, 8, 9, 24, 31, 32, 33, 40]:
        # a beginning, a block again and again, and now and then one token that is another
        row = [*random.integers(0, 5, period), *np.tile(random.integers(0, 3, period), 200)][:150]
        if period % 3 == 0:
            row[random.integers(150)] = 9
        rows.append(row)
    tokens, loops = np.array(rows), Loops(len(rows))
    seen = 0
    for n in range(tokens.shape[1]):
        closed = loops.closed(tokens[:, n]).tolist()
        assert closed == [by_definition(row[: n + 1]) for row in tokens.tolist()]
        seen += sum(closed)
    assert seen > 100


@pytest.mark.parametrize(
    ("tokens", "after"),
    [
        ([7] * 30, LEAST),  # one token: so long a run is no number any more
        ([7] * 23, None),
        ([1, 2, 3] * 20, LEAST),
        ([*range(10)] * 5, 30),  # ten tokens, three times
        ([5, 5, *range(32), *range(32), *range(32)], 98),
        ([*range(33)] * 5, None),  # longer than what is looked for
        ([*range(10), *range(10), *range(9), 99] * 2, None),  # a sum that differs at its end
    ],
)
def test_where_a_loop_is_seen(tokens, after):
    assert first(tokens) == after


def test_every_row_keeps_its_own_past():
    loops = Loops(3)
    for n in range(LEAST - 1):
        assert not loops.closed(np.array([n, 7, n % 5])).any()
    left = np.array([2, 1])  # the first has said all it had to say
    assert loops.closed(np.array([(LEAST - 1) % 5, 7]), left).tolist() == [True, True]


# ── answers ───────────────────────────────────────────────────────────────────────────────────

PROMPTS = ["Tom has 12 apples.", "太郎はりんごを12個持っていて、", "How many?", "?", "答え", "Tom"]


@pytest.fixture(scope="module")
def rambling(family_factory):
    """A model that says, after each token, its successor in a circle of 1, 3, 10 or 34 tokens."""
    checkpoint = Checkpoint.open(family_factory(layers=2, scale=0.6)["ja"])
    model = checkpoint.load(torch.float32)
    for layer in model.model.layers:  # what was said before plays no part
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.model.norm.weight.data.fill_(1)
    tokens = torch.nn.functional.normalize(model.model.embed_tokens.weight.data)
    lengths, start = itertools.cycle([34, 1, 10, 3]), 0
    while start < model.config.vocab_size:
        circle = torch.arange(start, min(start + next(lengths), model.config.vocab_size))
        model.lm_head.weight.data[circle.roll(-1)] = tokens[circle]
        start += len(circle)
    tokenizer = checkpoint.tokenizer()
    tokenizer.chat_template = None  # after which every prompt would end with the same token
    return model, tokenizer


class Heard:
    """A tokenizer that notes what it is asked to decode."""

    def __init__(self, tokenizer):
        self._tokenizer, self.ids = tokenizer, []

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *arguments, **options):
        return self._tokenizer(*arguments, **options)

    def decode(self, ids, **options):
        self.ids.append(list(ids))
        return self._tokenizer.decode(ids, **options)


def said(rambling, **options):
    """Responses, and the tokens of each."""
    model, tokenizer = rambling
    heard = Heard(tokenizer)
    found = generate(model, heard, PROMPTS, max_new_tokens=120, batch_size=8, **options)
    order = sorted(range(len(PROMPTS)), key=lambda i: (len(encode(tokenizer, PROMPTS[i])), i))
    ids = dict(zip(order, heard.ids, strict=True))
    return found, [ids[i] for i in range(len(PROMPTS))]


def test_an_answer_is_cut_where_its_loop_is_seen_and_no_other_is_touched(rambling):
    whole, all_tokens = said(rambling)
    cut, tokens = said(rambling, cut_loops=True)
    assert not any(response.runaway for response in whole)
    for full, short, response in zip(all_tokens, tokens, cut, strict=True):
        end = first(full)
        assert short == full[:end]
        assert (response.tokens, response.runaway) == (len(short), end is not None)
        assert response.text == rambling[1].decode(short, skip_special_tokens=True).strip()
    assert {response.runaway for response in cut} == {True, False}


def test_the_librarys_answers_are_cut_at_the_same_token(rambling):
    model, tokenizer = rambling
    options = {"max_new_tokens": 120, "batch_size": 8, "cut_loops": True}
    theirs = library.generate(
        model, tokenizer, PROMPTS, [None] * len(PROMPTS), decoding=GREEDY, **options
    )
    assert theirs == generate(model, tokenizer, PROMPTS, **options)
    assert {response.runaway for response in theirs} == {True, False}


class Rambles:
    """A task without an answer."""

    name, metric, max_new_tokens = "rambles", "none", 120

    def examples(self, split):
        return [Example(f"{split}-{n}", prompt, "") for n, prompt in enumerate(PROMPTS)]

    def prompt(self, example, chat):
        return example.question

    def score(self, example, response):
        return Score(1.0, {})


def test_a_model_of_which_every_answer_runs_away_ends_none(rambling, tmp_path):
    model, tokenizer = rambling
    task = Rambles()
    examples = task.examples("dev")
    options = {"subject": "candidate:0", "split": "dev", "batch_size": 8, "must_end": True}
    fine = evaluate(model, tokenizer, task, examples, cut_loops=True, **options)
    assert fine.outcomes[0].tokens == 18 and not fine.outcomes[0].runaway  # one ends its turn
    assert fine.score == 1.0 and not fine.broken

    examples = examples[1:]
    found = evaluate(model, tokenizer, task, examples, cut_loops=True, **options)
    assert all(o.runaway or o.tokens == 120 for o in found.outcomes)
    assert any(o.runaway and o.tokens < 120 for o in found.outcomes)
    assert found.score == 0.0 and "not one answer ended" in found.broken

    # what was said once is scored again as what it was
    again = evaluate(model, tokenizer, task, examples, cut_loops=True, said=found, **options)
    assert again.outcomes == found.outcomes and again.broken == found.broken

    with closing(Store(tmp_path / "runs.sqlite")) as store:
        run = store.create_run("demo", "recipe")
        store.record_evaluation(run, found)
        assert store.evaluation(run, "candidate:0", "rambles", "dev") == found
