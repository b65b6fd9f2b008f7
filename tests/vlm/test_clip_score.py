"""CLIPScore as an objective, and the gallery's search, over a tiny random encoder."""

import numpy as np
import pytest

from studio.errors import StudioError
from studio.recipe import Recipe
from studio.tasks import Example, Task, load_task
from tests.vlm.encoders import make_encoder
from tests.vlm.test_pictures import encoded, noise
from vlm import clip_score
from vlm.encoder import Encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(make_encoder(tmp_path_factory.mktemp("clip")))


class Compass:
    """An encoder whose vectors are known: pictures and texts are angles in degrees."""

    @staticmethod
    def pictures(items):
        angles = np.radians([float(item.decode()) for item in items])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def texts(self, items):
        return self.pictures([item.encode() for item in items])


@pytest.fixture
def compass(monkeypatch):
    monkeypatch.setattr(Encoder, "open", classmethod(lambda cls, name: Compass()))


def example(angle: float) -> Example:
    return Example("1", "これは何ですか。", "鳥居", picture=str(angle).encode())


@pytest.mark.parametrize(
    ("angle", "score"), [(0, 1.0), (60, 1.0), (75, 2.5 * 0.258819), (90, 0.0), (180, 0.0)]
)
def test_a_score_is_the_stretched_cosine_within_0_and_1(compass, angle, score):
    found = load_task("clip_score", model="any").score(example(30), str(30 + angle))
    assert found.value == pytest.approx(score, abs=3e-6)
    assert found.details == {"cosine": pytest.approx(np.cos(np.radians(angle)), abs=1e-6)}
    assert 0 <= found.value <= 1


def test_the_bundled_encoders_cosines_are_not_stretched(compass):
    score = load_task("clip_score").score(example(0), "60")
    assert score.value == pytest.approx(0.5, abs=1e-6)
    score = load_task("clip_score", weight=1.5).score(example(0), "60")
    assert score.value == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_fits_nothing(compass, answer):
    assert load_task("clip_score").score(example(0), answer).value == 0


def test_answers_are_compared_with_their_pictures(folder):
    task = load_task("clip_score", model=folder)
    assert isinstance(task, Task)
    shown = task.examples("dev")[0]
    scores = [task.score(shown, text) for text in ("鳥居", "寿司と富士山")]
    encoder = Encoder.open(folder)
    cosines = encoder.texts(["鳥居", "寿司と富士山"]) @ encoder.pictures([shown.picture])[0]
    assert [score.details["cosine"] for score in scores] == pytest.approx(list(cosines), abs=1e-5)
    assert cosines[0] != pytest.approx(cosines[1], abs=1e-3)


def test_questions_and_prompts_are_another_tasks(folder, tmp_path):
    task, asked = load_task("clip_score", model=folder), load_task("ja_culture_vqa")
    assert (task.name, task.metric, task.asks) == ("clip_score", "clip_score", "ja_culture_vqa")
    assert task.max_new_tokens == asked.max_new_tokens
    assert task.examples("dev") == asked.examples("dev") == task.task.examples("dev")
    for chat in (True, False):
        assert task.prompt(task.examples("dev")[0], chat) == asked.prompt(
            asked.examples("dev")[0], chat
        )
    (tmp_path / "a.png").write_bytes(encoded(noise()))
    row = '{"image": "a.png", "question": "何？", "answer": "鳥居", "split": "dev"}'
    (tmp_path / "qa.jsonl").write_text(row, encoding="utf-8")
    options = {"path": str(tmp_path), "max_new_tokens": 9}
    mine = load_task("clip_score", of="vqa", model=folder, options=options)
    assert (mine.asks, mine.options, mine.max_new_tokens) == ("vqa", options, 9)
    assert [e.answer for e in mine.examples("dev")] == ["鳥居"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "clip_score"}, "cannot be of 'clip_score'; choose one of ja_vqa,"),
        ({"of": "jmath"}, "cannot be of 'jmath'; choose one of ja_vqa,"),
        ({"of": "nothing"}, "cannot be of 'nothing'"),
        ({"of": "vqa"}, "The task vqa needs the option 'path'"),
        ({"options": {"path": "a"}}, "The task ja_culture_vqa has no option 'path'"),
        ({"options": ["path"]}, "write name: value"),
        ({"model": 3}, "clip_score's model is 3"),
        ({"weight": 0}, "clip_score's weight is 0; write a number such as 2.5"),
        ({"weight": float("nan")}, "clip_score's weight is nan"),
        ({"weight": True}, "clip_score's weight is True"),
        ({"weight": "2.5"}, "clip_score's weight is '2.5'"),
        ({"path": "a"}, "The task clip_score has no option 'path'"),
    ],
)
def test_wrong_options_are_one_sentence(options, said):
    with pytest.raises(StudioError) as refused:
        load_task("clip_score", **options)
    assert said in str(refused.value) and str(refused.value).endswith(".")


def test_an_encoder_is_first_missed_when_it_is_needed(tmp_path):
    task = load_task("clip_score", model=str(tmp_path))
    assert task.examples("test")
    with pytest.raises(StudioError, match="has no open_clip_config.json"):
        task.score(task.examples("dev")[0], "鳥居")


def test_a_recipe_trades_it_off_against_rouge(folder):
    document = {
        "sources": ["bonsai-ja", "bonsai-math"],
        "base": "bonsai-base",
        "objectives": [
            {"task": "ja_culture_vqa", "examples": 8},
            {"task": "clip_score", "examples": 8, "options": {"model": folder}},
        ],
    }
    recipe = Recipe.model_validate(document)
    first, second = recipe.build_tasks()
    assert second.asks == first.name and second.examples("dev") == first.examples("dev")
    assert recipe.stages()[0].optimizer == "nsga2"


def test_a_word_ranks_pictures(compass):
    pictures = [str(angle).encode() for angle in (200, 10, 90, 10)]
    ranked = clip_score.rank("0", pictures, Encoder.open("any"))
    assert [index for index, _ in ranked] == [1, 3, 2, 0]
    assert [cosine for _, cosine in ranked] == pytest.approx(
        [np.cos(np.radians(angle)) for angle in (10, 10, 90, 200)], abs=1e-6
    )


def test_no_pictures_have_no_order(folder):
    assert clip_score.rank("鳥居", [], Encoder.open(folder)) == []
