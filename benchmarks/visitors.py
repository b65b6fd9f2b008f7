"""Twenty visitors while a run goes on: how long an action takes that needs no model.

    python benchmarks/visitors.py [--visitors 20] [--seconds 30]

Starts a public Studio in a workspace of its own and has twenty visitors open the page, poll the
sample run and read questions, over HTTP as browsers do, about a second apart: first alone, then
while the bundled quick recipe evolves. Prints a table and writes benchmarks/results/visitors.md.
"""

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

from publish import machine, publish

from studio import api
from studio.recipe import Recipe
from studio.runs import Store
from studio.visitors import owner_of
from tests.ui.browser.calling import Caller
from tests.ui.browser.conftest import served

ROOT = Path(__file__).resolve().parent.parent
#: Seconds between two actions of a visitor: a page polls every second.
PAUSE = (0.5, 1.5)
#: Handlers of the page that open no model, by name, and what visitors call them.
ACTIONS = {
    "enter": "open the page",
    "watch": "poll the watched run",
    "read": "read a question's answers",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), STUDIO_PUBLIC="1") as address,
    ):
        store = Store(Path(folder) / "runs.sqlite")
        measured = {"no run": measure(address, given.visitors, given.seconds)}
        recipe = Recipe.load(ROOT / "recipes" / "quick.yaml")
        os.environ["STUDIO_WORKSPACE"] = folder
        run = api.start(recipe, store, owner=owner_of("token", "r" * 40))
        while api.progress(run, store).done < 4:
            time.sleep(0.5)
        measured["a run at work"] = measure(address, given.visitors, given.seconds)
        state = api.progress(run, store).state
        assert state == "running", f"the run is {state}: give fewer seconds"
        api.pause(run, store)
        while api.progress(run, store).state != "stopped":
            time.sleep(0.2)
        store.close()
    publish("visitors", _table(measured, given.visitors))


def measure(address: str, visitors: int, seconds: float) -> dict[str, list[float]]:
    """Seconds that each action took, by handler."""
    took: dict[str, list[float]] = {}
    lock, until = threading.Lock(), time.monotonic() + seconds
    sample = api.bundled_runs()[0]

    def visit(number: int) -> None:
        chance = random.Random(number)
        caller = Caller(address, f"visitor-{number:04d}".ljust(40, "x"))
        handlers = {h.get("api_name") or "": h for h in caller.handlers}
        names = [name for name in ACTIONS if name in handlers]
        while time.monotonic() < until:
            name = chance.choice(names)
            handler = handlers[name]
            start = time.perf_counter()
            caller.call(handler, caller.values(handler, sample, "jmath", ""), None)
            with lock:
                took.setdefault(name, []).append(time.perf_counter() - start)
            time.sleep(chance.uniform(*PAUSE))

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def _table(measured: dict[str, dict[str, list[float]]], visitors: int) -> list[str]:
    rows = [
        f"{visitors} visitors; seconds",
        "",
        "| | action | calls | median | 95 % | slowest |",
        "|---|---|---|---|---|---|",
    ]
    for what, took in measured.items():
        for name, seconds in took.items():
            high = statistics.quantiles(seconds, n=20)[-1]
            rows.append(
                f"| {what} | {ACTIONS[name]} | {len(seconds)} | {statistics.median(seconds):.2f} "
                f"| {high:.2f} | {max(seconds):.2f} |"
            )
    return [*rows, "", f"({machine()})"]


if __name__ == "__main__":
    main()
