"""The sentences that the rooms can say, found by reading their source: what must be translated.

Knows Python's syntax tree and how this project writes its sentences: an f-string, pieces joined by
``+``, one or another, a name bound to one of these, a function that returns one. Refuses to run
any of the code that it reads, and to know a language.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path

ROOMS = ("studio", "vlm")
#: Exceptions, and Gradio's toasts, whose first argument people read.
SPOKEN = {"StudioError", "Warning", "Info", "Error"}
#: Arguments by name that are recorded and shown: why a candidate counts as zero.
SHOWN = {"broken"}
#: Rooms whose plain ValueErrors become part of a StudioError.
WRAPPED = {"studio/recipe.py"}
#: Of one sentence's forms, so that a slip in the source cannot make this run for ever.
MOST = 64

Part = str | ast.expr
Form = tuple[Part, ...]


@dataclass
class _Source:
    """The parsed rooms, and where each function is called from."""

    trees: dict[str, ast.Module] = field(default_factory=dict)
    functions: dict[str, list[ast.FunctionDef]] = field(default_factory=lambda: defaultdict(list))
    #: The class of a function, and its file's name: what it is called by from elsewhere.
    homes: dict[ast.FunctionDef, tuple[str, ...]] = field(default_factory=dict)
    calls: dict[str, list[ast.Call]] = field(default_factory=lambda: defaultdict(list))
    #: The functions around a node, the inner first; a module is the last.
    around: dict[ast.AST, tuple[ast.AST, ...]] = field(default_factory=dict)
    #: What each name of a function or module is set to; nothing where that is no expression.
    bound: dict[ast.AST, dict[str, list[ast.expr]]] = field(default_factory=dict)


def sentences(root: Path) -> dict[str, str]:
    """Every template that the rooms under `root` can say: the template → 'file:line'.

    ``{0}``, ``{1}``, … stand for values, in order; the same value twice has the same number.
    Phrases that a sentence takes as a value (what a helper returns or a caller passes) are
    templates of their own.
    """
    source = _read(root)
    said: dict[str, str] = {}
    reader = _Reader(source, said)
    own = set[str]().union(*map(_own_exceptions, source.trees.values()))
    for file, tree in source.trees.items():
        spoken = SPOKEN | own | ({"ValueError"} if file in WRAPPED else set())
        for call in _all(tree, ast.Call):
            if _name(call.func) in spoken and call.args:
                reader.say(call.args[0], f"{file}:{call.lineno}")
            for keyword in call.keywords:
                if keyword.arg in SHOWN:
                    reader.say(keyword.value, f"{file}:{call.lineno}")
    return said


def template(form: Form) -> str:
    """A sentence with its values as ``{0}``, ``{1}``, …"""
    numbers: dict[str, int] = {}
    return "".join(
        part
        if isinstance(part, str)
        else f"{{{numbers.setdefault(ast.unparse(part), len(numbers))}}}"
        for part in form
    )


class _Reader:
    """Spells expressions out; what it meets on the way is said under where it was met."""

    def __init__(self, source: _Source, said: dict[str, str]):
        self.source, self.said = source, said
        self._seen: set[tuple[ast.AST, str]] = set()
        self._within: list[ast.AST] = []
        #: Names known not to be empty where the reader is.
        self._some: list[str] = []

    def say(self, node: ast.expr, place: str) -> None:
        """Record all forms of an expression, and the phrases among its values."""
        for form in islice(self._spread(self.forms(node)), MOST):
            if form and not (len(form) == 1 and isinstance(form[0], ast.expr)):
                self.said.setdefault(template(form), place)
            for part in form:
                if not isinstance(part, str):
                    self._phrases(part, place)

    def forms(self, node: ast.expr) -> Iterator[Form]:
        """All ways an expression can come out: literal text, and the expressions of values."""
        match node:
            case ast.Constant(value=str(text)):
                yield (text,) if text else ()
            case ast.JoinedStr():
                yield from self._joined(node.values)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                yield from self.forms(value)
            case ast.FormattedValue():
                yield (node,)
            case ast.BinOp(op=ast.Add()):
                yield from self._or_value(node, self._joined([node.left, node.right]))
            case ast.IfExp() | ast.BoolOp(op=ast.Or()):
                choices = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
                some = isinstance(node, ast.IfExp) and isinstance(node.test, ast.Name)
                self._some = [*self._some, node.test.id if some else ""]
                forms = [form for choice in choices for form in self.forms(choice)]
                self._some = self._some[:-1]
                yield from self._or_value(node, forms)
            case ast.NamedExpr():
                yield from self.forms(node.value)
            case ast.Name() if node not in self._within:
                self._within.append(node)
                forms = [form for value in self._bound(node) for form in self.forms(value)]
                self._within.remove(node)
                if node.id in self._some:  # `f", {what}" if what else ""`
                    forms = [form for form in forms if form]
                yield from self._or_value(node, forms)
            case _:
                yield (node,)

    def _or_value(self, node: ast.expr, forms: Iterable[Form]) -> list[Form]:
        """The forms, if they say something; else the expression itself, a value."""
        forms = list(islice(forms, MOST))
        return forms if any(map(_literal, forms)) else [(node,)]

    def _joined(self, nodes: list[ast.expr]) -> Iterator[Form]:
        for parts in product(*(list(self.forms(node)) for node in nodes)):
            yield _merged(part for form in parts for part in form)

    def _spread(self, forms: Iterable[Form]) -> Iterator[Form]:
        """The forms, with phrases in place of values that run into another value.

        Nobody could tell where the one ends and the other begins.
        """
        for form in forms:
            for at, value in enumerate(form):
                if isinstance(value, str) or not _runs_on(form, at):
                    continue
                phrases = list(self._alternatives(value))
                if any(map(_literal, phrases)):
                    whole = ((*form[:at], *phrase, *form[at + 1 :]) for phrase in phrases)
                    yield from self._spread(map(_merged, whole))
                    break
            else:
                yield form

    def _alternatives(self, value: ast.expr) -> Iterator[Form]:
        """The forms of what callers pass as a parameter, or of what a name is picked from."""
        match value:
            case ast.Name():
                for given in (*self._bound(value), *self._arguments(value)):
                    forms = list(islice(self.forms(given), MOST))
                    if forms == [(given,)] and given is not value:
                        yield from self._alternatives(given)
                    else:
                        yield from forms
            case ast.Call(func=ast.Name(id="next"), args=[choices, *other]):
                for choice in (*_elements(choices), *other):
                    yield from self.forms(choice)

    def _bound(self, name: ast.Name) -> Iterable[ast.expr]:
        """What a name is set to in the function around it, or in the module."""
        for scope in self.source.around.get(name, ()):
            if name.id in self.source.bound[scope]:
                return self.source.bound[scope][name.id]
        return []

    def _phrases(self, value: ast.expr, place: str) -> None:
        """Say what is literal text in a value: a parameter's arguments, a function's returns."""
        if (value, place) in self._seen:
            return
        self._seen.add((value, place))
        match value:
            case ast.Name():
                for given in (*self._bound(value), *self._arguments(value)):
                    self._phrase(given, place)
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)):
                if called in ("join", "next"):
                    for part in (*_elements(value.args[0]), *value.args[1:]):
                        self._phrase(part, place)
                for function in self._called(value):
                    for returned in _all(function, (ast.Return, ast.Yield, ast.YieldFrom)):
                        if returned.value is not None:
                            self._phrase(returned.value, place)
            case ast.Subscript(value=ast.Name() as table):
                for row in (row for found in self._bound(table) for row in _rows(found)):
                    self._phrase(row, place)
                self._phrases(table, place)
            case ast.FormattedValue(value=inner) | ast.Subscript(value=inner):
                self._phrases(inner, place)

    def _phrase(self, node: ast.expr, place: str) -> None:
        forms = list(islice(self.forms(node), MOST))
        if any(map(_phrased, forms)):
            self.say(node, place)
        for form in forms:
            for part in form:
                if not isinstance(part, str):
                    self._phrases(part, place)

    def _called(self, call: ast.Call) -> list[ast.FunctionDef]:
        """The functions that a call can mean: of its own file first, else the only one so named."""
        found = self.source.functions.get(_name(call.func), [])
        module = self.source.around[call][-1]
        of = _name(call.func.value) if isinstance(call.func, ast.Attribute) else "self"
        if of in ("self", "cls"):
            own = [one for one in found if self.source.around[one][-1] is module]
        else:
            own = [one for one in found if of in self.source.homes[one]]
        return own or (found if len(found) == 1 and not found[0].name.startswith("__") else [])

    def _arguments(self, name: ast.Name) -> Iterator[ast.expr]:
        """What callers pass as a parameter."""
        for scope in self.source.around.get(name, ()):
            if not isinstance(scope, ast.FunctionDef):
                continue
            names = _parameters(scope)
            if name.id not in names:
                continue
            at = names.index(name.id)
            if default := _default(scope, name.id):
                yield default
            bound = names[:1] in (["self"], ["cls"])
            for call in self.source.calls.get(scope.name, ()):
                if scope not in self._called(call):
                    continue
                keywords = {k.arg: k.value for k in call.keywords}
                if name.id in keywords:
                    yield keywords[name.id]
                elif 0 <= at - bound < len(call.args):
                    yield call.args[at - bound]
            return


def _runs_on(form: Form, at: int) -> bool:
    """Whether nothing but space parts the value there from another."""
    for step in (-1, 1):
        beside = [part for part in form[at + step :: step] if part != " "] if at + step >= 0 else []
        if beside and not isinstance(beside[0], str):
            return True
    return False


def _merged(parts: Iterable[Part]) -> Form:
    """A form without two texts, or an empty one, beside each other."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return tuple(merged)


def _literal(form: Form) -> bool:
    """Whether a form says something itself; a path put together of values does not."""
    return any(
        isinstance(part, str) and re.search(r"[A-Za-z]{2}|[:,;.] |[()]", part) for part in form
    )


def _phrased(form: Form) -> bool:
    """Whether a form has words that a reader reads: not a name, a key or markup."""
    text = "".join(part if isinstance(part, str) else "0" for part in form)
    return bool(re.search(r"[A-Za-z]{2}", text)) and " " in text.strip() and text[0] != "<"


def _read(root: Path) -> _Source:
    source = _Source()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"), file)
            source.trees[file] = tree
            _look(tree, (tree,), (path.stem,), source)
    return source


def _look(
    node: ast.AST, around: tuple[ast.AST, ...], homes: tuple[str, ...], source: _Source
) -> None:
    """Note where everything in a node is, and what it sets."""
    source.around[node] = around
    bound = source.bound.setdefault(around[0], {})
    match node:
        case ast.FunctionDef():
            source.functions[node.name].append(node)
            source.homes[node] = homes
            around = (node, *around)
            source.bound[node] = {name: [] for name in _parameters(node)}
        case ast.ClassDef():
            homes = (node.name, *homes)
        case ast.Call():
            source.calls[_name(node.func)].append(node)
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            for name, value in zip(names, values, strict=False):
                bound.setdefault(_name(name), []).append(value)
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Subscript() as value):
            for name in names:
                bound.setdefault(_name(name), []).append(value)
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.NamedExpr(target=ast.Name(id=name), value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            bound.setdefault(name, []).append(value)
        case ast.For(target=ast.Name(id=name), iter=ast.Call() as value):
            bound.setdefault(name, []).append(value)
        case ast.Name(id=name, ctx=ast.Store()):
            bound.setdefault(name, [])
    for child in ast.iter_child_nodes(node):
        _look(child, around, homes, source)


def _own_exceptions(tree: ast.Module) -> set[str]:
    """Exceptions that a room defines for itself: their words end in a StudioError's."""
    return {
        node.name
        for node in _all(tree, ast.ClassDef)
        if any(_name(base).endswith(("Exception", "Error")) for base in node.bases)
    }


def _parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    return [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]


def _default(function: ast.FunctionDef, name: str) -> ast.expr | None:
    given = function.args
    ordered = [a.arg for a in [*given.posonlyargs, *given.args]]
    late = dict(zip(reversed(ordered), reversed(given.defaults), strict=False))
    late |= {a.arg: value for a, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)}
    return late.get(name)


def _elements(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return elements
        case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
            return [element]
    return []


def _rows(table: ast.expr) -> list[ast.expr]:
    """The texts that a literal table has as values, alone or in tuples."""
    values = table.values if isinstance(table, ast.Dict) else []
    return [text for value in values for text in _elements(value) or [value]]


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _all(tree: ast.AST, kind: type | tuple[type, ...]) -> Iterator:
    return (node for node in ast.walk(tree) if isinstance(node, kind))
