"""Pictures on the page: choosing, showing, refusing one; the gallery; questions that have one."""

import base64
import re
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from studio.errors import StudioError
from studio.runs import Outcome
from studio.tasks import Example
from studio.ui import front_candidate, page, pictures, pieces, plots, strings
from studio.ui.pictures import Chosen
from studio.ui.wiring import Visit, Wires
from tests.ui.test_pieces import Balanced
from vlm import gallery
from vlm.encoder import Encoder

ENGLISH, JAPANESE = Visit(language="en"), Visit(language="ja")
HACK = "<img src=x onerror=alert(1)>.png"


@pytest.fixture
def photo(tmp_path) -> Path:
    """A JPEG of 900 × 300 pixels with words of its own behind the pixels."""
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (900, 300), (200, 80, 40)).save(path, comment=b"where I live")
    return path


def shown_pictures(html: str) -> list[bytes]:
    """The files of all images of a page."""
    Balanced(re.sub(r"(<img [^>]*)>", r"\1/>", html))
    sources = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    assert len(sources) == html.count("<img ")
    return [base64.b64decode(source) for source in sources]


# ── choosing ──────────────────────────────────────────────────────────────────────────────────


def test_an_upload_is_previewed_as_pixels_of_ours(photo):
    chosen, preview = pictures.bring(ENGLISH, str(photo))
    assert chosen == Chosen(photo, "photo.jpg")
    (shown,) = shown_pictures(preview)
    assert shown.startswith(b"\x89PNG") and b"where I live" not in shown
    assert 'alt="photo.jpg"' in preview and 'aria-label="Remove the picture"' in preview
    assert pictures.remove() == [None, ""]


def test_a_files_name_is_no_markup(photo):
    hostile = photo.rename(photo.with_name(HACK))
    _, preview = pictures.bring(ENGLISH, str(hostile))
    assert "<img src=x" not in preview and "&lt;img" in preview


@pytest.mark.parametrize("handler", [pictures.bring, pictures.bring_photo])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.png", b"", "empty"),
        ("cut.png", b"\x89PNG\r\n\x1a\n", "damaged"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_a_bad_picture_is_a_sentence(tmp_path, handler, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StudioError, match=said) as error:
        handler(ENGLISH, str(tmp_path / name))
    assert str(tmp_path) not in str(error.value)


def test_the_webcam_is_free_again_once_it_took_a_picture(photo):
    chosen, preview, webcam = pictures.bring_photo(JAPANESE, str(photo))
    assert chosen.name == "写真" and len(shown_pictures(preview)) == 1 and webcam is None


def test_what_the_webcam_sends_is_not_opened_by_gradio():
    with gr.Blocks():
        pictures.choosers(Wires(gr.BrowserState({}), gr.State(None)), pictures.preview())
        webcam = next(
            block for block in gr.context.Context.root_block.blocks.values()
            if block.elem_id == "webcam"
        )  # fmt: skip
    assert webcam.preprocess(SimpleNamespace(path="/no/such/file.png")) == "/no/such/file.png"
    assert webcam.preprocess(None) is None


def test_a_picture_is_picked_from_the_gallery():
    clicked = Visit(language="ja", event={"picture": "twemoji/torii"})
    chosen, preview = pictures.pick(clicked)
    assert chosen.picture == gallery.PICTURES / "twemoji" / "torii.png" and "鳥居" in chosen.name
    assert len(shown_pictures(preview)) == 1
    for wrong in ("twemoji/../../README", "licences/torii", ""):
        with pytest.raises(StudioError):
            pictures.pick(Visit(event={"picture": wrong}))


# ── the gallery ───────────────────────────────────────────────────────────────────────────────


def things(html: str) -> list[str]:
    return re.findall(r'data-p="([^"]+)"', html)


def test_the_gallery_is_one_tab_stop_and_names_its_artists():
    html = pictures.look(ENGLISH, "", "fluent")
    assert things(html) == [f"fluent/{p.thing}" for p in gallery.pictures("fluent")]
    assert len(shown_pictures(html)) == len(things(html))
    assert html.count('tabindex="0"') == 1
    assert "Fluent Emoji (MIT)" in html and "Twemoji" not in html
    everyone = pictures.look(ENGLISH, None, "")
    assert all(label in everyone for label in gallery.STYLES.values())


@pytest.mark.parametrize("language", strings.LANGUAGES)
def test_a_word_sorts_the_gallery_and_how_is_said(monkeypatch, language):
    def missing(name):
        raise StudioError(f"There is no {name}.")

    monkeypatch.setattr(Encoder, "open", missing)
    visit = Visit(language=language)
    html = pictures.look(visit, " 鳥居 ", "")
    assert {name.split("/")[1] for name in things(html)[:4]} == {"torii"}
    assert len(things(html)) == pictures.FOUND
    assert strings.say(language, "by_name", word="鳥居") in html
    monkeypatch.setattr(gallery, "_by_likeness", lambda word, paths: list(range(len(paths)))[::-1])
    html = pictures.look(visit, "<b>", "noto")
    last = gallery.pictures("noto")[-1].thing
    assert things(html)[0] == f"noto/{last}" and "CLIP" in html and "<b>" not in html


def test_without_the_vlm_folder_there_are_no_pictures(monkeypatch):
    def ids(made) -> set:
        return {block.elem_id for block in made.blocks.values()}

    assert {"upload", "gallery", "webcam", "picture"} <= ids(page.build())
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    assert not {"upload", "gallery", "webcam", "picture"} & ids(page.build())


def test_uploads_are_limited_as_pictures_are():
    from gradio.utils import _parse_file_size

    from vlm.pictures import MAX_BYTES

    size = _parse_file_size(page.looks()["max_file_size"])
    assert MAX_BYTES <= size <= 1.1 * MAX_BYTES


# ── questions with a picture ──────────────────────────────────────────────────────────────────


def outcome(score: float, response: str = "鳥居です", **details) -> Outcome:
    return Outcome("t", score, response, details, 5)


def test_scores_in_between_are_as_high_as_they_are():
    row = plots.Row(
        "m", "source", 0.5, ["right", "half", "wrong", "half"], values=[1, 0.25, 0, 0.6]
    )
    html = plots.strip(
        [row], ["a"] * 4, title="T", note="", names=pieces.state_names("en", True), selected=None
    )
    (halves,) = re.findall(r'class="half" d="([^"]+)"', html)
    assert halves == "M1.06 7.5h.88V10h-.88zM3.06 4h.88V10h-.88z"
    assert re.findall(r'class="right" d="([^"]+)"', html) == ["M0.06 0h.88V10h-.88z"]
    assert "m: 60.0" in html and "1 100, 2 in between" in html


def test_states_of_scores_in_between():
    graded = [pieces.state_of(outcome(score), True) for score in (1.0, 0.4, 0.0)]
    assert graded == [plots.RIGHT, plots.HALF, plots.WRONG]
    # a right answer in another language is nothing there: its cell has no height
    assert pieces.state_of(outcome(0.0, right=True), True) == plots.WRONG
    assert pieces.is_graded([outcome(0.0), outcome(0.4)])
    assert not pieces.is_graded([outcome(0.0, right=True), outcome(1.0)])


def test_answers_say_the_metric_and_what_counts_as_empty(photo):
    example = Example("q", "これは何ですか。", "鳥居", picture=photo)
    said = [
        ("evolved", outcome(0.667, parsed="鳥居です", language="ja")),
        ("english", outcome(0.0, "A torii.", parsed=None, language="en")),
        ("silent", outcome(0.0, "", parsed=None, language="en")),
    ]
    html = pieces.answers(
        1, 2, example.question, example.answer, said, "en",
        metric="rouge_l", graded=True, picture=front_candidate.picture(example, "en"),
    )  # fmt: skip
    assert len(shown_pictures(html)) == 1 and "ROUGE-L 66.7" in html
    assert html.count("counts as empty") == 1 and ">right<" not in html
    gone = Example("q", "?", "!", picture=photo.with_name("gone.png"))
    assert "gone.png" in front_candidate.picture(
        gone, "en"
    ) and "<img" not in front_candidate.picture(gone, "en")
    assert front_candidate.picture(Example("q", "?", "!"), "en") == ""


def test_reports_name_the_metric_of_each_task():
    row = {"model": "m", "role": "source", "score": 0.3, "low": 0.2, "high": 0.4, "n": 8}
    row |= {"subject": "model:m"}
    rows = [row | {"task": "ja_vqa"}, row | {"task": "jmath"}]
    html = pieces.report(rows, "en", {"ja_vqa": "rouge_l", "jmath": "accuracy"})
    assert "ja_vqa · ROUGE-L · n = 8" in html and "jmath · accuracy · n = 8" in html
