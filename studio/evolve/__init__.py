"""Evolution: optimizers, evaluation and the loop that joins them to a run's record."""
