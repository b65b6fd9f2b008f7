"""lm_eval: any task of the lm-evaluation-harness, measured on a live model.

Data: https://github.com/EleutherAI/lm-evaluation-harness; each of its tasks names its dataset on
the hub. One instance, of ja_leaderboard_jcommonsenseqa (the paper's JP-LMEH is made of such):

    {"question": "電子機器で使用される最も主要な電子回路基板の事をなんと言う？",
     "choices": ["掲示板", "パソコン", "マザーボード", "ハードディスク", "まな板"], "label": 2}

The harness asks, in its own words and with its own worked examples, and scores, one example at a
time, so that a score is what the harness would report. Knows the harness; nothing of searching or
recording. Refuses to run code that comes with a definition or a dataset: the harness's own tasks
are trusted as installed, a user's are read as data (`studio.tasks.lm_eval_definition`), and
templates are rendered in a sandbox.

Search and report are kept apart. Where a task has validation and test examples, these are dev and
test. Where it has only one of them, a hash of the question puts each example into dev or test, the
same one always. Worked examples are drawn from the training examples as the task says; where it
would draw them from what is scored, it draws from dev. A prompt longer than the model reads loses
its beginning, as in the harness.
"""

import copy
import hashlib
import importlib.metadata
import importlib.util
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from studio.errors import StudioError
from studio.tasks import lm_eval_definition
from studio.tasks.base import Example, Measurement, Score, check_split

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: The seed of the harness's own command line for drawing worked examples.
FEWSHOT_SEED = 1234
#: What the harness generates at most where a task does not say.
MAX_NEW_TOKENS = 256
#: What this was written for; datasets before version 4 would run scripts that come with a dataset.
OLDEST = {"lm_eval": "0.4.12", "datasets": "4.0.0"}
#: Names of the harness and of `transformers` for the same limit, in the harness's order.
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class LMEval:
    """The harness's task ``name``.

    ``metric``: as the harness calls it, with its filter after a comma if there are several
    ("exact_match,flexible-extract"); the first that can be used when left out. ``path``: a folder
    with your own definition of the task, or the file. ``num_fewshot``: worked examples before each
    question; the task's own number when left out. ``chat``: whether to wrap the question in the
    model's chat template, where it has one; not, by default, as the harness's numbers are published
    without. ``max_new_tokens``: how long a generated answer may be; the task's own limit, or 256.
    ``per_example``: score each example alone by a task's own function that is meant for all of them
    together, such as the ROUGE-2 of ja_leaderboard_xlsum; their mean is near what the harness
    reports, not it.

    Raises:
        StudioError: the package is missing or an option is wrong; whether there is such a task, and
            its examples, is seen when they are asked for.
    """

    name = "lm_eval"
    max_new_tokens = 0

    def __init__(
        self,
        name: str,
        metric: str | None = None,
        path: str | Path | None = None,
        num_fewshot: int | None = None,
        chat: bool = False,
        max_new_tokens: int | None = None,
        per_example: bool = False,
    ):
        if not isinstance(name, str) or not name.strip():
            raise StudioError(f"name is {name!r}; write what the harness calls the task.")
        if metric is not None and not isinstance(metric, str):
            raise StudioError(f"metric is {metric!r}; write a metric's name, such as acc.")
        if path is not None and not isinstance(path, str | Path):
            raise StudioError(f"path is {path!r}; write the name of a folder.")
        for option, value, least in (
            ("num_fewshot", num_fewshot, 0),
            ("max_new_tokens", max_new_tokens, 1),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and value >= least):
                raise StudioError(f"{option} is {value!r}; write a whole number from {least}.")
        for option, value in (("chat", chat), ("per_example", per_example)):
            if not isinstance(value, bool):
                raise StudioError(f"{option} is {value!r}; write true or false.")
        for package in ("lm_eval", "datasets", "accelerate"):
            if importlib.util.find_spec(package) is None:
                raise StudioError(
                    f"The task lm_eval needs the package {package}, which is not installed; in the "
                    'Studio\'s folder, run: pip install -e ".[lm-eval]"'
                )
        self.task = name.strip()
        self.metric = metric or "the task's first metric"
        self.path = None if path is None else Path(path).expanduser()
        self.num_fewshot, self.chat, self.longest = num_fewshot, chat, max_new_tokens
        self._wanted, self._alone = metric, per_example
        self._tokenizers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    # ── examples ──────────────────────────────────────────────────────────────────────────────

    def examples(self, split: str) -> list[Example]:
        check_split(f"lm_eval {self.task}", split, ("dev", "test"))
        found = self._splits[split]
        _ = self._choice  # a task that cannot score says so before anything is asked
        if not found:
            raise StudioError(
                f"The lm_eval task {self.task} has too few examples to have a {split} split; "
                "add some, or choose another task."
            )
        return [example for example, _ in found]

    @cached_property
    def _splits(self) -> dict[str, list[tuple[Example, dict[str, Any]]]]:
        """Each split's examples with the harness's documents."""
        harness = self._harness
        config = harness.config
        validation, test = config.validation_split, config.test_split
        if validation is None and test is None:
            raise StudioError(
                f"The lm_eval task {self.task} has neither validation nor test examples to be "
                "measured on; choose another task."
            )
        with self._told("cannot show its examples"):
            if test is not None and validation not in (None, test):
                return {
                    "dev": self._pairs(validation, harness.validation_docs()),
                    "test": self._pairs(test, harness.test_docs()),
                }
            docs = harness.validation_docs() if test is None else harness.test_docs()
            halves: dict[str, list] = {"dev": [], "test": []}
            for example, doc in self._pairs(test or validation, docs):
                digest = hashlib.sha256(example.question.encode("utf-8", "replace")).digest()
                halves["dev" if digest[0] < 128 else "test"].append((example, doc))
            return halves

    def _pairs(self, source: str, docs: Sequence) -> list[tuple[Example, dict[str, Any]]]:
        return [(self._example(source, i, doc), doc) for i, doc in enumerate(docs)]

    def _example(self, source: str, index: int, doc: dict[str, Any]) -> Example:
        harness = self._harness
        choices = harness.doc_to_choice(doc) if harness.config.doc_to_choice is not None else []
        question, answer = harness.doc_to_text(doc), harness.doc_to_target(doc)
        if isinstance(question, int):  # the choices are beginnings, and the target their one end
            question, answer = f"{' / '.join(choices)} … {answer}", question
        right = [
            choices[one] if isinstance(one, int) and 0 <= one < len(choices) else str(one)
            for one in (answer if isinstance(answer, list) else [answer])
        ]
        meta = {"choices": list(choices)} if choices else {}
        question = str(question).strip() or " / ".join(map(str, choices))
        return Example(f"{source}-{index}", question, " / ".join(right), meta)

    # ── measuring ─────────────────────────────────────────────────────────────────────────────

    def measure(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        examples: list[Example],
        batch_size: int,
    ) -> list[Measurement]:
        metric, filtered_by = self._choice
        lm = self._lent(model, tokenizer, batch_size)
        with self._told("cannot put its questions"):
            asked = self._requests(lm, examples)
        by_kind: dict[str, list[Instance]] = defaultdict(list)
        for _, instances in asked:
            for instance in instances:
                by_kind[instance.request_type] += [instance] * instance.repeats
        for kind, instances in by_kind.items():
            with _no_limit_of_its_own(model):
                try:
                    responses = getattr(lm, kind)(instances, disable_tqdm=True)
                except AssertionError as error:
                    why = _first_line(error) or "an ending is empty, or longer than it can read"
                    raise self._unsuited(f"does not suit the model ({why})") from error
            for instance, response in zip(instances, responses, strict=True):
                instance.resps.append(response)
        with self._told("cannot score a response"):
            self._harness._instances = [one for _, instances in asked for one in instances]
            self._harness.apply_filters()
            return [
                self._measurement(lm, doc, instances, metric, filtered_by)
                for doc, instances in asked
            ]

    def _lent(self, model, tokenizer, batch_size: int) -> "HFLM":
        """The model as the harness speaks to it, and a tokenizer that may be given a padding."""
        from lm_eval.models.huggingface import HFLM

        if tokenizer not in self._tokenizers:
            self._tokenizers[tokenizer] = copy.deepcopy(tokenizer)
        own = self._tokenizers[tokenizer]
        lm = HFLM(pretrained=model, backend="causal", tokenizer=own, batch_size=batch_size)
        if self._longest >= lm.max_length:
            raise StudioError(
                f"The lm_eval task {self.task} lets an answer take {self._longest} tokens, and the "
                f"model reads no more than {lm.max_length}; give the option max_new_tokens a "
                "smaller value."
            )
        return lm

    def _requests(self, lm: "HFLM", examples: list[Example]) -> list[tuple[dict, "list[Instance]"]]:
        """Each example's document, and what the harness wants to be told of the model about it.

        The harness draws worked examples for one document after the other: those before the first
        that is wanted are drawn for too, so that an example is always asked with the same ones.
        """
        harness, shots = self._harness, self._shots
        chat = self.chat and bool(lm.tokenizer.chat_template)
        template = lm.apply_chat_template if chat else None
        wanted = {example.id for example in examples}
        found: dict[str, tuple[dict, list[Instance]]] = {}
        for split, pairs in self._splits.items():
            last = max((i for i, (e, _) in enumerate(pairs) if e.id in wanted), default=-1)
            harness.set_fewshot_seed(FEWSHOT_SEED)
            with self._drawing(split):
                for number, (example, doc) in enumerate(pairs[: last + 1]):
                    if not shots and example.id not in wanted:
                        continue
                    context = harness.fewshot_context(
                        doc,
                        num_fewshot=shots,
                        apply_chat_template=chat,
                        fewshot_as_multiturn=chat,
                        chat_template=template,
                        gen_prefix=harness.doc_to_prefix(doc),
                    )
                    if example.id in wanted:
                        made = harness.construct_requests(
                            doc=doc,
                            ctx=context,
                            metadata=(self.task, number, harness.config.repeats),
                            apply_chat_template=chat,
                            chat_template=template,
                        )
                        found[example.id] = (doc, made if isinstance(made, list) else [made])
        return [found[example.id] for example in examples]

    def _measurement(
        self, lm: "HFLM", doc: dict, instances: "list[Instance]", metric: str, filtered_by: str
    ) -> Measurement:
        """What the harness makes of one document's responses."""
        kind = self._harness.OUTPUT_TYPE
        filtered = [instance.filtered_resps[filtered_by] for instance in instances]
        metrics = self._harness.process_results(doc, filtered)
        value = metrics.get(metric)
        if metric in metrics and metric not in self._means:
            value = self._harness.aggregation()[metric]([value])
        if not _is_share(value):
            usable = [name for name, other in metrics.items() if _is_share(other)]
            raise StudioError(
                f"The metric {metric} of the lm_eval task {self.task} gives no number from 0 to 1 "
                f"for an example; {_instead(usable)}."
            )
        details = {"metrics": {k: float(v) for k, v in metrics.items() if _is_share(v)}}
        if kind == "generate_until":
            response = str(instances[0].resps[0])
            if isinstance(filtered[0], str):
                details["parsed"] = filtered[0]
            tokens = len(lm.tokenizer(response, add_special_tokens=False)["input_ids"])
            return Measurement(response, Score(float(value), details), tokens)
        likelihoods = [instance.resps[0][0] for instance in instances]
        details["loglikelihoods"] = [round(one, 4) for one in likelihoods]
        response = ""
        if kind == "multiple_choice":
            choices = self._harness.doc_to_choice(doc)
            lengths = {
                "acc_norm": [len(choice) for choice in choices],
                "acc_bytes": [len(choice.encode()) for choice in choices],
            }.get(metric, [1] * len(choices))
            likely = [one / length for one, length in zip(likelihoods, lengths, strict=False)]
            response = choices[likely.index(max(likely))]
        return Measurement(response, Score(float(value), details))

    # ── the harness's task ────────────────────────────────────────────────────────────────────

    @cached_property
    def _harness(self) -> "ConfigurableTask":
        """The harness's own object, its data loaded."""
        _prepare()
        from lm_eval.api.task import ConfigurableTask

        if self.path is None:
            self._check_name()
            with (
                self._told("cannot be loaded", self._no_data),
                patch("evaluate.load", self._refuse),
            ):
                harness = _manager().load([self.task])["tasks"][self.task]
        else:
            fields = lm_eval_definition.read(self.path, self.task)
            self._check_metrics(fields)
            with self._told("cannot be loaded", self._no_data):
                harness = ConfigurableTask(config=fields)
        if not isinstance(harness, ConfigurableTask):
            raise self._unsuited("is not one of the kind that a YAML file defines")
        if getattr(harness, "UNSAFE_CODE", False):
            raise self._unsuited("runs code that the model writes")
        if getattr(harness, "MULTIMODAL", False):
            raise self._unsuited("asks about pictures or sounds")
        if harness.config.process_results is None and None in harness._metric_fn_list.values():
            raise self._unsuited("has a metric that is downloaded as code, which is never run")
        if harness.OUTPUT_TYPE == "generate_until":
            self._settle_generation(harness)
        return harness

    def _check_name(self) -> None:
        """StudioError unless the harness has a task of that name, and not a group of them."""
        manager = _manager()
        if self.task in manager.all_subtasks:
            return
        if self.task in manager.all_tasks:
            raise StudioError(
                f"{self.task!r} is a group of lm_eval tasks; name one of its tasks, and several as "
                "several objectives (`lm-eval ls tasks` lists them)."
            )
        like = get_close_matches(self.task, manager.all_subtasks, n=4)
        hint = f", such as {' or '.join(like)}" if like else " (`lm-eval ls tasks` lists them)"
        raise StudioError(
            f"lm_eval has no task {self.task!r}; name one of its tasks{hint}, or give the option "
            "path the folder of your own."
        )

    def _check_metrics(self, fields: dict[str, Any]) -> None:
        """StudioError where a local definition names a metric that is not the harness's own."""
        from lm_eval.api.registry import METRIC_REGISTRY

        for metric in fields.get("metric_list") or []:
            if metric["metric"] not in METRIC_REGISTRY:
                raise StudioError(
                    f"The metric {metric['metric']!r} of the lm_eval task {self.task} is none of "
                    "the harness's own, and would be downloaded as code; use another one."
                )

    def _settle_generation(self, harness: "ConfigurableTask") -> None:
        """Greedy answers, of a length that is known before they begin."""
        options = harness.config.generation_kwargs
        sampled = options.get("do_sample")
        if sampled or (sampled is None and float(options.get("temperature") or 0) > 0):
            raise self._unsuited("draws its answers at random, so that no score is the same twice")
        said = [options.pop(name) for name in _LIMITS if name in options]
        options["max_gen_toks"] = self.longest or int(next(iter(said), MAX_NEW_TOKENS))

    @property
    def _shots(self) -> int:
        own = self._harness.config.num_fewshot or 0
        return own if self.num_fewshot is None else self.num_fewshot

    @property
    def _longest(self) -> int:
        """Tokens that an answer may take; 0 where none is generated."""
        if self._harness.OUTPUT_TYPE != "generate_until":
            return 0
        return self._harness.config.generation_kwargs["max_gen_toks"]

    @contextmanager
    def _drawing(self, split: str) -> Iterator[None]:
        """Within, worked examples are not examples of the test split, and none is its own question.

        The harness may draw from what it scores, and leaves out the document asked about only where
        that is of the split it calls test.
        """
        config, worked = self._harness.config, self._harness.config.fewshot_config
        source = worked.split
        if source is None and not worked.samples:
            source = config.training_split or config.validation_split or config.test_split
        if not self._shots or source not in (config.validation_split, config.test_split):
            yield
            return
        self._harness.sampler.replace_df([doc for _, doc in self._splits["dev"]])
        before = worked.split
        worked.split = config.test_split if split == "dev" else "another"
        try:
            yield
        finally:
            worked.split = before

    @property
    def _means(self) -> list[str]:
        """The metrics that the harness computes for each example, to report their mean."""
        from lm_eval.api.metrics import mean

        return [name for name, how in self._harness.aggregation().items() if how is mean]

    @property
    def _own(self) -> list[str]:
        """The metrics that a function of the task's own computes for all examples together."""
        from lm_eval.api.registry import AGGREGATION_REGISTRY

        known = list(AGGREGATION_REGISTRY.values())
        return [name for name, how in self._harness.aggregation().items() if how not in known]

    @cached_property
    def _choice(self) -> tuple[str, str]:
        """The metric that scores, and the filter through which responses come to it."""
        harness = self._harness
        better = harness.higher_is_better()
        several = list(harness.aggregation())
        scoring = self._means + (self._own if self._alone else [])
        usable = [name for name in scoring if better.get(name) is not False]
        filters = [one.name for one in harness._filters]
        metric, _, chosen = (self._wanted or next(iter(usable), "")).partition(",")
        metric, chosen = metric.strip(), chosen.strip() or filters[0]
        whose = f"of the lm_eval task {self.task}"
        if not usable and not self._own:
            raise self._unsuited("has no metric that scores each example, higher being better")
        metric = metric or self._own[0]
        if metric not in several:
            raise StudioError(f"There is no metric {metric!r} {whose}; {_instead(usable)}.")
        if better.get(metric) is False:
            raise StudioError(
                f"The metric {metric} {whose} is better when lower, and a search looks for the "
                f"highest; {_instead(usable)}."
            )
        if metric not in usable:
            alone = "set the option per_example to true"
            remedies = [_instead(usable)] if usable or metric not in self._own else []
            remedies += [alone] if metric in self._own else []
            raise StudioError(
                f"The metric {metric} {whose} is one number for all examples together, and each "
                f"needs its own; {', or '.join(remedies)}."
            )
        if chosen not in filters:
            raise StudioError(
                f"The lm_eval task {self.task} has no filter {chosen!r}; use "
                f"{' or '.join(f'{metric},{name}' for name in filters)}."
            )
        self.metric = metric if len(filters) == 1 else f"{metric},{chosen}"
        return metric, chosen

    def _refuse(self, metric: str, *_, **__) -> None:
        """In place of downloading a metric and running it."""
        raise self._unsuited(f"has the metric {metric}, which is downloaded as code and never run")

    def _unsuited(self, why: str) -> StudioError:
        return StudioError(f"The lm_eval task {self.task} {why}; choose another task.")

    def _no_data(self, error: OSError) -> StudioError:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
        return StudioError(
            f"The dataset of the lm_eval task {self.task} could not be had from the hub"
            f"{' (offline mode is on)' if offline else ''}; connect to the internet, and log in if "
            f"it is given to members only ({_first_line(error)})."
        )

    @contextmanager
    def _told(
        self, what: str, on_missing: Callable[[OSError], StudioError] | None = None
    ) -> Iterator[None]:
        """Whatever the harness or a task's own code raises within, said in one sentence."""
        lead = f"The lm_eval task {self.task}"
        try:
            yield
        except (StudioError, MemoryError):
            raise
        except ModuleNotFoundError as error:
            package = f"the package {error.name}" if error.name else "a package more"
            raise StudioError(
                f"{lead} needs {package}; install it with pip ({_first_line(error)})."
            ) from error
        except Exception as error:
            if on_missing and isinstance(error, OSError):
                raise on_missing(error) from error
            raise StudioError(
                f"{lead} {what} ({type(error).__name__}: {_first_line(error)}); correct its "
                "definition, or choose another task."
            ) from error


@lru_cache(maxsize=1)
def _manager() -> Any:
    """The index of the tasks that come with the harness: thousands of files, read once."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


@lru_cache(maxsize=1)
def _prepare() -> None:
    """Make the harness safe and quiet, once: for the whole process, as it has no other way."""
    import datasets
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils
    from packaging.version import Version

    for package, least in OLDEST.items():
        if Version(importlib.metadata.version(package)) < Version(least):
            raise StudioError(
                f"The task lm_eval needs {package} {least} or newer; in the Studio's folder, run: "
                'pip install -U -e ".[lm-eval]"'
            )

    class Templates(SandboxedEnvironment):
        """The harness's templates with no way out of them, and each compiled once."""

        from_string = lru_cache(maxsize=256)(SandboxedEnvironment.from_string)

    before = utils.env
    utils.env = Templates(
        undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline
    )
    utils.env.filters.update(before.filters)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every model that is lent
    datasets.disable_progress_bars()


@contextmanager
def _no_limit_of_its_own(model: "PreTrainedModel") -> Iterator[None]:
    """Within, answers are as long as the task says: a model's own limit would come before that."""
    config = model.generation_config
    before, config.max_new_tokens = config.max_new_tokens, None
    try:
        yield
    finally:
        config.max_new_tokens = before


def _is_share(value: Any) -> bool:
    """Whether a metric's value is one number from 0 to 1."""
    try:
        return math.isfinite(value) and 0 <= value <= 1
    except (TypeError, ValueError):
        return False


def _instead(usable: list[str]) -> str:
    return f"use {' or '.join(usable)}" if usable else "choose another task"


def _first_line(error: BaseException) -> str:
    """An error's first line, not too long and without its final stop."""
    text = next(iter(str(error).strip().splitlines()), "").rstrip(". ")
    return text if len(text) <= 200 else text[:199] + "…"
