"""MGSM: 250 grade-school problems of GSM8K, translated by people into ten languages.

Data: https://huggingface.co/datasets/juletxara/mgsm (CC BY-SA 4.0; Shi et al., arXiv 2210.03057).
A test split, and the 8 problems meant as worked examples as its train split. One instance of ja:

    question: ローブを作成するには、青色の繊維を2巻分、白色の繊維をその半分用いる必要があります。
              全体で何巻必要ですか？
    answer:   3

Scored as in arXiv 2403.13187: correct only if the last number of the response is right and the
response is in the language of the question. Knows nothing of prompting with worked examples.
The hub's copy has been TSV files with a script, and Parquet since; both are read, no script is run.
"""

import ast
import os
from pathlib import Path

from studio.errors import StudioError
from studio.tasks.base import Example, Score, check_split
from studio.tasks.instructions import prompt
from studio.tasks.numbers import last_number
from studio.tasks.scoring import score_number

DATASET = "juletxara/mgsm"
LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")


class MGSM:
    """MGSM in one language.

    ``path`` is a local TSV (question, tab, number; no header) in place of the hub's test split.
    ``paper_exact`` reads numbers as the paper's published scorer did, to compare with its table.

    >>> task = MGSM(language="ja", paper_exact=True)
    >>> example = Example("test-0002", "8万ドルで家を購入し、…", "70000")
    >>> task.score(example, "利益は70,000ドルです。").value    # the paper reads 000
    0.0
    """

    name = "mgsm"
    metric = "accuracy"
    max_new_tokens = 512

    def __init__(
        self, language: str = "ja", path: str | Path | None = None, paper_exact: bool = False
    ):
        if language not in LANGUAGES:
            raise StudioError(
                f"MGSM has no language {language!r}; choose one of {', '.join(LANGUAGES)}."
            )
        if path is not None and not isinstance(path, str | Path):
            raise StudioError(f"path is {path!r}; write the name of a file.")
        self.language = language
        self.path = None if path is None else Path(path).expanduser()
        self.paper_exact = bool(paper_exact)

    def examples(self, split: str) -> list[Example]:
        if self.path is not None:
            check_split("mgsm", split, ("test",), " where it is read from a file")
            return _read_tsv(self.path)
        check_split("mgsm", split, ("train", "test"), "; search on another task's dev split")
        return _from_hub(self.language, split)

    def prompt(self, example: Example, chat: bool) -> str:
        return prompt(example, chat, self.language)

    def score(self, example: Example, response: str) -> Score:
        return score_number(
            response, example.answer, language=self.language, paper_exact=self.paper_exact
        )


def _example(split: str, index: int, question: str, answer: object, where: str) -> Example:
    number = last_number(str(answer))
    if not question.strip() or number is None:
        raise StudioError(
            f"{where} is not a question and a number; MGSM files hold one problem a line: "
            "question, tab, number."
        )
    return Example(f"{split}-{index:04d}", question.strip(), f"{number:f}")


def _read_tsv(path: Path) -> list[Example]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise StudioError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        raise StudioError(
            f"The MGSM file {path} cannot be read ({error.strerror}); check the task's path."
        ) from error
    examples = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            question, _, answer = line.partition("\t")
            examples.append(
                _example("test", len(examples), question, answer, f"Line {number} of {path}")
            )
    if not examples:
        raise StudioError(f"{path} is empty; MGSM files hold one problem a line.")
    return examples


def _from_hub(language: str, split: str) -> list[Example]:
    tsv = f"mgsm_{language}.tsv" if split == "test" else "exemplars.py"
    path = _fetch(tsv, f"{language}/{split}-00000-of-00001.parquet")
    if path.suffix == ".parquet":
        return _read_parquet(path, split)
    return _read_tsv(path) if split == "test" else _read_exemplars(path, language)


def _fetch(*names: str) -> Path:
    """The first of the dataset's files that the hub, or the local cache when offline, has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    reason: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(DATASET, name, repo_type="dataset"))
        except EntryNotFoundError as error:  # also: not in the cache and no way to the hub
            reason = error
        except (HfHubHTTPError, OSError) as error:
            reason = error
            break
    raise StudioError(
        f"The dataset {DATASET} could not be had from the hub"
        f"{' (offline mode is on)' if offline else ''}; connect to the internet, or "
        "download its TSV and give the task its path."
    ) from reason


def _read_parquet(path: Path, split: str) -> list[Example]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path, columns=["question", "answer_number"])
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise StudioError(f"{path} is not MGSM's Parquet file; delete it and try again.") from error
    return [
        _example(split, index, _bare(row["question"]), row["answer_number"], f"Row {index}")
        for index, row in enumerate(table.to_pylist())
    ]


def _read_exemplars(path: Path, language: str) -> list[Example]:
    """The train split of the older form: literals in a Python file, read and never run."""
    values: dict[str, object] = {}
    try:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id] = ast.literal_eval(node.value)
        problems = values["MGSM_EXEMPLARS"][language]
        answers = values["EXEMPLAR_NUMBER_ANSWERS"]
        return [
            _example("train", i, _bare(problems[str(i + 1)]["q"]), answer, f"Problem {i + 1}")
            for i, answer in enumerate(answers)
        ]
    except (OSError, SyntaxError, ValueError, KeyError, TypeError) as error:
        raise StudioError(f"{path} is not MGSM's list of worked examples.") from error


def _bare(question: str) -> str:
    """Without the "Question:" (問題：, Frage:, …) that stands before each worked example."""
    head, colon, rest = question.replace("：", ":", 1).partition(":")
    prefixed = colon and len(head) <= 16 and not any(map(str.isdigit, head))
    return rest.strip() if prefixed else question
