"""EvoLLM Studio: evolve merges of language models, look inside, talk to the result, take it home.

``import studio`` is cheap: torch and transformers load when a function first needs them. The steps
a user takes (list models, evolve, resume, evaluate, merge, export) are functions of ``studio.api``.
"""

__version__ = "0.1.0"
