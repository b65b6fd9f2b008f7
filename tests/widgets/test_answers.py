"""Answers side by side, the look of it all, and how quickly the room is entered."""

import subprocess
import sys

import pytest

from studio.runs.records import Evaluation, Outcome
from studio.tasks.base import Example
from studio.widgets import Answers, Figure
from studio.widgets.looks import rules, style

EXAMPLES = [Example(str(n), f"Question {n}?", str(n)) for n in range(3)]


def said(*scores: float, answer: str = "I say") -> Evaluation:
    outcomes = tuple(
        Outcome(str(n), score, f"{answer} {n}", {}, 3) for n, score in enumerate(scores)
    )
    mean = sum(scores) / len(scores)
    return Evaluation("model:m", "task", "dev", mean, 9, 1.0, "", outcomes)


def test_the_slider_goes_from_question_to_question():
    box = Answers({"one": said(1, 0, 1), "other": said(0, 0, 1, answer="<b>")}, EXAMPLES)
    assert "Question 0?" in box.text and "I say 0" in box.text
    box.number.value = 3
    assert "Question 2?" in box.text and "I say 2" in box.text
    assert "&lt;b&gt; 2" in box.text
    assert "66.7" in box._strip.value and "33.3" in box._strip.value


def test_a_peek_shows_one_answer_before_the_others_are_known():
    box = Answers({"one": said(1, 0, 1)}, EXAMPLES)
    box.peek(2, "new", Outcome("1", 1.0, "just now", {}, 2))
    assert "just now" in box.text and "I say 1" in box.text and "Question 1?" in box.text
    box.show({"one": said(1, 0, 1), "new": said(0, 1, 0)})
    assert "just now" not in box.text


def test_answers_in_between_are_drawn_as_tall_as_they_are_good():
    box = Answers({"one": said(0.25, 1, 0)}, EXAMPLES, metric="rouge_l")
    assert "ROUGE-L" in box._strip.value and 'class="half"' in box._strip.value


def test_a_figure_brings_the_rules_that_it_needs_and_no_others():
    html = '<figure class="es-figure es-heat"><figcaption>A map</figcaption></figure>'
    bundle = Figure(html)._repr_mimebundle_()
    assert bundle["text/plain"] == "A map"
    assert html in bundle["text/html"]
    found = rules(html)
    assert ".es-heat td.heat" in found and ".es-strip" not in found and ".gradio" not in found
    assert "--es-right:" in found and "--body-text-color:" in found
    assert '[data-jp-theme-light="false"]' in found
    assert found.count("{") == found.count("}")


def test_all_widgets_share_one_stylesheet():
    boxes = [Answers({}, EXAMPLES), Answers({}, EXAMPLES)]
    assert boxes[0].children[0] is boxes[1].children[0] is style()
    assert ".es-strip" in style().value and ".es-turn" in style().value


def test_the_room_is_entered_quickly():
    code = (
        "import sys, studio.widgets;"
        "print([m for m in ('torch', 'gradio', 'ipywidgets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_widget_needs_gradio():
    code = (
        "import sys; sys.modules['gradio'] = None;"
        "from studio.widgets import Answers, Chat, MergeByHand, Monitor, figures"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_ipywidgets_a_sentence_says_what_to_install():
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from studio.errors import StudioError\n"
        "try: from studio.widgets import Chat\n"
        "except StudioError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install ipywidgets" in done.stdout


@pytest.mark.slow
def test_the_widgets_work_with_the_version_that_colab_has(tmp_path):
    """All of this folder's tests once more, with ipywidgets 7.7."""
    old = tmp_path / "old"
    wanted = ["ipywidgets==7.7.*", "widgetsnbextension<4", "jupyterlab-widgets<2"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(old)]
    subprocess.run([*pip, *wanted, "ipython_genutils"], check=True)
    program = (
        f"import sys; sys.path.insert(0, {str(old)!r})\n"
        "import ipywidgets, pytest\n"
        "assert ipywidgets.__version__.startswith('7.7')\n"
        "sys.exit(pytest.main(['tests/widgets', '-q', '-x', '-p', 'no:cacheprovider']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
