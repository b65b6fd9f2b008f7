"""vqa: a user's own questions about their own pictures.

Data: yours. A folder of pictures with one .jsonl file in it, UTF-8, one question a line:

    {"image": "torii.jpg", "question": "これは何ですか。", "answer": "鳥居です。", "split": "dev"}

``split`` (train, dev or test) and ``id`` may be left out; any other field is kept and shown.
Without ``split`` a hash of the image's name puts it into dev or test: all questions about a picture
land in the same half, whatever else is in the file, so that no search sees a test picture.

Scored as the paper scores VLMs, see `vlm.vqa`. Knows nothing of models; never reads a file outside
the folder; every fault of the file or a picture is told in one sentence with its line.
"""

from functools import cached_property
from pathlib import Path

from studio.errors import StudioError
from studio.tasks.base import Example, check_split
from studio.tasks.csv import (
    SPLITS,
    check_filled,
    check_max_new_tokens,
    fold,
    read_rows,
    shorten,
    split_of,
)
from studio.tasks.language import check_language
from vlm import pictures
from vlm.vqa import VisualQuestions

NEEDS = ("image", "question", "answer")


class VQA(VisualQuestions):
    """Questions from the folder ``path``, or from the one .jsonl file of several that it names.

    ``language`` is what answers must be in; ``language=None`` (in YAML ``null``) allows any.

    Raises:
        StudioError: the folder or an option is wrong; it is read, and every picture opened once,
            when examples are asked for.
    """

    name = "vqa"

    def __init__(self, path: str | Path, language: str | None = "ja", max_new_tokens: int = 128):
        if not isinstance(path, str | Path):
            raise StudioError(f"path is {path!r}; write the name of a folder.")
        if language is not None:
            check_language(language)
        check_max_new_tokens(max_new_tokens)
        self.path = Path(path).expanduser()
        self.language, self.max_new_tokens = language, max_new_tokens

    def examples(self, split: str) -> list[Example]:
        check_split(
            self.name,
            split,
            self._splits,
            f" in {self._file.name}; add questions, or a split field",
        )
        return list(self._splits[split])

    @cached_property
    def _file(self) -> Path:
        """The .jsonl file; the pictures lie beside it."""
        if self.path.suffix.lower() == ".jsonl":
            return self.path
        if not self.path.is_dir():
            raise StudioError(
                f"There is no folder {self.path}; give the task the path of a folder of pictures "
                "with a .jsonl file."
            )
        found = sorted(self.path.glob("*.jsonl"))
        if not found:
            raise StudioError(
                f"The folder {self.path.name} has no .jsonl file; put one in it with "
                '{"image": "…", "question": "…", "answer": "…"} in each line.'
            )
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:4])
            raise StudioError(
                f"The folder {self.path.name} has {len(found)} .jsonl files ({names}); give the "
                "task the path of the one to use."
            )
        return found[0]

    @cached_property
    def _splits(self) -> dict[str, list[Example]]:
        """The non-empty splits, in the order train, dev, test."""
        found: dict[str, list[Example]] = {split: [] for split in SPLITS}
        asked: dict[tuple[Path, str], tuple[str, int]] = {}
        ids: dict[str, int] = {}
        opened: set[Path] = set()
        for line, row in read_rows(self._file, NEEDS):
            where = f"Line {line} of {self._file.name}"
            check_filled(row, where, NEEDS)
            picture = self._picture(row["image"].strip(), where)
            if picture not in opened:
                _check_picture(picture, where)
                opened.add(picture)
            name = picture.relative_to(self._file.parent.resolve()).as_posix()
            split = split_of(row, name, where)
            before, first = asked.setdefault((picture, fold(row["question"])), (split, line))
            if before != split:
                raise StudioError(
                    f"{where} repeats the question of line {first} about the same picture, once "
                    f"in {before} and once in {split}; keep one of them, or the score on {split} "
                    "means nothing."
                )
            key = row.get("id", "").strip() or f"line-{line}"
            if ids.setdefault(key, line) != line:
                raise StudioError(
                    f"{where} has the id {shorten(key)}, as has line {ids[key]}; give each its own."
                )
            meta = {k: v for k, v in row.items() if k not in (*NEEDS, "split", "id")}
            question, answer = row["question"].strip(), row["answer"].strip()
            found[split].append(Example(key, question, answer, meta, picture))
        return {split: examples for split, examples in found.items() if examples}

    def _picture(self, name: str, where: str) -> Path:
        """The file that a row names, symbolic links followed; never one outside the folder."""
        folder = self._file.parent.resolve()
        try:
            path = (folder / name).resolve()
        except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links
            path = folder
        inside = path != folder and path.is_relative_to(folder)
        if not inside or Path(name).is_absolute() or ".." in Path(name).parts:
            raise StudioError(
                f"{where} names the image {shorten(name)}, which is not inside the folder; put the "
                "picture there and write its name alone."
            )
        return path


def _check_picture(path: Path, where: str) -> None:
    try:
        pictures.check(path)
    except StudioError as error:
        raise StudioError(f"{where}: {error}") from error
