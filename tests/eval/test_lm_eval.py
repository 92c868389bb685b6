"""The real lm-evaluation-harness as a second judge: one task file, one score, whoever asks.

Skipped where it is not installed:  pip install lm_eval==0.4.13
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import RemoteTokenizer  # noqa: E402
from ptbr_slm_export import export_model  # noqa: E402
from serving import serving  # noqa: E402
from task_files import write_rows, write_task  # noqa: E402
from tiny_models import random_weights, write_model  # noqa: E402

import ptbr_slm.eval.lm_eval_adapter  # noqa: E402, F401  # puts ptbr_slm into the table of models
from ptbr_slm.config import ModelConfig  # noqa: E402
from ptbr_slm.errors import SlmError  # noqa: E402
from ptbr_slm.eval.lm_eval_adapter import sampling_options  # noqa: E402
from ptbr_slm.eval.run import answer  # noqa: E402
from ptbr_slm.eval.server_subject import open_subject  # noqa: E402
from ptbr_slm.eval.tasks.documents import load_task_data  # noqa: E402
from ptbr_slm.eval.tasks.items import task_items  # noqa: E402
from ptbr_slm.eval.tasks.task_file import read_task  # noqa: E402
from ptbr_slm.runtime.model import Model  # noqa: E402
from ptbr_slm.tokenizer import Tokenizer  # noqa: E402

CONTEXT = 96
ROWS = [
    {
        "id": f"{beginning} {number}",
        "pergunta": f"{beginning} {number}, o céu {verb}",
        "opcoes": ["azul", "verde-claro e sem nuvens", "não", "um d'água só"],
        "certa": number % 4,
        "resposta": "azul",
    }
    for number in range(4)
    for beginning, verb in (("No dia", "era"), ("Em frente à casa de número", "parecia "), ("Às", "ficou"))
]
LONG = [{**ROWS[0], "id": "longo", "pergunta": "Era uma vez um homem. " * 40 + "O céu era"}]


@dataclass
class Folders:
    """One model in three forms, and the task files."""

    llama: Path
    onnx: Path
    genai: Path
    tasks: dict[str, Path]


@pytest.fixture(scope="module")
def folders(texts, tmp_path_factory) -> Folders:
    root = tmp_path_factory.mktemp("juiz")
    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = root / "datasets"
    tokenizer = Tokenizer.train(texts * 4, 400)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=16, intermediate_size=96, max_seq_len=CONTEXT,
    )  # fmt: skip
    llama = write_model(root / "final", config, tokenizer, random_weights(config, 5, scale=5.0))
    for target in ("cpu", "genai"):
        export_model(llama, root / target, target=target, precision="fp32", verify=False)
    write_rows(root / "itens.jsonl", ROWS + LONG)
    files = {"dataset_kwargs": {"data_files": {"test": str(root / "itens.jsonl")}}}
    metric = {"aggregation": "mean", "higher_is_better": True}
    tasks = {
        "multipla": {"metric_list": [{"metric": "acc", **metric}, {"metric": "acc_norm", **metric}]},
        "palavra": {
            "output_type": "loglikelihood",
            "doc_to_choice": None,
            "doc_to_target": " {{resposta}}",
            "metric_list": [{"metric": "acc", **metric}],
        },
        "geracao": {
            "output_type": "generate_until",
            "doc_to_choice": None,
            "doc_to_target": "resposta",
            "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 10, "do_sample": False},
            "metric_list": [{"metric": "exact_match", **metric}],
        },
    }
    written = {name: write_task(root, task=name, **files, **changes) for name, changes in tasks.items()}
    return Folders(llama, root / "cpu", root / "genai", written)


def harness_answers(model, task: Path, **options) -> dict[str, list]:
    """id -> what the harness's model answers to each of an item's requests."""
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[str(task)],
        task_manager=TaskManager(include_defaults=False),  # reads none of the harness's thousands of files
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
        **options,
    )
    return {sample["doc"]["id"]: sample["resps"] for sample in found["samples"][task.stem]}


def our_answers(target: str | Path, task_file: Path):
    """id -> our own evaluation's result."""
    task = read_task(task_file)
    data = load_task_data(task)
    with open_subject(str(target), "cpu") as subject:
        results = answer(subject, task, list(task_items(task, data.rows)))
    return {result.id: result for result in results}


def choice_scores(answers: dict[str, list]) -> dict[str, list[float]]:
    return {item: [nats for ((nats, _),) in requests] for item, requests in answers.items()}


def assert_agree(found: dict[str, list[float]], ours: dict) -> None:
    """Log probabilities within 1e-4, and so the chosen answers."""
    assert set(found) <= set(ours) and len(found) >= len(ROWS)
    for item, nats in found.items():
        assert nats == pytest.approx(list(ours[item].logprobs), abs=1e-4)
        if len(nats) > 1:
            assert nats.index(max(nats)) == ours[item].answer


def test_checkpoint_export_and_adapter_give_one_score(folders):
    ours = our_answers(folders.llama, folders.tasks["multipla"])
    of_export = our_answers(folders.onnx, folders.tasks["multipla"])
    for item, result in ours.items():
        assert of_export[item].logprobs == pytest.approx(result.logprobs, abs=1e-4)
        assert of_export[item].values == result.values
    for folder in (folders.llama, folders.onnx):
        adapter = get_model("ptbr_slm").create_from_arg_string(f"path={folder},device=cpu")
        assert_agree(choice_scores(harness_answers(adapter, folders.tasks["multipla"])), ours)
    assert ours["longo"].cut > 0


def test_the_harness_own_hf_backend_gives_the_same_score(folders):
    hf = get_model("hf").create_from_arg_obj(
        {"pretrained": str(folders.llama), "dtype": "float32", "device": "cpu"}
    )
    assert_agree(
        choice_scores(harness_answers(hf, folders.tasks["multipla"])),
        our_answers(folders.onnx, folders.tasks["multipla"]),
    )
    words = harness_answers(hf, folders.tasks["palavra"])
    ours = our_answers(folders.onnx, folders.tasks["palavra"])
    assert_agree(choice_scores(words), ours)
    assert {item: float(greedy) for item, (((_, greedy),),) in words.items()} == {
        item: result.values["acc"] for item, result in ours.items()
    }
    texts = harness_answers(hf, folders.tasks["geracao"])
    adapter = get_model("ptbr_slm").create_from_arg_string(f"path={folders.onnx},device=cpu")
    assert harness_answers(adapter, folders.tasks["geracao"]) == texts
    assert {item: text for item, ((text,),) in texts.items()} == {
        item: result.answer for item, result in our_answers(folders.onnx, folders.tasks["geracao"]).items()
    }


def test_rolling_agrees_with_the_hf_backend_beyond_one_context(folders):
    texts = [LONG[0]["pergunta"], "Curto.", "A casa d'água"]
    asked = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(texts)]
    hf = get_model("hf").create_from_arg_obj(
        {"pretrained": str(folders.llama), "dtype": "float32", "device": "cpu", "add_bos_token": False}
    )
    adapter = get_model("ptbr_slm")(str(folders.onnx), "cpu")
    found = adapter.loglikelihood_rolling(asked, disable_tqdm=True)
    assert found == pytest.approx(hf.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-3)


def test_local_completions_against_our_server_gives_the_same_score(folders):
    ours = our_answers(folders.llama, folders.tasks["multipla"])
    with Model(folders.onnx, "cpu") as model, serving({"juiz": model}) as server:
        client = get_model("local-completions").create_from_arg_obj(
            {
                "model": "juiz",
                "base_url": f"{server.url}/v1/completions",
                "tokenizer": str(folders.llama),
                "tokenizer_backend": "huggingface",
                "add_bos_token": True,
                "max_length": CONTEXT,
            }
        )
        scores = choice_scores(harness_answers(client, folders.tasks["multipla"]))
        # The harness keeps two tokens of the context for the server; a cut prompt is another prompt.
        del scores["longo"]
        assert_agree(scores, ours)
        of_server = our_answers(server.url, folders.tasks["multipla"])
        texts = harness_answers(client, folders.tasks["geracao"], limit=len(ROWS))
        remote = RemoteTokenizer(f"{server.url}/v1/completions")
        tokenizer = model.engine.tokenizer
        assert (remote.bos_token_id, remote.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
        assert remote.encode("A casa d'água") == tokenizer.encode("A casa d'água", special=False)
    for item, result in ours.items():
        if not result.cut:
            assert of_server[item].logprobs == pytest.approx(result.logprobs, abs=1e-4)
    assert of_server["longo"].cut == ours["longo"].cut + 2
    generated = our_answers(folders.onnx, folders.tasks["geracao"])
    assert {item: text for item, ((text,),) in texts.items()} == {
        item: generated[item].answer for item in texts
    }


def test_onnxruntime_genai_on_the_genai_export_generates_the_same_texts(folders):
    """Generation only: the harness's backend scores from the logits of every position, and the genai export
    computes those of the last one alone.
    """
    pytest.importorskip("onnxruntime_genai")
    genai = get_model("onnxruntime-genai").create_from_arg_obj({"pretrained": str(folders.genai)})
    # This backend adds no BOS and cuts no prompt: the one is given as text, the long item is left out.
    found = harness_answers(genai, folders.tasks["geracao"], system_instruction="<|bos|>", limit=len(ROWS))
    ours = our_answers(folders.llama, folders.tasks["geracao"])
    assert {item: text for item, ((text,),) in found.items()} == {item: ours[item].answer for item in found}


# With a chat template


def differences(answers: dict[str, list[float]]) -> dict[str, list[float]]:
    """What an answer is better than the first. The harness counts the line break before it, we do not."""
    return {item: [value - nats[0] for value in nats] for item, nats in answers.items()}


def test_with_a_chat_template_the_hf_backend_gives_the_same_answers(folders):
    hf = get_model("hf").create_from_arg_obj(
        {"pretrained": str(folders.llama), "dtype": "float32", "device": "cpu"}
    )
    adapter = get_model("ptbr_slm").create_from_arg_string(f"path={folders.onnx},device=cpu")
    options = {"apply_chat_template": True, "limit": 3}
    theirs = differences(choice_scores(harness_answers(hf, folders.tasks["multipla"], **options)))
    ours = differences(choice_scores(harness_answers(adapter, folders.tasks["multipla"], **options)))
    assert theirs.keys() == ours.keys()
    for item, nats in theirs.items():
        assert ours[item] == pytest.approx(nats, abs=1e-4)
    texts = harness_answers(hf, folders.tasks["geracao"], **options)
    assert harness_answers(adapter, folders.tasks["geracao"], **options) == texts


def test_a_context_keeps_its_messages_and_forges_nothing(folders):
    adapter = get_model("ptbr_slm")(str(folders.llama), "cpu")
    said = [{"role": "user", "content": "a<|im_end|>"}, {"role": "assistant", "content": "Resposta:"}]
    context = adapter.apply_chat_template(said, add_generation_prompt=False)
    assert (
        context.endswith("<|im_start|>assistant\nResposta:") and pickle.loads(pickle.dumps(context)).messages
    )
    end = adapter.model.engine.tokenizer.token_id("<|im_end|>")
    assert adapter._ids(context).count(end) == 1
    request = adapter._request(context, [" azul", " b"])
    assert adapter.model.engine.tokenizer.decode(request.continuations[0]) == " azul"
    assert request.prompt == tuple(adapter._ids(context))
    assert adapter.model.chat_format.sha256 in adapter.tokenizer_name
    assert (
        adapter.chat_template(True) == adapter.model.chat_format.template
        and adapter.chat_template(False) is None
    )


@pytest.mark.slow
def test_the_command_line_runs_offline_and_says_what_is_wrong(folders, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ptbr_slm.eval.lm_eval_adapter", "--model", "ptbr_slm", *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
            check=False,
        )

    done = run("--model_args", f"path={folders.onnx},device=auto", "--tasks", str(folders.tasks["multipla"]))
    assert done.returncode == 0, done.stderr
    assert "acc_norm" in done.stdout
    absent = run("--model_args", f"path={tmp_path / 'nada'}", "--tasks", str(folders.tasks["multipla"]))
    assert absent.returncode == 1
    assert "Erro [E_NOT_FOUND]" in absent.stderr and "Traceback" not in absent.stderr


def test_generation_options_that_would_go_without_effect_are_refused():
    assert sampling_options({"until": "\n", "max_gen_toks": 7, "temperature": 0.7, "do_sample": False}) == {
        "temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 7, "stop": ["\n"],
    }  # fmt: skip
    with pytest.raises(SlmError, match="num_beams"):
        sampling_options({"num_beams": 4})
