"""Who may do what: a shared workspace, and the guests of a public Studio."""

from types import SimpleNamespace

import pytest

from studio.errors import StudioError
from studio.models import access
from studio.recipe import Recipe
from studio.runs import Store
from studio.visitors import MAX_ANSWERS, Visitor, allowed_models, is_public, owner_of

ANNA, BEN = owner_of("token", "a" * 40), owner_of("token", "b" * 40)
RECIPE = {
    "base": "bonsai-base",
    "sources": ["bonsai-ja", "bonsai-math"],
    "objectives": [{"task": "jmath", "examples": 8}],
    "budget": {"candidates": 8},
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path))
    made = Store(tmp_path / "runs.sqlite")
    yield made
    made.close()


def recipe(**changes) -> Recipe:
    return Recipe.from_dict({**RECIPE, **changes})


def guest(owner: str = ANNA, **more) -> Visitor:
    return Visitor(owner=owner, public=True, host=False, **more)


@pytest.mark.parametrize(
    ("space", "asked", "public"),
    [(None, None, False), ("me/studio", None, True), ("me/studio", "0", False), (None, "1", True)],
)
def test_a_space_is_public_unless_told_otherwise(monkeypatch, space, asked, public):
    for name, value in {"SPACE_ID": space, "STUDIO_PUBLIC": asked}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert is_public() is public


def test_an_owner_is_a_hash_of_what_names_them():
    assert "a" * 40 not in ANNA and ANNA != BEN
    assert owner_of("account", "anna") != owner_of("token", "anna")


def test_visitors_see_their_own_runs_and_the_bundled_ones(store):
    from studio import api

    open_store = api.open_store()
    mine = store.create_run("mine", recipe().to_yaml(), owner=ANNA)
    theirs = store.create_run("theirs", recipe().to_yaml(), owner=BEN)
    nobodys = store.create_run("from before it was public", recipe().to_yaml())
    seen = {run.id for run in guest().runs(store)}
    assert mine in seen and set(api.bundled_runs()) <= seen
    assert theirs not in seen and nobodys not in seen
    for run in (theirs, nobodys, "last"):
        with pytest.raises(StudioError) as refused:
            guest(owner="c" * 32).run(store, run)
        assert "There is no run" in str(refused.value)
    assert {run.id for run in Visitor().runs(store)} >= {mine, theirs, nobodys}
    open_store.close()


def test_a_refusal_does_not_tell_whether_there_is_such_a_run(store):
    theirs = store.create_run("theirs", recipe().to_yaml(), owner=BEN)
    said = []
    for run in (theirs, "0" * 8 if theirs != "0" * 8 else "1" * 8):
        with pytest.raises(StudioError) as refused:
            guest().run(store, run)
        said.append(str(refused.value).replace(run, "RUN"))
    assert said[0] == said[1]


def test_a_run_goes_on_from_none_but_ones_own(store):
    mine = store.create_run("mine", recipe().to_yaml(), owner=ANNA)
    store.set_status(mine, "finished")
    theirs = store.create_run("theirs", recipe().to_yaml(), owner=BEN)
    wanted = recipe(search={"start": mine})
    assert guest().recipe(store, wanted) is wanted
    for start in (theirs, "last"):  # the newest is somebody else's
        with pytest.raises(StudioError, match="There is no run"):
            guest().recipe(store, recipe(search={"start": start}))


def test_the_sample_run_and_links_can_only_be_looked_at(store):
    from studio import api

    api.open_store().close()
    sample = api.bundled_runs()[0]
    shared = store.create_run("shared", recipe().to_yaml(), owner=BEN)
    anna = guest(guest=frozenset([shared]))
    for run in (sample, shared):
        assert anna.run(store, run).id == run
        with pytest.raises(StudioError, match="only be looked at"):
            anna.mine(store, run)
    assert guest(owner=BEN).mine(store, shared).id == shared
    # locally as well: a page opened through the link has no say
    with pytest.raises(StudioError, match="only be looked at"):
        Visitor(guest=frozenset([shared])).mine(store, shared)
    assert Visitor().mine(store, shared).id == shared


def test_nobody_in_particular_owns_nothing(store):
    nobodys = store.create_run("from before it was public", recipe().to_yaml())
    with pytest.raises(StudioError, match="There is no run"):
        guest(owner="").run(store, nobodys)
    for ask in (lambda: guest(owner="").recipe(store, recipe()), lambda: guest("").folder("chats")):
        with pytest.raises(StudioError, match="does not know you"):
            ask()


def test_models_come_from_a_list(store, tmp_path, monkeypatch):
    theirs = store.create_run("theirs", recipe().to_yaml(), owner=BEN)
    for name in ("owner/model", str(tmp_path), "/etc", "../x", f"{theirs}:best", f"{theirs}:0"):
        with pytest.raises(StudioError):
            guest().model(store, name)
    assert guest().model(store, "bonsai-ja") == "bonsai-ja"
    assert guest(owner=BEN).model(store, f"{theirs}:0") == f"{theirs}:0"
    assert Visitor().model(store, str(tmp_path)) == str(tmp_path)


class Hub:
    """The hub's gate: `asked` has who came; a token opens what it is for."""

    def __init__(self):
        self.asked = []

    def auth_check(self, name, token=None):
        from huggingface_hub.errors import GatedRepoError

        self.asked.append((name, token))
        if token != "hf_anna":
            raise GatedRepoError("terms", response=SimpleNamespace(headers={}, request=None))


def test_a_gated_model_of_the_list_is_for_those_who_may(store, monkeypatch):
    monkeypatch.setenv("STUDIO_MODELS", "owner/model, other/one")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_space")
    monkeypatch.setattr(access, "_granted", {})
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert "other/one" in allowed_models()
    assert guest(token="hf_anna").model(store, "owner/model") == "owner/model"
    guest(token="hf_anna").model(store, "owner/model")  # the hub is not asked every time
    assert hub.asked == [("owner/model", "hf_anna")]
    for other in (guest(token="hf_ben"), guest(owner=BEN)):
        with pytest.raises(StudioError, match="gated"):
            other.model(store, "owner/model")
    # never with the Space's own token
    assert [token for _, token in hub.asked] == ["hf_anna", "hf_ben", False]
    assert Visitor(public=True, owner=ANNA, host=True).hub_token is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sources": ["bonsai-ja", "owner/secret"]}, "not offered"),
        ({"base": "/etc"}, "not offered"),
        ({"vocabulary": "owner/other", "sources": ["bonsai-ja", "owner/other"]}, "not offered"),
        ({"space": {"type": "data_flow", "sources": ["/etc"]}, "sources": ["/etc"]}, "not offered"),
        (
            {
                "sources": [
                    "bonsai-ja",
                    "bonsai-math",
                    "bonsai-abel",
                    "bonsai-base",
                    "bonsai-culture",
                ]
            },
            "most",
        ),
        ({"objectives": [{"task": "lm_eval", "options": {"task": "x"}}]}, "not offered"),
        ({"objectives": [{"task": "csv", "options": {"path": "/etc/passwd"}}]}, "you uploaded"),
        ({"objectives": [{"task": "jmath"}], "report": [{"task": "mgsm"}]}, "not offered"),
        ({"budget": {"candidates": MAX_ANSWERS}}, "answers"),
        ({"budget": {"candidates": 2000}, "decoding": {"beams": 32}}, "answers"),
    ],
)
def test_what_a_public_run_may_ask_for(store, changes, why):
    asked = recipe(**changes)
    with pytest.raises(StudioError, match=why):
        guest().recipe(store, asked)
    assert Visitor().recipe(store, asked) is asked  # locally nobody minds


def test_a_file_of_runs_brings_no_other_models(store):
    guest().brings(store, recipe(sources=["bonsai-ja", "0a1b2c3d:4"]))
    for names in (["bonsai-ja", "owner/secret"], ["/etc", "bonsai-ja"]):
        with pytest.raises(StudioError, match="not offered"):
            guest().brings(store, recipe(sources=names))


def test_the_bundled_recipes_fit_the_budget(store):
    from studio.workspace import ASSETS

    recipes = ASSETS.parent / "recipes"
    for name in ("jmath", "quick", "vlm"):
        guest().recipe(store, Recipe.load(recipes / f"{name}.yaml"))


def test_one_run_at_a_time(store):
    first = store.create_run("first", recipe().to_yaml(), owner=ANNA)
    with pytest.raises(StudioError, match="still queued"):
        guest().recipe(store, recipe())
    guest(owner=BEN).recipe(store, recipe())
    store.set_status(first, "finished")
    guest().recipe(store, recipe())


def test_uploads_are_ones_own(store, tmp_path):
    anna, ben = guest(), guest(owner=BEN)
    mine = anna.folder("uploads") / "questions.csv"
    mine.write_text("question,answer\n1+1,2\n")
    assert anna.upload(str(mine)) == mine
    link = ben.folder("uploads") / "link.csv"
    link.symlink_to(mine)
    for path in (mine, link, anna.folder("uploads") / ".." / ANNA / "questions.csv"):
        with pytest.raises(StudioError, match="you uploaded"):
            ben.upload(str(path))
    task = {"task": "csv", "options": {"path": str(mine)}}
    anna.recipe(store, recipe(objectives=[task]))
