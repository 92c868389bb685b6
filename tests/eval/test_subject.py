"""What is evaluated, on this machine: identity, cut prompts, models that end at once."""

import shutil
from dataclasses import replace

from task_files import write_task
from tiny_models import write_model

from ptbr_slm.bench.synthetic import random_weights
from ptbr_slm.eval.run import answer
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.eval.tasks.items import task_items
from ptbr_slm.eval.tasks.task_file import read_task


def test_identity_follows_the_content_and_not_the_place(model, tmp_path):
    with LocalSubject(model.path, "cpu") as subject:
        identity = subject.identity
    copy = tmp_path / "copia"
    shutil.copytree(model.path, copy)
    (copy / "manifest.json").unlink()
    with LocalSubject(copy, "cpu") as subject:
        assert subject.identity == identity


def test_other_weights_or_another_tokenizer_are_another_identity(model, tokenizer, tmp_path):
    config = model.config
    with LocalSubject(model.path, "cpu") as subject:
        found = {subject.identity}
    other = write_model(tmp_path / "outro", config, tokenizer, random_weights(config, 4))
    with LocalSubject(other, "cpu") as subject:
        found.add(subject.identity)
    edited = tmp_path / "editado"
    shutil.copytree(model.path, edited)
    (edited / "manifest.json").unlink()
    text = (edited / "tokenizer.json").read_text(encoding="utf-8")
    (edited / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    with LocalSubject(edited, "cpu") as subject:
        found.add(subject.identity)
    assert len(found) == 3


def test_a_prompt_is_cut_by_tokens_and_continued_from_exactly_these(model):
    with LocalSubject(model.path, "cpu") as subject:
        tokenizer = subject.model.engine.tokenizer
        prompt = "uma palavra, outra palavra e mais uma " * 12
        kept = tokenizer.encode(prompt)[-(subject.context - 10) :]
        (found,) = subject.continue_text([prompt], [], 10)
        assert found.cut == len(tokenizer.encode(prompt)) - len(kept)
        assert found.text == reference_continuation(subject, kept, 10)


def reference_continuation(subject: LocalSubject, ids: list[int], count: int) -> str:
    """Greedy, a whole forward pass a token."""
    engine = subject.model.engine
    found: list[int] = []
    while len(found) < count:
        token = int(engine.logits([*ids, *found])[-1].argmax())
        if token in engine.config.eos_token_ids:
            break
        found.append(token)
    decoder = engine.tokenizer.stream_decoder(continuation=True)
    return "".join(map(decoder.push, found)) + decoder.finish()


def test_a_model_that_ends_at_once_answers_with_an_empty_text_and_is_wrong(model, tokenizer, tmp_path):
    prompts = ["O céu é", "O mar é"]
    with LocalSubject(model.path, "cpu") as subject:
        logits = subject.model.logits
        first = {int(logits(tokenizer.encode(prompt))[-1].argmax()) for prompt in prompts}
    config = replace(model.config, eos_token_ids=tuple(sorted(first)))
    ending = write_model(tmp_path / "acaba", config, tokenizer, random_weights(model.config, 3))
    task = read_task(
        write_task(
            tmp_path,
            output_type="generate_until",
            doc_to_choice=None,
            doc_to_target="azul",
            doc_to_text="{{pergunta}}",
            metric_list=[{"metric": "exact_match"}],
        )
    )
    items = list(task_items(task, [{"pergunta": prompt} for prompt in prompts]))
    with LocalSubject(ending, "cpu") as subject:
        assert [each.text for each in subject.continue_text(prompts, [], 8)] == ["", ""]
        assert subject.continue_text(prompts, ["\n"], 8) == subject.continue_text(prompts, [], 8)
        results = list(answer(subject, task, items))
    assert [dict(result.values) for result in results] == [{"exact_match": 0.0}] * 2
    assert [result.answer for result in results] == ["", ""]
