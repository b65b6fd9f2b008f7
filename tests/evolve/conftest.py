"""A recipe that is searched by generations whoever works on it, and what one process makes of it.

Modules that test other recipes have fixtures of their own by these names.
"""

import pytest

from studio import api
from studio.runs import Store


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """The tiny recipe, generation by generation however many work on it."""
    return tiny_recipe(search={"population": 4, "finalists": 2, "asynchronous": False})


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """(store, run) of the recipe, all of it in this process."""
    store = Store(tmp_path_factory.mktemp("whole") / "runs.sqlite")
    return store, api.evolve(recipe, store)
