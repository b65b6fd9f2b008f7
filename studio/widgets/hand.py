"""Merging by hand: a slider per source and layer group, and a model that follows as they move.

Knows a live model and a handful of questions. Refuses to search: that is what evolution is for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np

from studio.api.recipes import as_recipe
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs.records import Evaluation
from studio.runs.store import Store
from studio.ui import words
from studio.ui.markup import esc
from studio.ui.strings import say
from studio.widgets.answers import Answers
from studio.widgets.looks import Box, wrapped
from studio.widgets.worker import Check, Newest

if TYPE_CHECKING:
    from studio.merge.parameter_space import Gene

#: What the merge is called among its sources.
MERGE = "merge"


class MergeByHand(Box):
    """Sliders that merge as they move.

    Every move makes a candidate: the live model takes it on, answers the open question, then all of
    ``examples`` questions for a quick score. A newer move leaves the older one's questions off.

    Args:
        recipe: of a parameter space; its first task asks, on dev questions.
        examples: how many questions the quick score is of.
        store: where the runs are, if a source is a run's candidate; by default the workspace's.
        language: "en", "ja" or "zh".

    Attributes:
        sliders: (group, source) → its weight's slider; of slerp, source is None.
        density: the slider of all densities, or None where the method has none.
        live: the model that takes on what the sliders say.
        genome: float64 ``[d]``, what they say now.
        score: of the merge on the questions, in [0, 1], or None while it is not known.
        tried: (genome, score) of every merge that was scored, in order.

    Raises:
        StudioError: the recipe cannot be carried out, or has no weights to be moved.

    Example:
        >>> hand = MergeByHand("recipes/quick.yaml")  # doctest: +SKIP
        >>> hand.move(1.2, source="bonsai-math").wait()  # doctest: +SKIP
        0.25
    """

    def __init__(
        self,
        recipe: Recipe | str | Path,
        *,
        examples: int = 24,
        store: Store | None = None,
        language: str = "en",
    ):
        from studio.evolve.spaces import first_space

        recipe = as_recipe(recipe)
        if recipe.stages()[0].space.type != "parameter":
            raise StudioError(
                "A path has no weights to move by hand; give the recipe a parameter space."
            )
        self._recipe, self._language = recipe, language
        self._task = recipe.build_tasks()[0]
        self._examples = self._task.examples("dev")[:examples]
        self.space = first_space(recipe, store)
        self.live = self.space.live(recipe.precision, recipe.base_storage)
        self.score: float | None = None
        self.tried: list[tuple[np.ndarray, float]] = []
        self._said: dict[str, Evaluation] = {}
        self._moving = False
        self._worker = Newest(self._merge, self._say)
        self._sources: list[str] = [model.name for model in self.space.models]
        self._note = widgets.HTML()
        self.answers = Answers({}, self._examples, metric=self._task.metric, language=language)
        self.stop_button = widgets.Button(
            description=say(language, "stop"), layout=widgets.Layout(width="auto")
        )
        self.stop_button.on_click(lambda _: self.stop())
        super().__init__(
            [self._laid_out(), widgets.HBox([self.stop_button, self._note]), self.answers]
        )
        self._wish()

    @property
    def genome(self) -> np.ndarray:
        genome = self.space.initial.copy()
        for index, gene in enumerate(self.space.genes):
            if gene.kind == "density":
                genome[index] = self.density.value
            else:
                genome[index] = self.sliders[_place(gene), gene.source].value
        return genome

    def move(
        self, value: float, *, source: str | None = None, group: str | None = None
    ) -> "MergeByHand":
        """Move the sliders of a source, of a group, of both or all, as a hand would; at once.

        Raises:
            StudioError: there is no such slider.
        """
        chosen = [
            slider
            for (place, name), slider in self.sliders.items()
            if source in (None, name) and group in (None, place)
        ]
        if not chosen:
            groups = ", ".join(dict.fromkeys(place for place, _ in self.sliders))
            raise StudioError(
                f"There is no slider of {source or 'any source'} in {group or 'any group'}; the "
                f"groups are {groups}, the sources {', '.join(self._recipe.sources)}."
            )
        self._moving = True  # one merge of all moves, not one of each
        try:
            for slider in chosen:
                slider.value = value
        finally:
            self._moving = False
        self._wish()
        return self

    def take(self, genome: Sequence[float] | np.ndarray) -> "MergeByHand":
        """Move all sliders to what a genome says (densities to their mean); returns at once."""
        genome = self.space.check(np.asarray(genome, dtype=np.float64))
        self._moving = True
        try:
            for index, gene in enumerate(self.space.genes):
                if gene.kind != "density":
                    self.sliders[_place(gene), gene.source].value = float(genome[index])
            dense = [
                x for x, g in zip(genome, self.space.genes, strict=True) if g.kind == "density"
            ]
            if dense:
                self.density.value = float(np.mean(dense))
        finally:
            self._moving = False
        self._wish()
        return self

    def wait(self, seconds: float | None = None) -> float | None:
        """Block until the last move is answered and scored; returns its score."""
        self._worker.wait(seconds)
        return self.score

    def stop(self) -> None:
        """Leave the questions off before the next token."""
        self._worker.stop()

    def _laid_out(self) -> widgets.Widget:
        """A grid of sliders: a row per layer group, a column per source."""
        genes = [gene for gene in self.space.genes if gene.kind != "density"]
        columns = list(dict.fromkeys(gene.source for gene in genes))
        groups = list(dict.fromkeys(map(_place, genes)))
        self.sliders = {
            (_place(gene), gene.source): self._slider(gene.low, gene.high) for gene in genes
        }
        cells: list[widgets.Widget] = [widgets.Label("")]
        cells += [widgets.Label(column or "t") for column in columns]
        for group in groups:
            cells.append(widgets.Label(group))
            cells += [self.sliders.get((group, c), widgets.Label("–")) for c in columns]
        grid = widgets.GridBox(
            cells,
            layout=widgets.Layout(
                grid_template_columns=f"110px repeat({len(columns)}, minmax(150px, 1fr))",
                max_width="960px",
            ),
        )
        self.density = None
        if any(gene.kind == "density" for gene in self.space.genes):
            self.density = self._slider(0.05, 1.0, say(self._language, "density"))
        return widgets.VBox([grid, *([self.density] if self.density else [])])

    def _slider(self, low: float, high: float, called: str = "") -> widgets.FloatSlider:
        slider = widgets.FloatSlider(
            value=0.5,
            min=low,
            max=high,
            step=0.01,
            description=called,
            continuous_update=True,
            readout_format=".2f",
            layout=widgets.Layout(width="98%"),
        )
        slider.observe(lambda _: self._wish(), "value")
        return slider

    def _wish(self) -> None:
        if not self._moving:
            self.score = None
            self._worker.give(self.genome)

    def _merge(self, genome: np.ndarray, check: Check) -> None:
        self._ask_sources(check)
        self.live.apply(genome)
        number = min(self.answers.number.value, len(self._examples))
        first = self._ask([self._examples[number - 1]], check)
        self.answers.peek(number, MERGE, first.outcomes[0])
        self._tell(say(self._language, "hand_scoring", n=len(self._examples)))
        whole = self._ask(self._examples, check)
        self.score = whole.score
        self.tried.append((genome, whole.score))
        self.answers.show({**self._said, MERGE: whole})
        best = max(score for _, score in self.tried)
        self._tell(
            say(
                self._language,
                "hand_scored",
                score=words.score(self._language, self._task.metric, whole.score),
                n=len(self._examples),
                best=words.score(self._language, self._task.metric, best),
                tried=len(self.tried),
            )
        )

    def _ask_sources(self, check: Check) -> None:
        """The models as they are, once, one at a time in memory."""
        from studio.evolve.evaluate import evaluate
        from studio.models.precision import default_device, dtype_of

        for model in self.space.models:
            if model.name in self._said:
                continue
            self._tell(say(self._language, "hand_sources", name=model.name))
            speaker = model.load(dtype_of("fp32"), default_device())
            self._said[model.name] = evaluate(
                speaker,
                model.tokenizer(),
                self._task,
                self._examples,
                subject=f"model:{model.name}",
                split="dev",
                batch_size=32,
                processor=model.processor(),
                on_token=check,
            )
            self.answers.show(self._said)

    def _ask(self, examples: list, check: Check) -> Evaluation:
        from studio.evolve.evaluate import evaluate

        return evaluate(
            self.live.model,
            self.live.tokenizer,
            self._task,
            examples,
            subject=MERGE,
            split="dev",
            batch_size=32,
            processor=self.live.processor,
            on_token=check,
        )

    def _tell(self, sentence: str) -> None:
        self._note.value = wrapped(f"<p>{esc(sentence)}</p>")

    def _say(self, sentence: str) -> None:
        self._note.value = wrapped(f'<p class="es-said">{esc(sentence)}</p>')


def _place(gene: "Gene") -> str:
    """The row of sliders that a gene is in."""
    return gene.group + (f" · {gene.filter}" if gene.filter else "")
