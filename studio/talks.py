"""Conversations, kept on the server: what was asked, and what every model answered.

A talk belongs to a folder (its owner's) and a name in it; both are for the caller to choose and to
protect. It is one object for all who open it, so that two tabs of one browser see the same, and
one small JSON file, written whole or not at all. Pictures are kept as the small PNG that was shown:
a model reads the picture itself when it is asked, and the small one when it is reminded of it after
a restart. Refuses to know models, pages and visitors.
"""

import base64
import binascii
import itertools
import json
import os
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.speech import Settings

#: Questions of a talk; the oldest leave when there are more.
QUESTIONS = 60
#: Bytes of a talk's pictures; the oldest are left out of the file when there are more.
PICTURES = 4_000_000
#: Bytes of a file that is read again; what is larger was not written here.
FILE = 16_000_000
#: Talks of one owner; those that were longest not spoken in leave when there are more.
TALKS = 30
#: Characters of a question.
CHARACTERS = 8000
#: Talks held in memory, of all owners.
_HELD = 500
_NAME = re.compile(r"[\w.-]{1,120}", re.ASCII)


@dataclass
class Answer:
    """What a model answered.

    Attributes:
        model: as it was chosen, such as "RUN:best".
        speaker: who that was at the time, such as "RUN:12".
        words: so far.
        seconds: from the first wish for an answer to its last word.
        blind: whether it was asked without the picture, which it cannot see.
        error: the sentence that says why there are no more words.
    """

    model: str
    speaker: str
    words: str = ""
    seconds: float = 0.0
    blind: bool = False
    error: str = ""


@dataclass
class Question:
    """A question and its answers by model.

    Attributes:
        asked: seconds since the epoch.
        picture: a small PNG, where there is a picture; ``alt`` is what it is called.
        original: the picture itself, as long as the server knows it.
        open: whether answers are still wanted.
        waiting: models that are to answer, and why they have no words yet.
    """

    words: str
    asked: float
    settings: Settings = field(default_factory=Settings)
    picture: bytes | None = None
    alt: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    original: Path | bytes | None = None
    open: bool = True
    waiting: dict[str, Any] = field(default_factory=dict)


class Talk:
    """One conversation; what changes it is safe to call from several threads.

    Args:
        file: where it is kept; None for one that is not.
    """

    def __init__(self, file: Path | None = None):
        self.file = file
        self.lock = threading.Lock()
        self.questions: list[Question] = []
        #: The models that are asked, as they were chosen last; None before anybody chose.
        self.models: list[str] | None = None
        if file is not None:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                self._read(file)

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        words: str,
        settings: Settings,
        original: Path | bytes | None = None,
        picture: bytes | None = None,
        alt: str = "",
    ) -> Question:
        """Put a question; those before it are not answered any further.

        Raises:
            StudioError: there are no words, or too many.
        """
        words = (words or "").strip()
        if not words:
            raise StudioError("There is no question; write one, or pick one of the task's.")
        if len(words) > CHARACTERS:
            raise StudioError(f"The message is longer than {CHARACTERS} characters; shorten it.")
        settings.check()
        question = Question(words, time.time(), settings, picture, alt, {}, original)
        with self.lock:
            self._stop()
            self.questions = [*self.questions, question][-QUESTIONS:]
        return question

    def wait(self, question: Question, models: Sequence[str], why: Any) -> list[str]:
        """Enter the models that are yet to answer a question; returns them."""
        with self.lock:
            new = [m for m in models if m not in question.answers and m not in question.waiting]
            question.waiting |= dict.fromkeys(new, why)
        return new

    def done(self, question: Question, models: Sequence[str]) -> None:
        """These have answered, or will not any more; after the last one, answers end."""
        with self.lock:
            for model in models:
                question.waiting.pop(model, None)
            question.open = question.open and bool(question.waiting)

    def claim(self, question: Question, model: str, speaker: str) -> Answer | None:
        """A place for a model's answer; None if it is not wanted, or somebody else writes it."""
        with self.lock:
            if not question.open or model in question.answers:
                return None
            answer = question.answers[model] = Answer(model, speaker)
            return answer

    def withdraw(self, question: Question, model: str) -> None:
        """A model has said nothing before it was stopped: it was not asked."""
        with self.lock:
            question.answers.pop(model, None)

    def stop(self) -> None:
        """No more words, of whoever is speaking or about to."""
        with self.lock:
            self._stop()

    def _stop(self) -> None:
        for question in self.questions:
            question.open = False
            question.waiting = {}

    def clear(self) -> None:
        """Stop, and forget everything."""
        with self.lock:
            self._stop()
            self.questions = []
        self.save()

    def reopen(self) -> Question | None:
        """The last question, to be answered by models that have not; None if there is none."""
        with self.lock:
            if not self.questions:
                return None
            self.questions[-1].open = True
            return self.questions[-1]

    def told(self, question: Question, model: str, remember: bool) -> list[dict[str, Any]]:
        """What a model is told: a question, after those before it that the model answered."""
        before = itertools.takewhile(lambda other: other is not question, list(self.questions))
        messages = []
        for earlier in before if remember else ():
            answer = earlier.answers.get(model)
            if answer is not None and answer.words:
                messages += [_asked(earlier), {"role": "assistant", "content": answer.words}]
        return [*messages, _asked(question)]

    # ── the file ──────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        """Write the file, or remove it where nothing is left to keep.

        Raises:
            StudioError: the disk does not take it.
        """
        if self.file is None:
            return
        with self.lock:
            text = json.dumps(self.document(), ensure_ascii=False)
            empty = not self.questions and self.models is None
        partial = self.file.with_name(f".{self.file.name}.{uuid.uuid4().hex[:8]}")
        try:
            if empty:
                self.file.unlink(missing_ok=True)
                return
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, self.file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StudioError(
                f"The conversation could not be kept ({error.strerror}); make room on the disk of "
                "the workspace."
            ) from error

    def document(self) -> dict[str, Any]:
        """The talk as JSON knows it: models, questions, settings, times, answers."""
        left, questions = PICTURES, []
        for question in reversed(self.questions):
            left -= len(question.picture or b"")
            questions.append(_question(question, with_picture=left >= 0))
        return {"format": 1, "models": self.models, "questions": questions[::-1]}

    def markdown(self, title: str) -> str:
        """The talk to be read: Markdown, pictures inside."""
        parts = [f"# {_line(title)}"]
        for number, question in enumerate(list(self.questions), 1):
            parts.append(f"## {number}. {_when(question.asked)}")
            parts.append(_quoted(question.words))
            if question.picture:
                data = base64.b64encode(question.picture).decode()
                parts.append(f"![{_line(question.alt)}](data:image/png;base64,{data})")
            parts.append(_settings(question.settings))
            for answer in list(question.answers.values()):
                parts.append(f"**{_line(answer.speaker)}** ({answer.seconds:.1f} s)")
                parts += [_quoted(text) for text in (answer.words, answer.error) if text]
        return "\n\n".join(parts) + "\n"

    def _read(self, file: Path) -> None:
        if file.stat().st_size > FILE:
            return
        document = json.loads(file.read_text(encoding="utf-8"))
        questions = [_opened(question) for question in document["questions"][-QUESTIONS:]]
        models = document["models"]
        self.questions = questions
        self.models = None if models is None else [str(name) for name in models]


# ── all talks ─────────────────────────────────────────────────────────────────────────────────

_TALKS: OrderedDict[Path, Talk] = OrderedDict()
_LOCK = threading.Lock()


def talk(folder: Path, name: str) -> Talk:
    """The talk of a name in a folder, the same object whenever it is asked for.

    Raises:
        ValueError: the name is no plain file name.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ValueError(name)
    file = (folder / f"{name}.json").absolute()
    with _LOCK:
        found = _TALKS.pop(file, None)
        if found is None:
            found = Talk(file)
            _thin(folder, file)
        _TALKS[file] = found
        while len(_TALKS) > _HELD:
            _TALKS.popitem(last=False)
    return found


def forget(folder: Path) -> int:
    """End and delete all talks of a folder; returns how many there were."""
    with _LOCK:
        inside = [file for file in _TALKS if file.parent == folder.absolute()]
        held = [_TALKS.pop(file) for file in inside]
    for one in held:
        one.stop()
        one.file = None  # whoever still speaks in it writes it nowhere
    files = list(folder.glob("*.json"))
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)


def _thin(folder: Path, new: Path) -> None:
    """Make room for a new talk: an owner's oldest leave. A name's owner is what its dot ends."""
    owner, dot, _ = new.stem.rpartition(".")
    prefix = owner + dot
    files = [
        file
        for file in folder.glob("*.json")
        if file != new and file.stem.rpartition(".")[0] == owner and file.stem.startswith(prefix)
    ]
    with suppress(OSError):
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[: max(0, len(files) - TALKS + 1)]:
            _TALKS.pop(file.absolute(), None)
            file.unlink(missing_ok=True)


# ── forms ─────────────────────────────────────────────────────────────────────────────────────


def _asked(question: Question) -> dict[str, Any]:
    picture = question.picture if question.original is None else question.original
    return {"role": "user", "content": question.words, "picture": picture}


def _question(question: Question, with_picture: bool) -> dict[str, Any]:
    picture = question.picture if with_picture else None
    return {
        "asked": _when(question.asked),
        "words": question.words,
        "picture": picture and base64.b64encode(picture).decode(),
        "alt": question.alt,
        "settings": asdict(question.settings),
        "answers": [asdict(answer) for answer in question.answers.values()],
    }


def _opened(document: dict[str, Any]) -> Question:
    picture = document["picture"]
    try:
        picture = None if picture is None else base64.b64decode(picture, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError("no picture") from error
    answers = [
        Answer(
            str(given["model"]),
            str(given["speaker"]),
            str(given["words"]),
            float(given["seconds"]),
            bool(given["blind"]),
            str(given["error"]),
        )
        for given in document["answers"]
    ]
    given = document["settings"]
    settings = Settings(
        int(given["max_new_tokens"]),
        float(given["temperature"]),
        float(given["top_p"]),
        int(given["seed"]),
        float(given["repetition_penalty"]),
    )
    return Question(
        str(document["words"]),
        _moment(str(document["asked"])),
        settings,
        picture,
        str(document["alt"]),
        {answer.model: answer for answer in answers},
        open=False,
    )


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _moment(text: str) -> float:
    import calendar

    return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S UTC")))


def _settings(settings: Settings) -> str:
    words = ", ".join(f"{name} {value:g}" for name, value in asdict(settings).items())
    return f"<small>{words}</small>"


def _line(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(str(text).split()))


def _quoted(text: str) -> str:
    """Somebody's words, which stay words: indented, so that nothing in them is markup."""
    return "\n".join(f"    {line}" for line in text.splitlines())
