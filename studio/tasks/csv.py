"""csv: a user's own questions and answers, from a CSV, TSV or JSONL file.

Data: yours. Columns ``question`` and ``answer``, and ``split`` (train, dev or test) if you like;
any other column is kept and shown. UTF-8, the first line names the columns. One instance:

    question,answer,split
    日本で一番高い山は何ですか。,富士山,dev

Without a ``split`` column a hash of the question puts it into dev or test: the same question always
lands in the same half, whatever else is in the file. Knows nothing of models; every fault of a file
is told in one sentence with its line. What reads such files is here for other tasks, too.
"""

import csv
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from studio.errors import StudioError
from studio.tasks.base import Example, Score, check_split
from studio.tasks.instructions import prompt
from studio.tasks.language import check_language
from studio.tasks.numbers import last_number
from studio.tasks.scoring import score_number, with_language

MATCHES = ("exact", "number", "contains")
SPLITS = ("train", "dev", "test")
NEEDS = ("question", "answer")
#: Characters in one cell; a longer one is nearly always a quotation mark that was never closed.
MAX_CELL = 100_000


class CSV:
    """Questions from ``path``, scored by ``match``.

    ``match``: "exact" (the response is the answer, but for case, width, spaces and a final stop),
    "contains" (the answer stands somewhere in the response, as a word of its own where it is Latin
    or a number), or "number" (the last number of the response is the answer's). With ``language``,
    a response in another language scores 0.

    Raises:
        StudioError: the file or an option is wrong; the file is read when examples are asked for.
    """

    name = "csv"
    metric = "accuracy"

    def __init__(
        self,
        path: str | Path,
        language: str | None = None,
        match: str = "exact",
        max_new_tokens: int = 256,
    ):
        if match not in MATCHES:
            raise StudioError(f"match cannot be {match!r}; choose one of {', '.join(MATCHES)}.")
        check_max_new_tokens(max_new_tokens)
        if language is not None:
            check_language(language)
        if not isinstance(path, str | Path):
            raise StudioError(f"path is {path!r}; write the name of a file.")
        self.path = Path(path).expanduser()
        self.language, self.match, self.max_new_tokens = language, match, max_new_tokens

    def examples(self, split: str) -> list[Example]:
        if split in SPLITS and self._splits and split not in self._splits:
            hint = (
                f" in {self.path.name}; add questions of that split, or take the split column out "
                "to have dev and test made for you"
                if self._has_split_column
                else f" in {self.path.name}; add more questions, or a split column"
            )
            check_split(self.name, split, self._splits, hint)
        check_split(self.name, split, self._splits)
        return list(self._splits[split])

    def prompt(self, example: Example, chat: bool) -> str:
        return prompt(example, chat, self.language)

    def score(self, example: Example, response: str) -> Score:
        if self.match == "number":
            return score_number(response, example.answer, language=self.language)
        said, answer = fold(response), fold(example.answer)
        right = said == answer if self.match == "exact" else _stands_in(answer, said)
        parsed = example.answer if right else None
        return with_language(response, right, self.language, parsed=parsed)

    @property
    def _has_split_column(self) -> bool:
        return any("split" in row for _, row in self._rows)

    @cached_property
    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        return read_rows(self.path)

    @cached_property
    def _splits(self) -> dict[str, list[Example]]:
        """The non-empty splits, in the order train, dev, test."""
        found: dict[str, list[Example]] = {split: [] for split in SPLITS}
        seen: dict[str, tuple[str, int]] = {}
        for line, row in self._rows:
            question, answer = row["question"].strip(), row["answer"].strip()
            where = f"Line {line} of {self.path.name}"
            check_filled(row, where)
            if self.match == "number" and last_number(answer) is None:
                raise StudioError(
                    f"{where} has the answer {shorten(answer)}, which is no number; correct it, or "
                    'choose match "exact" or "contains".'
                )
            key = fold(question)
            split = split_of(row, key, where)
            before, first = seen.setdefault(key, (split, line))
            if before != split:
                raise StudioError(
                    f"{where} repeats the question of line {first}, once in {before} and once in "
                    f"{split}; keep one of them, or the score on {split} means nothing."
                )
            meta = {k: v for k, v in row.items() if k not in ("question", "answer", "split")}
            found[split].append(Example(f"line-{line}", question, answer, meta))
        return {split: examples for split, examples in found.items() if examples}


def split_of(row: dict[str, str], key: str, where: str) -> str:
    """The split a row names; where there is no such column, dev or test by a hash of ``key``.

    Raises:
        StudioError: it names another one; ``where`` begins the sentence.
    """
    if "split" not in row:
        return "dev" if hashlib.sha256(key.encode()).digest()[0] < 128 else "test"
    split = row["split"].strip().lower()
    if split not in SPLITS:
        raise StudioError(
            f"{where} has the split {shorten(split)}; write train, dev or test."
            if split
            else f"{where} has no split; write train, dev or test in every line."
        )
    return split


def check_filled(row: dict[str, str], where: str, needs: Sequence[str] = NEEDS) -> None:
    """StudioError if a needed cell of a row is blank; ``where`` begins the sentence."""
    for column in needs:
        if not row[column].strip():
            raise StudioError(f"{where} has no {column}; fill the cell or delete the line.")


def check_max_new_tokens(count: object) -> None:
    """StudioError unless the option is a number of tokens."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise StudioError(f"max_new_tokens is {count!r}; write a whole number.")
    if count < 1:
        raise StudioError(f"max_new_tokens is {count}; it must be at least 1.")


def fold(text: str) -> str:
    """One form for what reads the same: width, case, spaces, a final stop."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be hashed
    return text.rstrip(".。!！ ") or text


def _stands_in(answer: str, text: str) -> bool:
    """Whether ``answer`` is in ``text`` and not within a longer Latin word or number."""
    edge = "[a-z0-9]"
    before = f"(?<!{edge})(?<![0-9][.,])" if re.match(edge, answer) else ""
    after = f"(?!{edge})(?![.,][0-9])" if re.search(f"{edge}$", answer) else ""
    return re.search(before + re.escape(answer) + after, text) is not None


def shorten(text: str) -> str:
    """A quotation of at most 40 characters, for an error."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def read_rows(path: Path, needs: Sequence[str] = NEEDS) -> list[tuple[int, dict[str, str]]]:
    """The file's rows with their line numbers; columns in lower case; blank lines left out.

    Raises:
        StudioError: it is no UTF-8 file of rows, or lacks one of the columns it ``needs``.
    """
    readers = {".csv": _read_table, ".tsv": _read_table, ".jsonl": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise StudioError(
            f"{str(path)!r} is no .csv, .tsv or .jsonl file; save your questions as one of these."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudioError(
            f"{path.name} is not UTF-8 text (byte {error.start + 1} is not); save it as UTF-8, in "
            'Excel as "CSV UTF-8".'
        ) from error
    except OSError as error:
        raise StudioError(
            f"{path} cannot be read ({error.strerror}); check the task's path."
        ) from error
    if "\0" in text:
        raise StudioError(f"{path.name} holds binary data; save it as UTF-8 text.")
    if not text.strip():
        raise StudioError(f"{path.name} is empty; it needs columns {_listed(needs)}.")
    rows = reader(text, path, needs)
    if not rows:
        raise StudioError(f"{path.name} has no questions below its first line; add some.")
    return rows


def _read_table(text: str, path: Path, needs: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = _physical(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows, line = [], 1
    try:
        header = [cell.strip().lower() for cell in next(reader)]
        _check_columns(header, needs, f"{path.name} has the columns", lines[0], delimiter)
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) != len(header):
                    raise StudioError(
                        f"Line {line} of {path.name} has {len(cells)} cells where the first line "
                        f"names {len(header)} columns; put quotation marks around a cell that "
                        f"holds a {'tab' if delimiter == chr(9) else 'comma'}."
                    )
                if max(map(len, cells)) > MAX_CELL:
                    raise csv.Error("field limit")
                rows.append((line, dict(zip(header, cells, strict=True))))
            line = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            what = f"has a cell of more than {MAX_CELL:,} characters"
        else:
            what = f"cannot be read ({error})"
        raise StudioError(
            f"Line {line} of {path.name} {what}; look for a quotation mark that is not closed, and "
            "write one inside a quoted cell twice."
        ) from error
    return rows


def _physical(text: str) -> list[str]:
    """Lines as an editor counts them; ``str.splitlines`` would also break at U+2028."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text)


def _read_jsonl(text: str, path: Path, needs: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    rows = []
    for number, line in enumerate(_physical(text), start=1):
        if not line.strip():
            continue
        where = f"Line {number} of {path.name}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            fields = ", ".join(f'"{name}": "…"' for name in needs)
            raise StudioError(f"{where} is not JSON; write {{{fields}}} in each line.") from error
        if not isinstance(record, dict):
            raise StudioError(f"{where} is not a JSON object with {_listed(needs)}.")
        row = {key.strip().lower(): _cell(value) for key, value in record.items()}
        try:
            "".join([*row, *row.values()]).encode()
        except UnicodeEncodeError as error:
            raise StudioError(
                f"{where} holds half of a \\u surrogate pair, which is no character; write the "
                "character itself."
            ) from error
        _check_columns(list(row), needs, f"{where} has the fields")
        if max(map(len, row.values())) > MAX_CELL:
            raise StudioError(f"{where} has a field of more than {MAX_CELL:,} characters.")
        rows.append((number, row))
    if 0 < sum("split" in row for _, row in rows) < len(rows):
        number = next(n for n, row in rows if "split" not in row)
        raise StudioError(
            f"Line {number} of {path.name} has no split; write train, dev or test in every line."
        )
    return rows


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: ``image, question and answer``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _check_columns(
    names: list[str],
    needs: Sequence[str],
    said: str,
    header: str = "",
    delimiter: str | None = None,
) -> None:
    missing = [name for name in needs if name not in names]
    if missing:
        others = {";": "semicolons", "\t": "tabs", ",": "commas"}
        hint = next(
            (
                f"; it seems to be separated by {word}, so "
                + ("call it .tsv" if mark == "\t" else "save it with commas")
                for mark, word in others.items()
                if delimiter and mark != delimiter and mark in header
            ),
            "; name them in the first line" if delimiter else "",
        )
        listed = ", ".join(map(shorten, names[:8]))
        raise StudioError(f"{said} {listed} and lacks {_listed(missing)}{hint}.")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise StudioError(f"{said} {shorten(twice)} twice; give each column its own name.")
