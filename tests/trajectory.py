"""What two runs of one recipe must have in common, however often one of them was interrupted."""

DECISIONS = ("ask", "tell", "favorite", "winner")


def trajectory(store, run: str) -> dict:
    """Everything asked, told, decided and answered, in order; no times, no sessions."""
    return {
        "decisions": [
            (event.kind, event.payload) for event in store.events(run) if event.kind in DECISIONS
        ],
        "candidates": [
            (c.id, c.stage, c.generation, c.genome.tobytes(), c.score, c.broken)
            for c in store.candidates(run)
        ],
        "answers": {
            key: [(o.example, o.score, o.response, o.details, o.tokens) for o in found.outcomes]
            for key in sorted(recorded(store, run))
            if (found := store.evaluation(run, *key))
        },
    }


def recorded(store, run: str) -> dict[tuple[str, str, str], float]:
    """(subject, task, split) → when it was recorded, of every evaluation."""
    rows = store._rows("SELECT subject, task, split, at FROM evaluations WHERE run = ?", run)
    return {(row["subject"], row["task"], row["split"]): row["at"] for row in rows}
