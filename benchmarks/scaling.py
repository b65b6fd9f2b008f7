"""The paper's budget on many GPUs: candidates per hour, and what becomes the bottleneck.

    pip install -e ".[cluster]"
    python benchmarks/scaling.py

What a candidate costs the driver is measured here: the round trip of one job to an actor of a Ray
cluster on this machine (an order for a 7B merge there, a thousand answers back), recording those
answers, the optimizer's share, and sending a source's files to a machine that lacks them. How much
candidates of one run differ in the tokens they generate is taken from the finished run that comes
with the Studio. What a GPU costs cannot be measured here: the figures in `GPU` are assumptions,
each with where it is from. A discrete-event simulation puts them together: one driver that does
one thing at a time, workers that merge and generate, and an optimizer that waits for whole
generations or is told as scores come. Prints Markdown and writes it to
benchmarks/results/scaling.md.
"""

import heapq
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray
from publish import machine, publish

from studio import api
from studio.evolve import optimizers, shipping
from studio.evolve.executors import Asked, Job
from studio.evolve.remote import Errand, versions
from studio.evolve.shipping import Bundle
from studio.runs import Evaluation, Outcome, Store

#: The paper's budget, and its models: Mistral-7B-v0.1 and three fine-tunes of it, in bf16.
TRIALS, PROBLEMS = 1000, 1069
PARAMETERS, LAYERS, SOURCES = 7.24e9, 32, 3
GENES = (LAYERS + 2) * SOURCES * 2  # a weight and a density per source and layer group
POPULATION = 4 + int(3 * math.log(GENES))  # CMA-ES's default, which the paper takes
#: Bytes of keys and values that a token leaves: 8 heads of 128 numbers, twice, in every layer.
KEPT = 2 * 8 * 128 * 2 * LAYERS
#: Tokens of a question with its instructions, and of an answer on average: MGSM-JA, step by step.
ASKED, SAID = 150, 220
BATCH = 256
GIGABYTE = 1e9

#: An H100 SXM in a server of eight. (value, where it is from)
GPU = {
    "memory, bytes a second": (3.35e12, "NVIDIA's data sheet"),
    "bf16, operations a second": (989e12, "NVIDIA's data sheet, dense"),
    "from the host, bytes a second": (55e9, "PCIe 5.0 x16: 64 GB/s, less a seventh"),
    "share of its memory's speed that a token gets": (0.30, "a guess: kernels launched one by one"),
    "share of its operations that a prompt gets": (0.40, "a guess"),
    "between servers, bytes a second": (3.1e9, "25 Gbit/s Ethernet"),
}


@dataclass(frozen=True)
class Costs:
    """Seconds.

    Attributes:
        merge: of a candidate on a worker; prompts: of reading all questions; answers: of generating
            all answers of an average candidate.
        dispatch: of a job's way there and back, during which the worker does nothing.
        driver: of what the driver does for a candidate and nobody else can.
        start: until the workers have their sources.
        varied: tokens of candidates, as a part of the average.
    """

    merge: float
    prompts: float
    answers: float
    dispatch: float
    driver: float
    start: float
    varied: tuple[float, ...]

    def candidate(self, random: np.random.Generator) -> float:
        """Seconds that a worker takes for one."""
        return self.merge + self.prompts + self.answers * random.choice(self.varied)


# ── measured here ─────────────────────────────────────────────────────────────────────────────


class Echo:
    """An actor that is done at once."""

    def __init__(self, evaluation: Evaluation):
        self.evaluation = evaluation

    def carry_out(self, errand: Errand) -> list:
        return [("ready", 0.0), ("done", 0, [self.evaluation])]


def median(work: Callable[[], object], times: int) -> tuple[float, float, float]:
    """Seconds: median, and the quarters around it."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(spent, n=4)
    return middle, low, high


def answers() -> Evaluation:
    """A candidate's evaluation as large as one of the paper's: what travels and is recorded."""
    random = np.random.default_rng(0)
    letters = np.array(list("あいうえおかきくけこさしすせそたちつてと1234567890、。 \n"))
    outcomes = tuple(
        Outcome(
            f"ja-{n}", float(n % 2), "".join(random.choice(letters, SAID)), {"parsed": "18"}, SAID
        )
        for n in range(PROBLEMS)
    )
    return Evaluation("candidate:0", "mgsm", "dev", 0.5, SAID * PROBLEMS, 40.0, "", outcomes)


def an_errand() -> Errand:
    recipe = (Path(__file__).parent.parent / "recipes" / "paper" / "evollm-jp-7b.yaml").read_text(
        "utf-8"
    )
    asked = (Asked("mgsm", "dev", range(PROBLEMS), "dev"),)
    job = Job("candidate:0", asked, "cma", np.random.default_rng(0).random(GENES))
    prints = {f"the model {n}": "0" * 32 for n in range(4)}
    return Errand("0123abcd", recipe, {}, {}, {}, BATCH, (job,), (), prints, versions())


def dispatched() -> tuple[float, float, float]:
    """A job's way to an actor and back."""
    actor = ray.remote(num_cpus=1, max_concurrency=2)(Echo).remote(answers())
    errand = an_errand()
    ray.get(actor.carry_out.remote(errand))
    return median(lambda: ray.get(actor.carry_out.remote(errand)), 40)


def recorded(folder: Path) -> tuple[float, float, float]:
    """A candidate's answers on their way into the store."""
    store, found, numbers = Store(folder / "runs.sqlite"), answers(), iter(range(10_000))
    run = store.create_run("scaling", "name: scaling")

    def record() -> None:
        store.record_evaluation(run, replace(found, subject=f"candidate:{next(numbers)}"))

    spent = median(record, 20)
    store.close()
    return spent


def asked_and_told() -> tuple[float, float, float]:
    """The optimizer's time for one candidate."""
    optimizer = optimizers.make(
        "cma", lower=np.zeros(GENES), upper=np.ones(GENES), initial=np.full(GENES, 0.5),
        binary=np.zeros(GENES, bool), population=POPULATION, sigma=0.2, seed=0, objectives=1,
        around=False,
    )  # fmt: skip

    def generation() -> None:
        optimizer.tell({n: -float(g @ g) for n, g in optimizer.ask(POPULATION)})

    spent = median(generation, 40)
    return tuple(seconds / POPULATION for seconds in spent)


class Taker:
    """An actor that keeps a bundle's files, as one on another machine would."""

    def take_in(self, folder: str, bundle: Bundle, pieces: dict) -> None:
        import os

        os.environ["STUDIO_WORKSPACE"] = folder
        shipping._same = lambda path, file: False
        shipping.take_in(bundle, lambda file: map(ray.get, pieces[file]))


def shipped(folder: Path) -> tuple[float, float, float]:
    """A gigabyte of a source through the object store, onto a disk: a quarter of one, measured."""
    source = folder / "source"
    source.mkdir()
    for part in range(4):
        (source / f"{part}.safetensors").write_bytes(np.random.default_rng(part).bytes(62_500_000))
    bundle = Bundle("source", str(source), shipping._model_files(source))
    spent = []
    taker = ray.remote(num_cpus=1)(Taker).remote()
    for number in range(4):  # the first of which loads what it needs
        start = time.perf_counter()
        pieces = {}
        for file in bundle.files:
            data = (source / file.name).read_bytes()
            at = range(0, len(data), shipping.PIECE)
            pieces[file] = [ray.put(data[n : n + shipping.PIECE]) for n in at]
        ray.get(taker.take_in.remote(str(folder / f"there-{number}"), bundle, pieces))
        spent.append(time.perf_counter() - start)
    spent = spent[1:]
    return 4 * statistics.median(spent), 4 * min(spent), 4 * max(spent)


def varied() -> tuple[float, ...]:
    """Tokens of the sample run's candidates, each as a part of their average."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "runs.sqlite")
        [run, *_] = store.import_runs(api.SAMPLE_RUN)
        tokens = [c.tokens for c in store.candidates(run, "cma") if c.tokens]
        store.close()
    return tuple(count / statistics.mean(tokens) for count in tokens)


# ── put together ──────────────────────────────────────────────────────────────────────────────


def reckoned(measured: dict[str, tuple[float, float, float]], spread: tuple[float, ...]) -> Costs:
    """A candidate's costs on the assumed GPU."""
    gpu = {name: value for name, (value, _) in GPU.items()}
    weights = 2 * PARAMETERS
    steps = PROBLEMS * SAID / BATCH
    read = weights + BATCH * (ASKED + SAID / 2) * KEPT
    speed = gpu["memory, bytes a second"] * gpu["share of its memory's speed that a token gets"]
    operations = (
        gpu["bf16, operations a second"] * gpu["share of its operations that a prompt gets"]
    )
    return Costs(
        # base and sources do not fit beside the merge and its cache: they come from the host
        merge=(SOURCES + 1) * weights / gpu["from the host, bytes a second"],
        prompts=2 * PARAMETERS * PROBLEMS * ASKED / operations,
        answers=steps * read / speed,
        dispatch=measured["dispatch"][0],
        driver=measured["record"][0] + measured["optimizer"][0],
        start=(SOURCES + 1)
        * max(
            weights / GIGABYTE * measured["transfer"][0],
            weights / gpu["between servers, bytes a second"],
        ),
        varied=spread,
    )


@dataclass
class Found:
    """What a simulation came to: hours, and parts of the time that all had."""

    hours: float
    busy: float
    driver: float


def simulate(costs: Costs, gpus: int, population: int | None, seed: int) -> Found:
    """One run.

    Args:
        population: candidates after which the optimizer is told; None if it is told each at once.
    """
    random = np.random.default_rng(seed)
    free = [costs.start] * gpus  # when each worker is
    heapq.heapify(free)
    coming: list[float] = []  # when what was given out is done
    now, driver, worked, given, told = 0.0, 0.0, 0.0, 0, 0
    while told < TRIALS:
        generation = TRIALS if population is None else (told // population + 1) * population
        while free and given < min(TRIALS, generation):
            begin = max(now, heapq.heappop(free)) + costs.dispatch
            spent = costs.candidate(random)
            heapq.heappush(coming, begin + spent)
            worked, given = worked + spent, given + 1
        done = heapq.heappop(coming)
        now = max(now, done) + costs.driver  # one thing at a time
        driver += costs.driver
        told += 1
        heapq.heappush(free, done)
    return Found(now / 3600, worked / (now * gpus), driver / now)


def row(costs: Costs, gpus: int, population: int | None) -> str:
    there = replace(costs, start=0.0)
    runs = [simulate(there, gpus, population, seed) for seed in range(9)]
    sent = statistics.median(simulate(costs, gpus, population, n).hours for n in range(9))
    hours = sorted(run.hours for run in runs)
    middle = statistics.median(hours)
    how = "as they come" if population is None else f"generations of {population}"
    return (
        f"| {gpus} | {how} | {TRIALS / middle:,.0f} | {middle:.2f} ({hours[0]:.2f} – "
        f"{hours[-1]:.2f}) | {100 * statistics.median(run.busy for run in runs):.0f} % | "
        f"{100 * statistics.median(run.driver for run in runs):.1f} % | {sent:.2f} |"
    )


def main() -> None:
    ray.init(address="local", num_cpus=2, object_store_memory=2 << 30, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = {
            "dispatch": dispatched(),
            "record": recorded(folder),
            "optimizer": asked_and_told(),
            "transfer": shipped(folder),
        }
    ray.shutdown()
    costs = reckoned(measured, varied())
    places = [(gpus, POPULATION) for gpus in (1, 8, 64)]
    places += [(64, 64)] + [(gpus, None) for gpus in (1, 8, 64)]
    publish("scaling", told(measured, costs, [row(costs, *place) for place in places]))


def told(
    measured: dict[str, tuple[float, float, float]], costs: Costs, rows: list[str]
) -> list[str]:
    """The result in words."""
    worker, tokens = costs.merge + costs.prompts + costs.answers, PROBLEMS * SAID
    words = {
        "dispatch": "a job to a Ray actor and back, its answers included",
        "record": f"recording {PROBLEMS:,} answers",
        "optimizer": f"CMA-ES of {GENES} genes, a candidate",
        "transfer": "a gigabyte of a source by way of the object store, to a disk",
    }
    lines = [
        f"The paper's budget: {TRIALS:,} candidates merged from a base and {SOURCES} sources of "
        f"7B, each asked {PROBLEMS:,} problems.",
        "",
        "| measured here | median | from – to |",
        "|---|---|---|",
    ]
    for key, spent in measured.items():
        middle, low, high = (1000 * seconds for seconds in spent)
        lines.append(f"| {words[key]} | {middle:,.1f} ms | {low:,.1f} – {high:,.1f} |")
    lines += ["", "| assumed, of a GPU | | from |", "|---|---|---|"]
    lines += [f"| {key} | {value:.3g} | {where} |" for key, (value, where) in GPU.items()]
    spread = costs.varied
    return [
        *lines,
        "",
        f"So a candidate takes a GPU {worker:.1f} s: {costs.merge:.1f} s for the merge, whose "
        f"sources come from the host, {costs.prompts:.1f} s for the prompts and "
        f"{costs.answers:.1f} s for {tokens:,} tokens in batches of {BATCH}, "
        f"{tokens / costs.answers:,.0f} tokens a second. Candidates differ in tokens as the "
        f"{len(spread)} of the sample run do: from {min(spread):.2f} to {max(spread):.2f} of the "
        f"average, with a standard deviation of {statistics.pstdev(spread):.2f}.",
        "",
        "| GPUs | told | candidates an hour | hours in all (nine seeds) | GPUs at work | driver "
        "| hours, sources sent |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "What becomes the bottleneck:",
        "",
        f"* The generation, where the optimizer waits for it. CMA-ES's default for {GENES} genes "
        f"is {POPULATION} candidates: no more GPUs than that are at work, and each waits for the "
        "slowest candidate. With as many candidates as GPUs only the latter is left. Told as they "
        "come, all work until the last candidates; what the optimizer loses by knowing less when "
        "it asks is not simulated.",
        f"* The sources' way, where no machine has them: {costs.start:,.0f} s before the first "
        "candidate at the speed measured here. On many GPUs that is longer than the search. There "
        "is none where each machine has them in its hub cache or on a disk that all share.",
        f"* Generating is {100 * costs.answers / worker:.0f} % of a GPU's time on any number of "
        "them: what counts is to generate fewer tokens (racing), or faster; merging hardly does.",
        f"* The driver takes {1000 * costs.driver:.0f} ms a candidate, which would keep more than "
        f"about {worker / costs.driver:,.0f} GPUs waiting. A job's way there and back is "
        f"{100 * costs.dispatch / worker:.2f} % of a GPU's time.",
        "",
        f"Measured on {machine()}, ray {ray.__version__}.",
    ]


if __name__ == "__main__":
    main()
