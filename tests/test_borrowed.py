"""A chat turn on ZeroGPU: the same words, from a worker lent for the turn, or a sentence."""

import pytest

from studio import borrowed, chat, zero_gpu
from studio.errors import StudioError
from tests.evolve.lender import Lender
from tests.test_chat import QUESTION, last, run  # noqa: F401


@pytest.fixture
def lender(monkeypatch):
    """A Space with ZeroGPU, whose workers are forked processes without a database."""
    lender = Lender(borrowed.answer, borrowed.lease)
    monkeypatch.setattr(borrowed, "answer", lender)
    monkeypatch.setattr(zero_gpu, "available", lambda: True)
    return lender


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(chat, "_POOL", chat.Pool())
    monkeypatch.setattr(borrowed, "_kept", None)


def test_a_lent_worker_says_the_same(run, tiny_family, request):  # noqa: F811
    store, name = run
    asked = [(str(tiny_family["ja"]), QUESTION), (f"{name}:best", QUESTION)]
    here = [last(*pair, store=store) for pair in asked]
    lender = request.getfixturevalue("lender")
    there = [last(*pair, store=store) for pair in asked]
    assert there == here and all(here) and len(lender.lent) == 2
    assert lender.calls[0] == borrowed.OPENING + 12 * borrowed.PER_TOKEN
    assert lender.lent[1].name == f"{name}:1"  # the best was named before it was sent


def test_longer_answers_ask_for_more_and_never_too_much():
    def seconds(tokens: int) -> float:
        return borrowed.lease(borrowed.Order("", None, [], chat.Settings(max_new_tokens=tokens)))

    assert seconds(16) < seconds(256) < seconds(4096) == borrowed.LONGEST


def test_a_refusal_and_a_fault_are_sentences(lender, tiny_family, run):  # noqa: F811
    store, name = run
    model = str(tiny_family["ja"])
    lender.refuses = lambda call: True
    with pytest.raises(StudioError, match="ZeroGPU lends no GPU now .You have exceeded"):
        last(model, QUESTION)
    lender.refuses = lambda call: False
    with pytest.raises(StudioError, match="shorten"):
        last(model, [{"role": "user", "content": "apples " * 600}])
    with pytest.raises(StudioError, match="no candidate 7"):
        last(f"{name}:7", QUESTION, store=store)
    assert len(lender.lent) == 1  # what can be known before needs no GPU


def test_a_closed_turn_gives_the_gpu_back(lender, tiny_family):
    import multiprocessing

    going = chat.stream(str(tiny_family["ja"]), QUESTION, max_new_tokens=400)
    next(going)
    assert multiprocessing.active_children()
    going.close()
    assert not multiprocessing.active_children()
