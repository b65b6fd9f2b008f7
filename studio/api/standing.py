"""How a search's best compares, as far as it is: with the sources and with random search."""

from typing import Any

from studio.api.reading import scores_of
from studio.recipe import PROPERTIES, Recipe
from studio.runs import Candidate, Store


def standing(run: str, store: Store | None = None) -> list[dict[str, Any]]:
    """Scores on the search's questions, the best candidate's last; empty before any is scored.

    The best was chosen on these very questions, so that it looks better than it is; the report on
    the test questions (`studio.api.report`) is what counts in the end.

    Returns:
        rows as :func:`studio.api.report` gives, of the roles base, source, random and evolved,
        with 95 % intervals over the questions that each was asked.
    """
    store = store or Store()
    record = store.run(run)
    recipe = Recipe.from_yaml(record.recipe)
    tasks = [name for name in recipe.objective_names() if name not in PROPERTIES]
    rows = [
        scores_of(found, name := found.subject.partition(":")[2], _role(name, recipe))
        for found in store.evaluations(record.id, "dev")
        if found.subject.startswith("model:") and found.task in tasks
    ]
    for role, candidate in leaders(record.id, recipe, store).items():
        for task in tasks:
            found = store.evaluation(record.id, f"candidate:{candidate.id}", task, "dev")
            if found is not None and found.outcomes:
                rows.append(scores_of(found, f"#{candidate.id}", role))
    return rows


def leaders(run: str, recipe: Recipe, store: Store) -> dict[str, Candidate]:
    """The best candidate of random search and of the search itself, by role, where there is one."""
    random = {stage.name for stage in recipe.stages() if stage.baseline and stage.final}
    best = {
        "random": next((c for c in store.ranked(run) if c.stage in random), None),
        "evolved": store.best(run),
    }
    return {role: candidate for role, candidate in best.items() if candidate is not None}


def _role(name: str, recipe: Recipe) -> str:
    return "base" if name == recipe.base else "source"
