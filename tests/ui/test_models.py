"""The Models tab's handlers: cards, what is chosen, what fits together."""

import shutil
from html.parser import HTMLParser

import gradio as gr
import pytest

from studio.errors import StudioError
from studio.models import search
from studio.models.search import Found
from studio.models.sources import bundled
from studio.recipe import Recipe
from studio.ui import cards, models, shared
from studio.ui.strings import LANGUAGES
from studio.ui.wiring import Visit
from studio.visitors import Visitor, owner_of

HACK = "<img src=x onerror=alert(1)>'\""
NOTHING = {"base": "", "sources": []}
HERE = Visit(token="a" * 40)
GUEST = Visit(Visitor(owner_of("token", "g" * 40), public=True, host=False), token="g" * 40)


@pytest.fixture(autouse=True)
def store(own_workspace):
    shared.store.cache_clear()
    yield shared.store()
    shared.store().close()
    shared.store.cache_clear()


class Buttons(HTMLParser):
    """The buttons of some HTML, by role and name; whether each is pressed."""

    def __init__(self, html: str):
        super().__init__()
        self.pressed: dict[tuple[str, str], bool] = {}
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        found = dict(attributes)
        if tag == "button":
            assert found["type"] == "button" and found["aria-label"]
            where = found["data-role"], found["data-name"]
            self.pressed[where] = found.get("aria-pressed") == "true"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_first_visit_finds_the_bundled_models(language):
    chosen = {"base": "bonsai-base", "sources": ["bonsai-ja"]}
    shelf, selection = models.enter(Visit(language=language), chosen)
    buttons = Buttons(shelf).pressed
    assert {name for _, name in buttons} == set(bundled())
    pressed = {where for where, on in buttons.items() if on}
    assert (
        pressed
        == {("base", "bonsai-base"), ("source", "bonsai-ja")}
        == set(Buttons(selection).pressed)
    )


def test_a_search_follows_every_letter():
    everything = Buttons(models.find(HERE, "", NOTHING)).pressed
    some = Buttons(models.find(HERE, "llava", NOTHING)).pressed
    assert {name for _, name in some} == {"bonsai-llava"} and len(everything) > len(some)
    nothing = models.find(HERE, HACK, NOTHING)
    assert "No model on this machine" in nothing and "<img" not in nothing


def test_what_lies_in_the_workspace_is_on_the_shelf(own_workspace, tiny_family, tmp_path):
    shutil.copytree(tiny_family["ja"], own_workspace / "models" / "mine")
    shutil.copytree(tiny_family["ja"], HERE.who.folder("exports") / "merged")
    shelf = models.find(HERE, "", NOTHING)
    assert "in the workspace" in shelf and "exported" in shelf and ">mine<" in shelf
    public = models.find(GUEST, "", NOTHING)
    assert "mine" not in public and "merged" not in public
    # a folder anywhere can be named, but not by a public's visitors
    assert str(tiny_family["math"]) in models.find(HERE, str(tiny_family["math"]), NOTHING)
    assert "No model" in models.find(GUEST, str(tiny_family["math"]), NOTHING)


@pytest.fixture
def hub(monkeypatch):
    asked = []

    def answer(text):
        asked.append(text)
        return [Found("owner/model", search.HUB, licence="mit", gated=True, downloads=1234)]

    monkeypatch.setattr(search, "on_hub", answer)
    return asked


def test_the_hub_is_asked_from_two_letters_on(hub):
    assert "two letters" in models.find_on_hub(HERE, "x", NOTHING) and not hub
    shown = models.find_on_hub(HERE, "model", NOTHING)
    assert hub == ["model"] and "owner/model" in shown and "gated" in shown and "1,234" in shown
    # a whole id is there even where the search does not find it
    both = Buttons(models.find_on_hub(HERE, "other/one", NOTHING)).pressed
    assert {name for _, name in both} == {"other/one", "owner/model"}


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch):
    def offline(text):
        raise StudioError("The hub cannot be searched now; bundled models and those on this "
                          "machine are listed, and any hub id can be typed in.")  # fmt: skip

    monkeypatch.setattr(search, "on_hub", offline)
    shown = models.find_on_hub(HERE, "llama", NOTHING)
    assert shown.count("<p") == 1 and "cannot be searched now" in shown
    assert ("source", "a/b") in Buttons(models.find_on_hub(HERE, "a/b", NOTHING)).pressed


def test_in_public_only_what_is_offered(hub, monkeypatch):
    monkeypatch.setenv("STUDIO_MODELS", "owner/offered, owner/other")
    monkeypatch.setattr(search, "of_names", lambda names: [Found(n, search.HUB) for n in names])
    shown = Buttons(models.find_on_hub(GUEST, "", NOTHING)).pressed
    assert {name for _, name in shown} == {"owner/offered", "owner/other"} and not hub
    assert "owner/other" not in models.find_on_hub(GUEST, "offered", NOTHING)
    assert Buttons(models.find_on_hub(GUEST, "evil/model", NOTHING)).pressed == {}


def test_cards_are_escaped():
    found = [Found(HACK, search.HUB, architecture=HACK, licence=HACK, base=HACK, kind="adapter",
                   fault=HACK)]  # fmt: skip
    assert "img" not in Buttons(cards.shelf(found, "", [], "en")).tags
    assert "img" not in Buttons(cards.chosen(HACK, [HACK], "en")).tags


def picked(event: dict, before: dict) -> dict:
    return models.pick(Visit(event=event), before)[0]


def test_choosing_and_taking_away():
    now = picked({"role": "base", "name": "a"}, NOTHING)
    now = picked({"role": "source", "name": "b"}, now)
    now = picked({"role": "source", "name": "c"}, now)
    assert now == {"base": "a", "sources": ["b", "c"]}
    now = picked({"role": "base", "name": "b"}, picked({"role": "source", "name": "b"}, now))
    assert now == {"base": "b", "sources": ["c"]}
    assert picked({"role": "base", "name": "b"}, now) == {"base": "", "sources": ["c"]}
    for strange in ({}, {"role": "owner", "name": "a"}, {"role": "base", "name": 3}):
        assert models.pick(Visit(event=strange), now)[0] == gr.skip()
    assert "base" in cards.chosen("", ["b"], "en")  # what having none means


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_fits_together_and_why_not(family_factory, tiny_family, language):
    visit = Visit(language=language)
    base, deeper = str(tiny_family["base"]), str(family_factory(layers=4)["ja"])
    sources = [str(tiny_family["ja"]), deeper, "no-such-<b>model"]
    shown = models.look(visit, {"base": base, "sources": sources})
    assert shown.count("<section") == 4 and shown.count("✓") == 1 and shown.count("✗") == 1
    assert "no-such-&lt;b&gt;model" in shown and "<b>model" not in shown
    good = models.look(visit, {"base": base, "sources": sources[:1]})
    assert all(f'<th scope="row">{p}</th>' in good for p in ("fp32", "bf16", "int8", "nf4"))
    assert 'class="es-merged"' in good and "apache-2.0" in good
    assert models.look(visit, NOTHING) == ""
    paths = models.look(visit, {"base": "", "sources": sources[:1]})
    assert paths.count("<section") == 1 and "nf4" in paths


def test_nobody_looks_into_what_is_not_offered(tiny_family):
    with pytest.raises(StudioError, match="not offered"):
        models.look(GUEST, {"base": "", "sources": [str(tiny_family["ja"])]})
    recipe = Recipe.from_dict({"sources": ["owner/x"], "space": {"type": "data_flow"},
                               "objectives": [{"task": "jmath"}]})  # fmt: skip
    with pytest.raises(StudioError, match="not offered"):
        models.of_recipe(GUEST, recipe)
