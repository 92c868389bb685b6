"""The task files load in the real lm-evaluation-harness, which asks and judges the same, byte for byte.

Skipped where it is not installed:  pip install lm_eval==0.4.13
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")

import lm_eval.tasks  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

from ptbr_slm.eval.tasks.catalogue import published_tasks  # noqa: E402
from ptbr_slm.eval.tasks.documents import file_names, load_task_data  # noqa: E402
from ptbr_slm.eval.tasks.items import task_items  # noqa: E402
from ptbr_slm.eval.tasks.metrics import judge_choices, judge_text, task_scores  # noqa: E402
from ptbr_slm.eval.tasks.task import OutputType, Task  # noqa: E402
from ptbr_slm.eval.tasks.task_file import read_task  # noqa: E402
from ptbr_slm.runtime.scoring import ContinuationScore  # noqa: E402

ROWS = Path(__file__).parent / "rows"
TASKS = {task.name: task.file for task in published_tasks()}
HARNESS = Path(lm_eval.tasks.__file__).parent
OWN = {
    "hellaswag_pt": "okapi/hellaswag_multilingual/hellaswag_pt.yaml",
    "arc_pt": "okapi/arc_multilingual/arc_pt.yaml",
    "assin2_rte": "portuguese_bench/assin2_rte.yaml",
    "belebele_por_Latn": "belebele/belebele_por_Latn.yaml",
    "multiblimp_por": "multiblimp/multiblimp_por.yaml",
}
"""Tasks that the harness has by the same name."""


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory):
    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")


def rows_file(task: Task, split: str) -> Path:
    named = task.dataset.data_files.get(split)
    names = [named] if named else [f"{stem}.jsonl" for stem in file_names(task, split)]
    return next(ROWS / name for name in names if (ROWS / name).is_file())


def harness_task(file: Path, task: Task, **changes) -> ConfigurableTask:
    """The file as the harness reads it, over our rows."""
    config = load_yaml(file) | changes
    splits = {task.split} | ({task.fewshot_split} if task.num_fewshot or task.fewshot_split else set())
    files = {split: str(rows_file(task, split)) for split in splits}
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    config.pop("tag", None)
    found = ConfigurableTask(config=config)
    found.set_fewshot_seed(1234)  # as simple_evaluate does
    return found


def harness_requests(task: ConfigurableTask) -> list[list[tuple]]:
    task.build_all_requests()
    by_row: dict[int, list[tuple]] = {}
    for instance in task.instances:
        by_row.setdefault(instance.doc_id, []).append(instance.args)
    return [by_row[number] for number in sorted(by_row)]


def our_items(task: Task):
    data = load_task_data(task, [ROWS])
    return list(task_items(task, data.rows, data.fewshot_rows))


@pytest.mark.parametrize("name", TASKS)
def test_requests_are_the_same(name):
    task = read_task(TASKS[name])
    for item, requests in zip(
        our_items(task), harness_requests(harness_task(TASKS[name], task)), strict=True
    ):
        if task.output_type is OutputType.GENERATE_UNTIL:
            ((prompt, options),) = requests
            assert prompt == item.prompt
            assert tuple(options["until"]) == task.until
            assert options["max_gen_toks"] == task.max_new_tokens
            assert options["do_sample"] is False
        else:
            assert requests == [(item.prompt, choice) for choice in item.choices]


@pytest.mark.parametrize("name", OWN)
def test_requests_are_those_of_the_harnesss_own_task(name):
    task = read_task(TASKS[name])
    shots = {"num_fewshot": task.num_fewshot}
    if not task.num_fewshot:  # our rows have no split for examples
        shots |= {"training_split": None, "validation_split": None}
    own = harness_task(HARNESS / OWN[name], task, **shots)
    assert harness_requests(own) == harness_requests(harness_task(TASKS[name], task))


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_judged_the_same(name):
    """Scores and texts without meaning, through the harness's filters, metrics and aggregations and ours."""
    task = read_task(TASKS[name])
    theirs, items = harness_task(TASKS[name], task), our_items(task)
    theirs.build_all_requests()
    draw = random.Random(name)
    results = []
    for item in items:
        requests = [each for each in theirs.instances if each.doc_id == items.index(item)]
        if task.output_type is OutputType.GENERATE_UNTIL:
            reference = draw.choice(item.references)
            texts = [
                f" {reference}, e",
                f"\n{reference.upper()}",
                "",
                " .,?!",
                f' "{reference}"',
                " outro em",
            ]
            text = draw.choice(texts)
            requests[0].resps = [text]
            results.append(judge_text(task, item, text))
        else:
            logprobs = [draw.uniform(-30, -1) for _ in item.choices]
            greedy = [draw.random() < 0.5 for _ in item.choices]
            for request, nats, likeliest in zip(requests, logprobs, greedy, strict=True):
                request.resps = [(nats, likeliest)]
            scores = [
                ContinuationScore(nats, 1, 1, likeliest, 0)
                for nats, likeliest in zip(logprobs, greedy, strict=True)
            ]
            results.append(judge_choices(task, item, scores))
    theirs.apply_filters()
    (pipeline,) = theirs.instances[0].filtered_resps
    values: dict[str, list] = {}
    for number in range(len(items)):
        requests = sorted(
            (each for each in theirs.instances if each.doc_id == number), key=lambda each: each.idx
        )
        found = theirs.process_results(requests[0].doc, [each.filtered_resps[pipeline] for each in requests])
        for metric, value in found.items():
            values.setdefault(metric, []).append(value)
    for score in task_scores(task, results):
        expected = theirs.aggregation()[score.metric](values[score.metric])
        assert score.value == pytest.approx(expected, abs=1e-12), score.metric
