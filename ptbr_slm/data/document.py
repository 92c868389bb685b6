"""A document, and the counts of documents that were dropped or repaired on the way into the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REASONS: dict[str, str] = {
    "not_utf8": "não está em UTF-8",
    "utf16": "está em UTF-16, e não em UTF-8",
    "binary": "é binário, não é texto",
    "empty": "está vazio",
    "other_language": "não está em português",
    "other_variety": "está na outra variedade do português",
    "too_short": "tem menos de duas palavras",
    "too_long": "linha ou campo acima de 8 MiB",
    "bad_json": "linha que não é JSON",
    "no_text": 'sem o campo "text"',
    "duplicate": "cópia exata de outro",
    "corrupt_file": "arquivo compactado ou Parquet quebrado: o resto dele se perdeu",
    "corrupt_rows": "linha de um trecho quebrado de um Parquet",
    "unreadable": "não pôde ser aberto (sem permissão, ou link para nada)",
    "unknown_format": "arquivo de outro tipo",
    "not_sampled": "ficou de fora pelo peso da fonte",
    "repeated_lines": "repete linhas demais",
    "repeated_characters": "repete linhas longas",
    "top_gram": "repete demais as mesmas 2 a 4 palavras",
    "repeated_grams": "repete trechos de 5 a 10 palavras",
    "few_ended_lines": "quase nenhuma linha termina em ponto",
    "short_lines": "tem linhas curtas demais",
    "many_newlines": "tem quebras de linha demais: lista ou menu",
    "few_words": "tem menos palavras que o mínimo da limpeza",
    "many_words": "tem mais palavras que o máximo da limpeza",
    "short_words": "tem palavras curtas demais em média",
    "long_words": "tem palavras longas demais em média",
    "many_hashes": "tem # demais",
    "many_ellipses": "tem reticências demais",
    "bullet_lines": "é quase só uma lista",
    "ellipsis_lines": "tem linhas cortadas com reticências demais",
    "few_letters": "tem números e pontuação demais",
    "few_stop_words": "quase não usa as palavras mais comuns do português",
    "replacement_characters": "perdeu letras demais (�)",
    "near_duplicate": "quase igual a outro",
    "contaminated": "repete um conjunto de avaliação",
    "bad_row": "linha de um CSV com aspas ou tamanho errados",
    "changed": "arquivo que mudou enquanto era lido: o que se leu dele ficou",
    "bomb": "arquivo que cresce mais de 200 vezes ao descompactar: o resto dele se perdeu",
    "curly_brackets": "mostra código ({)",
    "lorem_ipsum": "tem texto de enchimento (lorem ipsum)",
    "few_sentences": "tem frases de menos",
    "few_long_lines": "tem parágrafos longos de menos",
    "only_boilerplate": "só tem menus e avisos de site",
    "no_lines": "não tem nenhuma linha que as regras de linhas deixem",
    "only_repeated_paragraphs": "só tem parágrafos repetidos de outros documentos",
}
"""Why a document is dropped -> the words of a report."""

REPAIRS: dict[str, str] = {
    "unwrapped": "linhas quebradas à mão foram emendadas",
    "mojibake": "acentos trocados (Ã£, Ã©) foram recuperados",
    "invisible": "caracteres invisíveis (hífen opcional, largura zero) foram tirados",
    "ligatures": "ligaduras de PDF (ﬁ, ﬂ) viraram letras separadas",
    "end_held_out": "documento dividido: o fim dele ficou para a validação",
    "split": "arquivo acima de 8 MiB, dividido entre parágrafos",
    "masked": "dados pessoais foram trocados por [CPF], [TELEFONE] e outros",
    "decontaminated": "frases que repetem um conjunto de avaliação foram tiradas",
    "windows_1252": "aspas e travessões do Windows foram recuperados",
    "lost_letters": "letras perdidas (n�o) foram recuperadas",
    "mixed_scripts": "letras de outro alfabeto dentro de palavras viraram latinas",
    "split_words": "palavras partidas por hífen foram emendadas",
    "boilerplate": "menus, avisos de cookies e chamadas de site foram tirados",
    "repeated_paragraphs": "parágrafos repetidos de outros documentos foram tirados",
    "doubled_accents": "acentos escritos duas vezes na mesma letra foram tirados",
    "editors_marks": "marcas de edição ([$...$], [#...#]) foram tiradas",
    "long_word_lines": "linhas com palavras de mais de 1.000 letras foram tiradas",
    "few_word_lines": "linhas de menos de 3 palavras foram tiradas",
    "citations": "marcas de citação ([12], [editar]) foram tiradas",
    "unended_lines": "linhas sem pontuação final foram tiradas",
    "javascript_lines": "linhas que pedem JavaScript foram tiradas",
    "not_spelled": "o tokenizador não escreve o texto como ele é: letras ou espaços mudam nos tokens",
    "policy_lines": "linhas sobre cookies e termos de uso, em inglês, foram tiradas",
}
"""What is changed in a document that is kept (for `split`: extra pieces) -> the words of a report."""

MAX_EXAMPLES = 3
"""Locations remembered for each reason."""


Attribute = str | int | float | bool
"""What a stage may find out about a document."""

REPAIRS_ATTRIBUTE = "repairs"
"""The attribute that names what was repaired in a document: keys of `REPAIRS`, a space between them."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text, where it comes from, and what stages found out about it."""

    text: str
    source: str
    """The file, with the line, row or paragraph after a colon where it holds many: `textos/a.jsonl:17`."""
    id: str = ""
    """The source's own identifier; empty where it has none."""
    licence: str = ""
    """Of this document: an SPDX identifier, or the source's words; empty where it is unknown."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    """Computed once by stages: `language`, `language_score`, `variety`, `words`, ..."""

    def with_attributes(self, **attributes: Attribute) -> Document:
        """The document with more attributes, or with others of the same names."""
        return replace(self, attributes={**self.attributes, **attributes})

    def repaired(self, text: str, *repairs: str) -> Document:
        """The document with another text; `repairs` (keys of `REPAIRS`) are added to those it has."""
        if not repairs:
            return self if text == self.text else replace(self, text=text)
        earlier = str(self.attributes.get(REPAIRS_ATTRIBUTE, ""))
        told = " ".join([*earlier.split(), *repairs])
        return replace(self, text=text, attributes={**self.attributes, REPAIRS_ATTRIBUTE: told})


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of the input that a reader could make no document of."""

    reason: str
    """A key of `REASONS`."""
    source: str
    """As a document's."""
    count: int = 1
    """Documents, where the reader knows how many."""


@dataclass(slots=True)
class DocumentCounts:
    """Documents dropped by reason, documents repaired, and how much of the input has been read."""

    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason or repair -> the first `MAX_EXAMPLES` sources."""
    input_bytes: int = 0
    """Bytes of the input files read so far, compressed ones as they are on disk."""

    def drop(self, reason: str, source: str, count: int = 1) -> None:
        """Count `count` documents from `source` as dropped; `reason` is a key of `REASONS`."""
        self._count(self.dropped, reason, source, count)

    def repair(self, kind: str, source: str) -> None:
        """Count a document from `source` as repaired; `kind` is a key of `REPAIRS`."""
        self._count(self.repaired, kind, source, 1)

    def skip(self, skipped: Skipped) -> None:
        """Count what a reader could make no document of."""
        self.drop(skipped.reason, skipped.source, skipped.count)

    def state(self) -> dict[str, Any]:
        """Everything counted, as JSON holds it."""
        return {
            "dropped": dict(self.dropped),
            "repaired": dict(self.repaired),
            "examples": self.examples,
            "input_bytes": self.input_bytes,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Count on from an earlier `state`."""
        self.dropped.update(state["dropped"])
        self.repaired.update(state["repaired"])
        self.examples.update(state["examples"])
        self.input_bytes = state["input_bytes"]

    def _count(self, counter: Counter[str], key: str, source: str, count: int) -> None:
        counter[key] += count
        sources = self.examples.setdefault(key, [])
        if len(sources) < MAX_EXAMPLES:
            sources.append(source)


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """Counts by reason as a part of a sentence, the most frequent first."""
    by_count = sorted(dropped.items(), key=lambda item: -item[1])
    return "; ".join(f"{count} × {REASONS.get(reason, reason)}" for reason, count in by_count)
