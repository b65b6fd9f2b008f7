"""A conversation as HTML: a question over the answers of all who were asked, side by side.

Knows looks and words. Refuses to know Gradio and models: what was said is a `studio.talks.Talk`,
and everything in it is escaped.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

from studio.runs.records import split_reference
from studio.talks import Answer, Question, Talk
from studio.ui.markup import esc
from studio.ui.sentences import translate
from studio.ui.strings import say
from studio.voices import Waiting

#: Two sheets, one over the other; fonts have no letter for it.
_ICON = (
    '<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true" fill="none" '
    'stroke="currentColor" stroke-width="1.4"><rect x="4.5" y="4.5" width="8" height="8" rx="1"/>'
    '<path d="M2.5 9.5h-1v-8h8v1"/></svg>'
)


def past(talk: Talk, models: Sequence[str], language: str) -> str:
    """All that was said but the answers to the last question, which `now` shows."""
    if not talk.questions:
        return f'<p class="es-hint">{esc(say(language, "talk_hint"))}</p>'
    *before, last = talk.questions
    turns = [
        _asked(question, language) + _answers(question, models, language) for question in before
    ]
    return "".join([*turns, _asked(last, language)])


def now(talk: Talk, models: Sequence[str], language: str) -> str:
    """The answers to the last question."""
    return _answers(talk.questions[-1], models, language) if talk.questions else ""


def called(model: str, language: str, speaker: str = "") -> str:
    """A model's name over its answers: a candidate's number, the last part of a path.

    Args:
        speaker: who spoke in the name of "RUN:best".
    """
    reference, spoke = split_reference(model), split_reference(speaker)
    if reference is None:
        return Path(model).name or model
    if reference[1] != "best":
        return f"#{reference[1]}"
    best = say(language, "best_candidate")
    return f"{best} (#{spoke[1]})" if spoke else best


def _asked(question: Question, language: str) -> str:
    picture = ""
    if question.picture:
        data = base64.b64encode(question.picture).decode()
        picture = f'<img src="data:image/png;base64,{data}" alt="{esc(question.alt)}">'
    label = esc(say(language, "you_asked"))
    words = f"{picture}<p>{esc(question.words)}</p>"
    return f'<div class="es-asked" role="group" aria-label="{label}">{words}</div>'


def _answers(question: Question, models: Sequence[str], language: str) -> str:
    cards = "".join(_card(question, model, language) for model in models)
    busy = ' aria-busy="true"' if question.waiting else ""
    return f'<ul class="es-said" style="--n:{len(models)}" aria-live="polite"{busy}>{cards}</ul>'


def _card(question: Question, model: str, language: str) -> str:
    answer, wait = question.answers.get(model), question.waiting.get(model)
    name = esc(called(model, language, answer.speaker if answer else ""))
    copy = ""
    if answer and answer.words:
        label = esc(say(language, "copy_answer"))
        copy = (
            f'<button type="button" data-copy aria-label="{label}" title="{label}">{_ICON}</button>'
        )
    return f"<li><header><b>{name}</b>{copy}</header>{_said(answer, wait, language)}</li>"


def _said(answer: Answer | None, wait: Waiting | None, language: str) -> str:
    parts = []
    if answer and answer.blind:
        parts.append(f'<p class="aside">{esc(say(language, "sees_nothing"))}</p>')
    if answer and answer.words:
        parts.append(f'<p class="words">{esc(answer.words)}</p>')
    elif wait:
        parts.append(f'<p class="aside" role="status">{esc(_waits(wait, language))}</p>')
    if answer and answer.error:
        sentence = translate(language, answer.error)
        parts.append(f'<p class="fault" role="alert">{esc(sentence)}</p>')
    elif not (answer and answer.words) and not wait:
        key = "no_answer" if answer else "not_asked"
        parts.append(f'<p class="aside">{esc(say(language, key))}</p>')
    return "".join(parts)


def _waits(wait: Waiting, language: str) -> str:
    if wait.run:
        return say(language, "run_has_memory", run=wait.run)
    return say(language, "before_you", n=wait.before) if wait.before else say(language, "thinking")
