"""An evaluation set that the user names stays out of the prepared data, and the records show both texts."""

from __future__ import annotations

import json
import random
from pathlib import Path

from planted_copies import random_text
from prepared_texts import texts_of

from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.mixture import plan
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.records import GROUPS, read_records
from ptbr_slm.tokenizer import Tokenizer

# Sentences of a treebank's test part as a corpus of the same texts has them: spaces around punctuation,
# a contraction that is written apart, a hyphen that is lost.
PLANTED = {
    "A feira de sábado abriu mais cedo, e os vendedores de peixe gritavam na esquina da praça.": (
        "A feira de sábado abriu mais cedo , e os vendedores de peixe gritavam em a esquina da praça ."
    ),
    'O carteiro disse que só a vizinha do terceiro andar podia avisá-lo da "grande novidade".': (
        "O carteiro disse que só a vizinha do terceiro andar podia avisá lo da grande novidade ."
    ),
}


def test_sentences_of_a_named_test_set_stay_out_and_are_shown(tmp_path: Path, tokenizer: Tokenizer):
    pick = random.Random(1)
    documents = [random_text(pick, 120) + "." for _ in range(40)]
    for number, stored in enumerate(PLANTED.values()):
        documents[10 + number] = f"{documents[10 + number]} {stored} {random_text(pick, 60).capitalize()}."
        documents[20 + number] = stored
    lines = [json.dumps({"text": text}) for text in documents]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    treebank = "".join(f"# sent_id = {i}\n# text = {text}\n1\t_\n\n" for i, text in enumerate(PLANTED))
    (tmp_path / "teste.conllu").write_text(treebank, encoding="utf-8")

    recipe = plan([tmp_path / "a.jsonl"], evaluation=[tmp_path / "teste.conllu"])
    data = prepare([], tmp_path / "dados", tokenizer, recipe=recipe)

    assert data.index.dropped == {"contaminated": 2} and data.index.repaired == {"decontaminated": 2}
    text = "\n".join(text for split in SPLITS for text in texts_of(data, split, tokenizer))
    assert "carteiro" not in text and "vendedores de peixe" not in text and documents[0] in text
    records = {record.source: record for group in GROUPS for record in read_records(data.folder, group)}
    for number, (sentence, stored) in enumerate(PLANTED.items()):
        for line in (11 + number, 21 + number):
            shown = records[f"{tmp_path / 'a.jsonl'}:{line}"].attributes
            assert str(shown["overlap_item_text"]) in sentence
            assert str(shown["overlap_document_text"]) in stored
            assert shown["overlap_item"] == f"{tmp_path / 'teste.conllu'}:{2 + 4 * number}"
