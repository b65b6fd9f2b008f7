"""Chat: the answers are the model's own, and the pool keeps its promises."""

import threading

import pytest

from studio import chat
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
    for text in chat.stream(*arguments, max_new_tokens=12, **options):  # noqa: B007
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
    voice = chat._POOL.voice(("source", name))
    assert voice.lock.locked()
    thread = threading.Thread(target=talk.close)  # a page closes from another thread
    thread.start()
    thread.join()
    assert not voice.lock.locked()
    assert last(name, QUESTION)


def test_the_least_recently_used_leaves_but_never_a_speaker(tiny_family, monkeypatch):
    monkeypatch.setattr(chat, "_POOL", chat.Pool(most=2))
    names = [str(tiny_family[n]) for n in ("ja", "math", "abel")]
    talk = chat.stream(names[0], QUESTION, max_new_tokens=50)
    next(talk)  # the oldest, but speaking
    last(names[1], QUESTION)
    last(names[2], QUESTION)
    loaded = {key[1] for key, voice in chat._POOL._voices.items() if voice.model is not None}
    assert loaded == {names[0], names[2]}
    assert len(list(talk)) > 1
    chat.close()
    assert all(voice.model is None for voice in chat._POOL._voices.values())


def test_memory_evicts(tiny_family, monkeypatch):
    monkeypatch.setattr(chat, "_available", lambda: 0)
    last(str(tiny_family["ja"]), QUESTION)
    last(str(tiny_family["math"]), QUESTION)
    assert [v.model is not None for v in chat._POOL._voices.values()] == [True]


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
