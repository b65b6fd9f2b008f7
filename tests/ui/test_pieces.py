"""The page's pictures and pieces: what they say, well formed, and escaped."""

import ast
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.evolve.spaces import first_space
from studio.recipe import Recipe
from studio.runs import Outcome, Progress, Run
from studio.ui import form, pieces, plots, points, scales, strings, wiring, words

HACK = "<script>alert('x')</script>\"'&"
NAMES = {"right": "right", "half": "right number, wrong language", "wrong": "wrong"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order or never."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def run(**changes) -> Run:
    values = {
        "id": "0123abcd", "name": HACK, "recipe": "", "created": 0.0, "status": "running",
        "stop": False, "message": HACK, "version": 3, "seconds": 61.0,
    }  # fmt: skip
    return Run(**(values | changes))


def progress(**changes) -> Progress:
    values = {
        "run": run(), "state": "running", "stage": "cma", "done": 30, "total": 120, "best": 0.525,
        "best_id": 7, "tokens_per_second": 1234.4, "candidates_per_minute": 41.6, "eta": 130.0,
        "elapsed": 61.0,
    }  # fmt: skip
    return Progress(**(values | changes))


def outcome(score: float, **details) -> Outcome:
    return Outcome("test-0000", score, HACK, details, 5)


def test_a_finished_run_is_done_though_it_left_some_of_its_budget():
    shown = pieces.status(progress(state="finished"), "en")
    assert 'aria-valuenow="120"' in shown and "width:100.00%" in shown
    assert "30<small> / 120</small>" in shown
    assert "width:25.00%" in pieces.status(progress(), "en")


# ── the curve ─────────────────────────────────────────────────────────────────────────────────


def curve(lines, references, total=100) -> str:
    return plots.curve(
        lines, references, total=total, title="Best", x_label="candidates", y_label="right, %"
    )


def test_the_curve_says_its_numbers():
    html = curve(
        [plots.Line("evolution", "main", [(1, 0.1), (2, 0.1), (3, 0.5)])],
        {"ja": 0.02, "math": 0.03, HACK: 0.3},
    )
    page = Balanced(html)
    assert "<script" not in html
    said = next(a["aria-label"] for t, a in page.seen if a.get("role") == "img")
    assert "evolution 50.0 %" in said and "math 3.0 %" in said and HACK in said


def test_the_curve_is_a_staircase_inside_its_frame():
    html = curve([plots.Line("evolution", "main", [(1, 0.1), (2, 0.1), (40, 0.5)])], {}, total=40)
    path = re.findall(r'class="main" d="(M[^"]+)"', html)[-1]
    # 0.5 is drawn under the ceiling 0.6: a sixth of the height from the top.
    assert path == "M25.0 83.33H1000.0V16.67"


@pytest.mark.parametrize("lines", [[], [plots.Line("evolution", "main", [])]])
def test_a_curve_without_points(lines):
    Balanced(curve(lines, {}))


def test_one_point_is_visible_and_beyond_the_budget_stays_inside():
    assert re.search(r'class="main" d="M[^"]+h8"', curve([plots.Line("e", "main", [(1, 0)])], {}))
    html = curve([plots.Line("e", "main", [(1, 0.2), (105, 0.4)])], {}, total=100)
    assert "H1000.0" in html


def test_reference_labels_do_not_cover_each_other():
    places = scales.apart([99, 100, 98.5, 40, 100])
    assert all(b - a >= 7.49 for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
    assert max(places) <= 100 and places[3] == 40


@pytest.mark.parametrize("total", [1, 2, 7, 12, 48, 400, 401, 1000, 99_999])
def test_ticks(total):
    ticks = scales.x_ticks(total)
    assert ticks[0] == 0 and ticks[-1] == total and ticks == sorted(set(ticks)) and len(ticks) <= 7


# ── the strip ─────────────────────────────────────────────────────────────────────────────────


def test_the_strip_draws_each_state_differently():
    rows = [
        plots.Row(HACK, "source", 0.25, ["right", "half", "wrong", "wrong"]),
        plots.Row("evolved (#3)", "evolved", 0.5, ["right", "right", "wrong", "wrong"], best=True),
    ]
    html = plots.strip(
        rows, ["りんごは何個？", HACK, "c", "d"], title="T", note="N", names=NAMES, selected=2
    )
    page = Balanced(html)
    assert "<script" not in html
    labels = [a["aria-label"] for t, a in page.seen if a.get("role") == "img"]
    assert labels[0].endswith(": 1 right, 1 right number, wrong language, 2 wrong")
    assert len(re.findall(r"data-q=", html)) == 4
    assert html.count('<path class="half"') == 1 and html.count('<path class="right"') == 2
    slider = next(a for t, a in page.seen if a.get("role") == "slider")
    assert slider["aria-valuenow"] == "2" and slider["tabindex"] == "0"


def test_states():
    assert pieces.state_of(outcome(1.0, right=True)) == "right"
    assert pieces.state_of(outcome(0.0, right=True, language="en")) == "half"
    assert pieces.state_of(outcome(0.0, right=False)) == "wrong"
    assert pieces.state_of(outcome(0.0)) == "wrong"


# ── the front ─────────────────────────────────────────────────────────────────────────────────


def scatter(points, selected=None, joined=True, **minimised) -> str:
    axes = [plots.Axis(name, lambda v: f"{v:g}", minimised.get(name, False)) for name in ("x", "y")]
    names = {"front": "on the front", "beaten": "beaten", "source": "source", "all": "all of them"}
    return plots.scatter(
        points, *axes, title="T", note="N", names=names, selected=selected, joined=joined
    )


FRONT = [
    plots.Point("#1", "#1 beaten", 0.1, 0.1, number=1),
    plots.Point("★ #2", HACK, 0.2, 0.8, number=2, front=True, size=0.0),
    plots.Point("★ #3", "★ #3", 0.7, 0.3, number=3, front=True, size=1.0),
    plots.Point(HACK, "bonsai-ja 10", 0.0, 0.1),
]


def test_the_scatter_has_a_button_for_each_of_the_front_and_names_the_sources():
    html = scatter(FRONT, selected=3)
    page = Balanced(html)
    assert "<script" not in html
    buttons = [a for t, a in page.seen if t == "button"]
    assert [(b["data-c"], b["aria-label"], b["aria-pressed"]) for b in buttons] == [
        ("2", HACK, "false"),
        ("3", "★ #3", "true"),
    ]
    sizes = [int(re.search(r"--size:(\d+)px", b["style"])[1]) for b in buttons]
    assert sizes[0] < sizes[1]
    dots = [a for t, a in page.seen if t == "path" and a["class"] == "dot"]
    assert [dot["data-c"] for dot in dots] == ["1"]
    assert html.count('<i class="source" style') == 1
    walk = next(a for t, a in page.seen if a.get("role") == "slider")
    assert walk["aria-valuenow"] == walk["aria-valuemax"] == "3" and walk["tabindex"] == "0"
    assert walk["aria-label"] == "all of them" and walk["aria-valuetext"] == "★ #3"
    assert "slider" not in scatter(FRONT) and 'class="ring"' not in scatter(FRONT)
    # from 0 to 0.8 across: 0.2 lies at a quarter
    assert "left:25.00%" in buttons[0]["style"] and "top:0.00%" in buttons[0]["style"]


@pytest.mark.parametrize(
    ("minimised", "stairs"),
    [({}, "M25.00 0.00V62.50H87.50"), ({"x": True}, "M25.00 0.00H87.50V62.50")],
)
def test_the_border_of_a_front_goes_where_nothing_is_better(minimised, stairs):
    assert f'class="border" d="{stairs}"' in scatter(FRONT, **minimised)
    assert "border" not in scatter(FRONT, joined=False)


def test_a_timeline_has_every_candidate_and_what_it_is_measured_by():
    names = dict.fromkeys(("front", "beaten", "other", "reference", "all"), "w")
    dots = [
        points.Point("#0", HACK, 1, 0.1, number=0, front=True),
        points.Point("#1", "#1", 2, 0.05, number=1),
        points.Point("#2", "#2", 1, 0.0, number=2, other=True),
    ]
    html = points.timeline(
        dots,
        [scales.Line("x", "main", [(1, 0.1), (2, 0.1)]), scales.Line("y", "other", [])],
        [points.Reference(HACK, 0.3, 0.2, 0.5)],
        total=10, title="T", note="N", names=names, x_label="x", y_label="y", selected=1,
    )  # fmt: skip
    page = Balanced(html)
    assert "<script" not in html and "30.0 (20.0 – 50.0)" in html
    # under a ceiling of 0.6 the interval goes from a third of the height to a sixth from the top
    assert "top:16.67%;bottom:33.33%" in html and html.count('class="whisker"') == 1
    assert [a["data-c"] for t, a in page.seen if t == "button"] == ["0"]
    assert [a["class"] for t, a in page.seen if t == "path" and "data-c" in a] == [
        "dot", "dot other",
    ]  # fmt: skip
    assert 'class="ring" style="left:20.00%;top:91.67%"' in html
    assert "left:100.00%" in html  # the budget is the right edge, not the last candidate


def test_a_scatter_of_equal_points():
    Balanced(scatter([plots.Point("★ #0", "only", 0.0, 8.0, number=0, front=True)]))


@pytest.mark.parametrize(
    "values", [[0.0], [5.0, 5.0], [0.61, 0.97], [2_900_000, 3_400_000], [0, 1e-9], [8, 26]]
)
def test_a_scale_holds_its_values_between_round_numbers(values):
    at, ticks = scales.linear(values)
    assert all(0 <= at(value) <= 100 for value in values)
    assert at(ticks[0]) == 0 and at(ticks[-1]) == pytest.approx(100) and 2 <= len(ticks) <= 7


def test_the_front_is_a_table_as_well():
    members = [(2, {"jmath": 0.61, "length": 9.0}), (3, {"jmath": 0.5, "length": 8.0})]
    html = pieces.front("<p>plot</p>", members, ["jmath", "length"], 3, 2, "en")
    page = Balanced(html)
    assert ">61.0<" in html and ">9<" in html and ">layers<" in html and ">jmath %<" in html
    pressed = [a["aria-pressed"] for t, a in page.seen if t == "button"]
    assert pressed == ["false", "true"] and 'data-best="2"' in html


# ── pieces ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", strings.LANGUAGES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"state": "finished", "stage": ""},
        {"state": "queued", "best": None, "best_id": None, "done": 0, "eta": None},
        {"state": "interrupted", "total": 0},
    ],
)
def test_status(language, changes):
    html = pieces.status(progress(**changes), language)
    Balanced(html)
    assert "<script" not in html
    if changes.get("best", 1) is not None:
        assert "52.5 %" in html


def test_report():
    row = {"role": "source", "task": "jmath", "score": 0.3, "low": 0.25, "high": 0.36, "n": 250}
    rows = [
        {**row, "model": HACK, "subject": "model:x"},
        {
            **row,
            "model": "evolved (#3)",
            "role": "evolved",
            "score": 0.52,
            "subject": "candidate:3",
        },
        {**row, "model": "evolved (#3)", "role": "evolved", "task": "emath", "subject": "y"},
    ]
    html = pieces.report(rows, "en")
    Balanced(html)
    assert "<script" not in html and "25.0 – 36.0" in html and html.count('class="task"') == 2
    assert "search" in pieces.report([], "en")


def test_heat_map_of_every_kind_of_space(tiny_family):
    recipe = {
        "base": str(tiny_family["base"]),
        "sources": [str(tiny_family["ja"]), str(tiny_family["math"])],
        "objectives": [{"task": "jmath"}],
    }
    for method, cells in (("dare_ties", "0.50<small>0.50"), ("linear", "0.50"), ("slerp", "0.50")):
        options = {"method": method, "filters": ["mlp"], "layer_granularity": 2}
        space = first_space(Recipe.from_dict(recipe | {"space": options}))
        html = pieces.heat_map(space.table(space.initial), 3, "en")
        Balanced(html)
        assert cells in html and "layers 0–1 · mlp" in html
        assert ("density" in html) == (method == "dare_ties")


def test_a_path_shows_lanes_scales_and_what_is_passed_again():
    rows = [
        {"step": n, "slot": None, "source": source, "layer": layer, "scale": scale}
        for n, (source, layer, scale) in enumerate(
            [("/models/main", 0, 1.0), (HACK, 2, 2.0), (HACK, 2, 0.5), ("/models/main", 3, 1.1)]
        )
    ]
    html = pieces.path(rows, ["/models/main", HACK, "idle"], 7, "en")
    page = Balanced(html)
    assert "<script" not in html and "Candidate 7: 4 layers" in html
    heads = [a.get("title") for t, a in page.seen if t == "th" and a.get("class") == "lane"]
    assert heads == ["/models/main", HACK, "idle"] and ">/models" not in html
    assert html.count('class="lane main"') == 2 and html.count("<b>layer 2") == 2
    assert html.count("↻2") == 2 and "<b>layer 2 <small>↻2" in html  # the note names the sign
    line = re.search(r'points="([^"]+)"', html)[1]
    assert line == "16.67,0.5 50.00,1.5 50.00,2.5 16.67,3.5"
    assert "left:50.0%;width:50.0%" in html and "left:0.0%;width:50.0%" in html
    assert ">1.00<" in html.replace("</i></i>", ">") and "1.10" in html


def test_answers():
    said = [("ja", outcome(1.0, right=True)), (HACK, Outcome("x", 0.0, " ", {}, 0))]
    html = pieces.answers(3, 250, HACK, "42", said, "ja")
    Balanced(html)
    assert "<script" not in html and "✓ 正解" in html and "（無回答）" in html


def test_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1_234_567)
    (tmp_path / "README.md").write_text("hi")
    html = pieces.files(tmp_path, "en")
    Balanced(html)
    assert "1.2 MB" in html and "2 B" in html


# ── words ─────────────────────────────────────────────────────────────────────────────────────


def test_every_string_is_in_every_language_with_the_same_placeholders():
    for key, row in strings.TABLE.items():
        assert len(row) == 3 and all(row), key
        assert len({tuple(sorted(re.findall(r"{\w+}", text))) for text in row}) == 1, key


@pytest.mark.parametrize("language", strings.LANGUAGES)
@pytest.mark.parametrize("key", ["jmath", "paths", "both", "tradeoff", "paper-scheme"])
def test_every_stage_of_every_preset_has_words_of_its_own(key, language):
    recipe = form.presets()[key]
    search = recipe.search.model_copy(update={"random_baseline": True})
    names = [stage.name for stage in recipe.model_copy(update={"search": search}).stages()]
    said = [words.stage(language, name) for name in names]
    assert len(set(said)) == len(said) > 1
    assert all("_" not in sentence for sentence in said)
    for name in [*names, "sources", "selection", "report"]:
        assert words.phase(language, name)


def test_every_state_and_role_has_words():
    for key in ("queued", "running", "stopping", "interrupted", "stopped", "finished", "failed"):
        assert strings.say("en", key)
    for key in ("base", "source", "evolved", "random", "stage"):
        assert strings.say("en", f"role_{key}")
    with pytest.raises(KeyError):
        strings.text("no such words")


def test_every_words_are_used():
    """Every key is a literal of the page or the widgets, or fits an f-string or a prefix there."""
    literals, patterns = set(), set()
    rooms = Path(strings.__file__).parents[1]
    for path in [*rooms.glob("ui/*.py"), *rooms.glob("widgets/*.py")]:
        if path.name == "strings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                literals.add(node.value)
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                words = [re.escape(p) if isinstance(p, str) else "[a-z]+" for p in parts]
                patterns.add("".join(words))
    patterns |= {f"{prefix}[a-z_]+" for prefix in literals if re.fullmatch("[a-z]+_", prefix)}
    # "[a-z]+" alone is no evidence: it fits everything
    patterns = {p for p in patterns if re.search("_", p)}
    literals |= {"finished"}  # a state that no code of the page treats specially
    unused = [
        key
        for key in strings.TABLE
        if key not in literals and not any(re.fullmatch(p, key) for p in patterns)
    ]
    assert not unused


# ── toasts, names, cards ──────────────────────────────────────────────────────────────────────


def test_errors_become_toasts():
    said = wiring.told(StudioError(f"Bad {HACK}; do better."), test_status, "en")
    assert "<script" not in said.message and "do better" in said.message
    said = wiring.told(RuntimeError("/secret/path"), test_status, "en")
    assert "secret" not in said.message and "the log" in said.message


def test_the_page_builds_without_torch():
    import subprocess
    import sys

    code = "import app, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_strip_without_a_choice_is_no_control():
    rows = [plots.Row("a", "source", 0.5, [plots.RIGHT, plots.WRONG])]
    words = {
        "title": "t",
        "note": "",
        "names": dict.fromkeys((plots.RIGHT, plots.HALF, plots.WRONG), "w"),
    }
    picture = plots.strip(rows, ["q1", "q2"], selected=None, **words)
    Balanced(picture)
    assert "slider" not in picture and "tabindex" not in picture and "marker" not in picture
    assert 'role="slider"' in plots.strip(rows, ["q1", "q2"], selected=1, **words)
