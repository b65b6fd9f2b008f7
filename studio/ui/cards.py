"""Models as the page shows them: cards to choose from, what fits together, the memory it takes.

Takes what `studio.models.search` and `studio.api` say, and returns escaped HTML. Knows no Gradio.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from studio.models.licences import judge
from studio.models.search import Found
from studio.ui.markup import esc
from studio.ui.sentences import translate
from studio.ui.strings import say


def shelf(models: Iterable[Found], base: str, sources: Sequence[str], language: str) -> str:
    """Cards with two toggles each, whose buttons carry ``data-role`` and ``data-name``.

    Args:
        base, sources: what is chosen already.
    """
    cards = "".join(_choice(model, base, sources, language) for model in models)
    return f'<ul class="es-shelf">{cards}</ul>' if cards else ""


def _choice(model: Found, base: str, sources: Sequence[str], language: str) -> str:
    """One model that can be chosen."""
    facts = {
        "architecture": _kind(model.architecture or ""),
        "parameters": f"{model.parameters / 1e6:,.1f} M" if model.parameters else "",
        "size": size_of(model.size) if model.size else "",
        "length": f"{model.layers}" if model.layers else "",
        "licence": model.licence or say(language, "not_stated"),
        "downloads": f"{model.downloads:,}" if model.downloads is not None else "",
    }
    cells = "".join(
        f"<div><dt>{esc(say(language, key))}</dt><dd>{esc(value)}</dd></div>"
        for key, value in facts.items()
        if value
    )
    marks = [say(language, f"place_{model.place}")]
    marks += [model.kind.upper()] if model.kind == "gguf" else []
    if model.kind == "adapter":
        marks.append(say(language, "adapter_on", base=model.base or "?"))
    marks += [say(language, "sees")] if model.sees else []
    marks += [say(language, "gated")] if model.gated else []
    fault = ""
    if model.fault:
        fault = f'<p class="no">{esc(translate(language, model.fault))}</p>'
    toggles = (("base", model.name == base), ("source", model.name in sources))
    buttons = "".join(_toggle(role, model.name, on, language) for role, on in toggles)
    return (
        f'<li class="es-card"><header><b title="{esc(model.name)}">{esc(called(model.name))}</b>'
        f"<span>{esc(' · '.join(marks))}</span></header><dl>{cells}</dl>{fault}"
        f'<div class="pick">{buttons}</div></li>'
    )


def _kind(architecture: str) -> str:
    """An architecture without what all of its class are called."""
    return architecture.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration")


def _toggle(role: str, name: str, on: bool, language: str) -> str:
    said = say(language, f"as_{role}")
    return (
        f'<button type="button" data-role="{role}" data-name="{esc(name)}" '
        f'aria-pressed="{str(on).lower()}" aria-label="{esc(said)}: {esc(name)}">'
        f"{esc(said)}</button>"
    )


def chosen(base: str, sources: Sequence[str], language: str) -> str:
    """What is chosen, each with a button that takes it away again."""

    def item(role: str, name: str) -> str:
        return (
            f'<li><span class="role">{esc(say(language, f"role_{role}"))}</span>'
            f'<b title="{esc(name)}">{esc(called(name))}</b>'
            f'<button type="button" data-role="{role}" data-name="{esc(name)}" '
            f'aria-label="{esc(say(language, "take_away", name=name))}">×</button></li>'
        )

    items = [item("base", base)] if base else []
    items += [item("source", name) for name in sources]
    hint = ""
    if not base or not sources:
        hint = f'<p class="note">{esc(say(language, "choose_base" if sources else "choose"))}</p>'
    return f'<ul class="es-chosen">{"".join(items)}</ul>{hint}'


def called(name: str) -> str:
    """A name as short as it can be told: of a path, its last part."""
    return Path(name).name if name.startswith(("/", "~")) or "\\" in name else name


def size_of(size: float) -> str:
    """Bytes as people read them.

    >>> size_of(7_674_240), size_of(14_480_000_000)
    ('7.7 MB', '14.48 GB')
    """
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def card(one: dict[str, Any], language: str) -> str:
    """One model, or why it cannot be opened."""
    role = esc(say(language, f"role_{one['role']}"))
    on = f" · LoRA + {esc(one['base'])}" if one.get("base") else ""
    head = f"<header><b>{esc(one['name'])}</b> <span>{role}{on}</span></header>"
    if one.get("error"):
        why = esc(translate(language, one["error"]))
        return f'<section class="es-model">{head}<p class="no">{why}</p></section>'
    quantized = f"{one['stored']} → " if one["kind"] == "gguf" else ""
    tied = say(language, "tied") if one["tied"] else ""
    facts = {
        "architecture": _kind(one["architecture"]),
        "length": one["layers"],
        "hidden": f"{one['hidden']:,}",
        "vocabulary": f"{one['vocab']:,}",
        "parameters": f"{one['parameters'] / 1e6:,.1f} M {tied}",
        "dtype": f"{quantized}{one['dtype']}",
        "size": size_of(one["size"]),
        "vision": _kind(one.get("vision") or ""),
        "licence": one["licence"] or say(language, "not_stated"),
    }
    cells = "".join(
        f"<div><dt>{esc(say(language, key))}</dt><dd>{esc(value)}</dd></div>"
        for key, value in facts.items()
        if key != "vision" or value  # a language model sees with nothing
    )
    fits = ""
    if one.get("fits"):
        fits = f'<p class="yes">✓ {esc(say(language, "fits"))}</p>'
    elif one.get("why"):
        fits = f'<p class="no">✗ {esc(translate(language, one["why"]))}</p>'
    return f'<section class="es-model">{head}<dl>{cells}</dl>{fits}</section>'


def licence(models: Sequence[dict[str, Any]], language: str) -> str:
    """What the licences of all models make of their merge; nothing, where one cannot be opened."""
    if not models or any(one.get("error") for one in models):
        return ""
    verdict = judge({one["name"]: one["licence"] for one in models})
    names = ", ".join(verdict.because or verdict.silent)
    head, said = (
        say(language, "licence_of_merge"),
        say(language, f"licence_{verdict.kind}", names=names),
    )
    return f'<p class="es-merged">{esc(head)}: {esc(said)}</p>'


def memory_table(rows: Sequence[dict[str, Any]], language: str) -> str:
    """What the recipe takes at each precision."""
    body = "".join(
        f'<tr><th scope="row">{esc(row["precision"])}</th>'
        f'<td class="number">{row["bytes"] / 1e9:,.2f} GB</td>'
        f'<td class="number">{esc(row["batch"] or say(language, "does_not_fit"))}</td></tr>'
        for row in rows
    )
    head = "".join(
        f'<th scope="col"{extra}>{esc(say(language, key))}</th>'
        for key, extra in (
            ("precision", ""),
            ("memory", ' class="number"'),
            ("at_a_time", ' class="number"'),
        )
    )
    return (
        f'<figure class="es-figure"><figcaption>{esc(say(language, "memory_here"))}</figcaption>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></figure>"
    )
