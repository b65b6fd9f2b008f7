"""Spaces from recipes: what the pool of a path is made of."""

from studio.evolve import spaces


def test_two_searches_that_found_the_same_merge_lend_its_layers_once(tiny_recipe):
    csv = tiny_recipe().model_dump()["objectives"][0]
    recipe = tiny_recipe(
        space={"type": "both", "data_flow": {"repeats": 1}},
        objectives=[csv, csv],
        search={"scheme": "paper", "random_baseline": False},
    )
    models = spaces.open_models(recipe)
    first, second, last = recipe.stages()
    merging = spaces.build_space(recipe, first, models)
    genomes = {first.name: merging.initial, second.name: merging.initial}

    def pool():
        winners = {n: merging.checkpoint(g, "fp32", n) for n, g in genomes.items()}
        return [source.name for source in spaces.build_space(recipe, last, models, winners).sources]

    assert pool() == [first.name, *recipe.sources]
    genomes[second.name] = merging.initial * 0.9
    assert pool() == [first.name, second.name, *recipe.sources]
