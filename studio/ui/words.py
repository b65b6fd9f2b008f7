"""How recorded names and numbers are said in a reader's language: stages, phases, values.

Knows the names that a run's record uses; refuses to know what HTML they end in.
"""

from studio.recipe import PROPERTIES
from studio.runs import Candidate
from studio.ui.strings import TABLE, say

#: What scores are of which nothing else is said, and those of tasks with different metrics.
ACCURACY, MEAN = "accuracy", "mean"
#: Metrics that have a name of their own here.
METRICS = (ACCURACY, MEAN, "rouge_l", "clip_score")
#: The parts that a candidate can have in a run.
ROLES = ("evolved", "random", "stage", "exported")


def stage(language: str, name: str) -> str:
    """A recorded stage's name in words: 'cma', 'parameter jmath', 'random data_flow', ….

    >>> stage("en", "cma"), stage("en", "random"), stage("en", "random parameter jmath")
    ('evolution', 'random search', 'random search · parameter space for jmath')
    """
    random, rest = name.split(" ")[0] == "random", name.removeprefix("random").strip()
    kind, _, task = rest.partition(" ")
    words = [say(language, "random")] if random else []
    if kind in ("parameter", "data_flow"):
        space = say(language, kind)
        words.append(say(language, "stage_for", space=space, task=task) if task else space)
    return " · ".join(words) or say(language, "evolution")


def phase(language: str, name: str) -> str:
    """What a run does in a recorded phase: a stage, or what comes before, between and after."""
    if name in ("sources", "selection", "report"):
        return say(language, f"phase_{name}")
    return say(language, "phase_search", stage=stage(language, name))


def called(language: str, subject: str, role: str, label: str) -> str:
    """What one row of a report is called: a model by its name, a candidate by its part in the run.

    Args:
        subject: as recorded: 'model:NAME', 'candidate:N' or 'export:N'.
        role: of a report's row.
        label: what it is called where nothing better is known.

    >>> called("en", "candidate:226", "evolved", ""), called("en", "model:bonsai-ja", "source", "")
    ('evolved (#226)', 'bonsai-ja')
    """
    kind, _, name = subject.partition(":")
    if kind == "model":
        return name
    if kind in ("candidate", "export") and role in ROLES:
        return say(language, f"called_{role}", n=name)
    return label


def group(language: str, name: str) -> str:
    """A layer group of a parameter space by its recorded name.

    >>> group("en", "layers 0-1"), group("ja", "layers 0-1"), group("zh", "embedding+head")
    ('layers 0–1', '層 0–1', '嵌入＋输出头')
    """
    kind, _, which = name.partition(" ")
    if which:
        return say(language, f"group_{kind}", n=which.replace("-", "–"))
    key = f"group_{name.replace('+', '_')}"
    return say(language, key) if key in TABLE else name


def objective(language: str, name: str, measured: str = ACCURACY) -> str:
    """An objective as a column's or an axis's name.

    Args:
        measured: a task's metric.

    >>> objective("en", "jmath"), objective("en", "length"), objective("en", "ja_vqa", "rouge_l")
    ('jmath %', 'layers', 'ja_vqa ROUGE-L')
    """
    if name in PROPERTIES:
        return say(language, name)
    return f"{name} %" if measured == ACCURACY else f"{name} {metric(language, measured)}"


def metric(language: str, name: str) -> str:
    """What scores of a metric are called; of one that is known nowhere here, just scores.

    >>> metric("en", "rouge_l"), metric("en", "acc_norm")
    ('ROUGE-L', 'score')
    """
    return say(language, f"metric_{name if name in METRICS else 'other'}")


def score(language: str, name: str, value: float) -> str:
    """A score in [0, 1] by the name of its metric.

    >>> score("en", "accuracy", 0.524), score("en", "rouge_l", 0.524)
    ('52.4 %', 'ROUGE-L 52.4')
    """
    number = f"{100 * value:.1f}"
    if name == MEAN:
        return number
    return f"{number} %" if name == ACCURACY else f"{metric(language, name)} {number}"


def asked(language: str, candidate: Candidate) -> str:
    """How many questions a candidate's score is of."""
    return say(language, "asked", n=candidate.examples)


def value(name: str, measured: float) -> str:
    """A value that stands below such a name.

    >>> value("jmath", 0.61), value("length", 9.0)
    ('61.0', '9')
    """
    return compact(measured) if name in PROPERTIES else f"{100 * measured:.1f}"


def measure(language: str, name: str, value: float) -> str:
    """A candidate's value of one objective.

    >>> measure("en", "jmath", 0.61), measure("en", "length", 9.0), measure("en", "parameters", 3e6)
    ('jmath 61.0', '9 layers', '3 M parameters')
    """
    if name == "length":
        return say(language, "n_layers", n=round(value))
    if name == "parameters":
        return say(language, "n_parameters", n=compact(value))
    return f"{name} {100 * value:.1f}"


#: Second, minute and hour.
UNITS = {"en": ("s", "min", "h"), "ja": ("秒", "分", "時間"), "zh": ("秒", "分", "小时")}


def duration(language: str, seconds: float | None) -> str:
    """Seconds as people read them.

    >>> [duration("en", seconds) for seconds in (42, 200, 7300, None)]
    ['42 s', '3 min 20 s', '2 h 1 min', '–']
    >>> duration("ja", 200)
    '3 分 20 秒'
    """
    if seconds is None:
        return "–"
    second, minute, hour = UNITS[language]
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} {second}"
    if seconds < 3600:
        return f"{seconds // 60} {minute} {seconds % 60} {second}"
    return f"{seconds // 3600} {hour} {seconds % 3600 // 60} {minute}"


def compact(value: float) -> str:
    """A large number as people read it.

    >>> compact(9), compact(2_931_000), compact(7_240_000_000)
    ('9', '2.93 M', '7.24 G')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
