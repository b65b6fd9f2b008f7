"""Chat: the answers are the model's own, and the pool keeps its promises."""

import threading
import time

import pytest

from studio import chat, speakers, voices
from studio.errors import StudioError
from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs.records import Evaluation
from studio.runs.store import Store

QUESTION = [{"role": "user", "content": "Tom has 12 apples. How many?"}]


@pytest.fixture(autouse=True)
def empty_pool(monkeypatch):
    monkeypatch.setattr(chat, "_POOL", chat.Pool())


@pytest.fixture
def run(tiny_family, tmp_path):
    """A store with one run of two candidates, of which the second is the better."""
    recipe = Recipe(
        base=str(tiny_family["base"]),
        sources=[str(tiny_family["ja"]), str(tiny_family["math"])],
        objectives=[{"task": "jmath"}],
        space={"layer_granularity": "all"},
    )
    store = Store(tmp_path / "runs.sqlite")
    run = store.create_run("tiny", recipe.to_yaml())
    space = first_space(recipe)
    store.record_ask(run, "cma", 0, [(0, space.initial), (1, space.upper)])
    for number, score in enumerate((0.25, 0.5)):
        store.record_evaluation(
            run, Evaluation(f"candidate:{number}", "jmath", "dev", score, 9, 1.0, "", ())
        )
    yield store, run
    store.close()


def last(*arguments, **options) -> str:
    text = ""
    options = {"max_new_tokens": 12} | options
    for text in chat.stream(*arguments, **options):  # noqa: B007
        pass
    return text


def greedy(model, tokenizer) -> str:
    from studio.evolve.generate import chat_prompt, generate

    prompt = chat_prompt(tokenizer, QUESTION)
    return generate(model, tokenizer, [prompt], max_new_tokens=12, batch_size=1)[0].text


def test_a_source_says_what_evaluation_would_record(tiny_family):
    from studio.models import Checkpoint

    source = Checkpoint.open(tiny_family["ja"])
    pieces = list(chat.stream(str(tiny_family["ja"]), QUESTION, max_new_tokens=12))
    assert len(pieces) > 1
    assert all(len(a) <= len(b) for a, b in zip(pieces, pieces[1:], strict=False))
    assert pieces[-1].rstrip("\ufffd") == greedy(source.load(), source.tokenizer()).rstrip("\ufffd")


def test_a_candidate_speaks_with_its_own_weights(run):
    from studio.merge.live import LiveModel

    store, name = run
    live = LiveModel(first_space(Recipe.from_yaml(store.run(name).recipe)), device="cpu")
    live.apply(store.candidate(name, 1).genome)
    expected = greedy(live.model, live.tokenizer)
    assert last(f"{name}:1", QUESTION, store=store) == expected.rstrip("\ufffd")
    assert last(f"{name}:best", QUESTION, store=store) == expected.rstrip("\ufffd")
    assert len(chat._POOL._voices) == 1  # best *is* candidate 1: one live model, not two
    live.apply(store.candidate(name, 0).genome)
    assert last(f"{name}:0", QUESTION, store=store) == greedy(live.model, live.tokenizer).rstrip(
        "\ufffd"
    )


def test_closing_stops_and_frees_the_model(tiny_family):
    name = str(tiny_family["math"])
    talk = chat.stream(name, QUESTION, max_new_tokens=400)
    next(talk)
    assert len(chat._POOL._line) == 1
    thread = threading.Thread(target=talk.close)  # a page closes from another thread
    thread.start()
    thread.join()
    assert not chat._POOL._line
    assert last(name, QUESTION)


def test_turns_are_taken_in_order_and_the_place_in_line_is_told(tiny_family, monkeypatch):
    monkeypatch.setattr(chat, "PATIENCE", 0.0)
    name, other = str(tiny_family["math"]), str(tiny_family["ja"])
    first, second, third = (chat.moments(name, QUESTION) for _ in range(3))
    assert isinstance(next(first), str)
    assert [next(second), next(third)] == [chat.Waiting(1), chat.Waiting(2)]
    fourth = chat.moments(other, QUESTION)  # another model need not wait for this one
    assert isinstance(next(fourth), str)
    fifth = chat.moments(str(tiny_family["abel"]), QUESTION)  # but there are no more lanes
    assert next(fifth) == chat.Waiting(4)
    second.close()  # whoever leaves makes the others move up
    assert [next(third), next(fifth)] == [chat.Waiting(1), chat.Waiting(3)]
    first.close()
    assert isinstance(next(third), str) and next(fifth) == chat.Waiting(2)
    fourth.close()
    assert isinstance(next(fifth), str)


def test_many_at_once_hear_their_own_words(tiny_family):
    names = [str(tiny_family[n]) for n in ("ja", "math", "abel")]
    questions = [[{"role": "user", "content": f"Tom has {n} apples."}] for n in range(4)]
    pairs = [(name, question) for name in names for question in questions]
    alone = [last(*pair) for pair in pairs]
    heard: dict[int, str] = {}

    def ask(index: int) -> None:
        heard[index] = last(*pairs[index])

    threads = [threading.Thread(target=ask, args=[n]) for n in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [heard[n] for n in range(len(pairs))] == alone
    assert len(set(alone)) > 3


def test_a_model_is_loaded_before_it_is_asked(tiny_family, monkeypatch):
    name = str(tiny_family["ja"])
    chat.warm(name)
    monkeypatch.setattr(speakers, "source", None)  # it need not be loaded again
    assert last(name, QUESTION)


def test_where_a_run_has_the_memory_it_is_said(run, tiny_family, monkeypatch):
    from studio.runs.lock import hold

    store, name = run
    monkeypatch.setattr(voices, "available", lambda: 0)
    monkeypatch.setattr(chat, "PATIENCE", 0.0)
    store.set_status(name, "running")
    lock = hold(store, name)
    talk = chat.moments(str(tiny_family["ja"]), QUESTION, store=store)
    assert [next(talk), next(talk)] == [chat.Waiting(0, "tiny")] * 2
    lock.release()
    assert isinstance(next(talk), str)


def test_who_is_silent_for_long_leaves(tiny_family, monkeypatch):
    name = str(tiny_family["ja"])
    last(name, QUESTION)
    chat._POOL.clear(idle=60)
    assert len(chat._POOL.loaded()) == 1
    now = time.monotonic()
    monkeypatch.setattr(voices.time, "monotonic", lambda: now + 61)
    chat._POOL.clear(idle=60)
    assert not chat._POOL.loaded()


# ── how tokens are chosen ─────────────────────────────────────────────────────────────────────


def test_draws_are_the_seeds(tiny_family):
    name = str(tiny_family["ja"])
    drawn = [last(name, QUESTION, temperature=1.5, seed=seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert last(name, QUESTION, temperature=1.5, top_p=1e-6) == last(name, QUESTION)


def test_only_the_likeliest_are_drawn():
    import torch

    from studio.speech import Settings, _choose

    logits = torch.tensor([0.1, 0.5, 0.3, 0.1]).log()
    draws = torch.Generator().manual_seed(0)

    def chosen(**settings) -> set[int]:
        return {_choose(logits, [1], Settings(**settings), draws) for _ in range(200)}

    assert chosen(temperature=1.0) == {0, 1, 2, 3}
    assert chosen(temperature=1.0, top_p=0.75) == {1, 2}
    assert chosen(temperature=1.0, top_p=0.5) == {1}
    assert chosen(temperature=0.1) == {1, 2}
    assert chosen() == {1}
    assert chosen(repetition_penalty=2.0) == {2}  # log 0.5 · 2 < log 0.3


def test_the_least_recently_used_leaves_but_never_a_speaker(tiny_family, monkeypatch):
    monkeypatch.setattr(chat, "_POOL", chat.Pool(most=2))
    names = [str(tiny_family[n]) for n in ("ja", "math", "abel")]
    talk = chat.stream(names[0], QUESTION, max_new_tokens=50)
    next(talk)  # the oldest, but speaking
    last(names[1], QUESTION)
    last(names[2], QUESTION)
    assert {key[1] for key, _ in chat._POOL.loaded()} == {names[0], names[2]}
    assert len(list(talk)) > 1
    chat.close()
    assert not chat._POOL.loaded()


def test_memory_evicts(tiny_family, monkeypatch):
    monkeypatch.setattr(voices, "available", lambda: 0)
    last(str(tiny_family["ja"]), QUESTION)
    last(str(tiny_family["math"]), QUESTION)
    assert len(chat._POOL.loaded()) == 1


def test_old_turns_are_forgotten_when_the_window_is_full(tiny_family):
    past = [
        {"role": "user", "content": "How many apples? " * 100},
        {"role": "assistant", "content": "The answer is 42. " * 100},
    ] * 3
    name = str(tiny_family["ja"])
    assert last(name, [*past, *QUESTION]) == last(name, QUESTION)


@pytest.mark.parametrize(
    ("model", "messages", "options", "says"),
    [
        ("no-such-model", QUESTION, {}, "no-such-model"),
        ("00000000:best", QUESTION, {}, "no run"),
        ("JA", [], {}, "no question"),
        ("JA", [{"role": "user", "content": "  "}], {}, "no question"),
        ("JA", [{"role": "user", "content": "apples " * 600}], {}, "shorten"),
        ("JA", [{"role": "pirate", "content": "hi"}], {}, "role"),
        ("JA", QUESTION, {"temperature": float("nan")}, "temperature"),
        ("JA", QUESTION, {"max_new_tokens": 0}, "tokens"),
        ("JA", QUESTION, {"top_p": 0.0}, "Top-p"),
        ("JA", QUESTION, {"repetition_penalty": 3.0}, "penalty"),
        ("JA", QUESTION, {"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_a_sentence(tiny_family, tmp_path, model, messages, options, says):
    model = str(tiny_family["ja"]) if model == "JA" else model
    with pytest.raises(StudioError, match=says):
        list(chat.stream(model, messages, Store(tmp_path / "runs.sqlite"), **options))


def test_unknown_candidate(run):
    store, name = run
    with pytest.raises(StudioError, match="no candidate 7"):
        list(chat.stream(f"{name}:7", QUESTION, store))


def test_broken_candidate(tiny_family, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_family["ja"], tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudioError, match="broken"):
        list(chat.stream(str(folder), QUESTION))
