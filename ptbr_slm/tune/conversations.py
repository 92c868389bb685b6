"""Conversations out of files: which form the rows have, and what in them is no conversation.

The form is told by the columns of a file's first rows, or asked for:

    messages           messages: [{role, content}, ...]
    prompt_completion  prompt, completion (or response; or pergunta, resposta): texts, or lists of messages
    alpaca             instruction, input (optional), output; Dolly's context and response too
    sharegpt           conversations: [{from: human | gpt | system, value}, ...]
    preference         prompt, chosen, rejected; without a prompt, what chosen and rejected begin with alike
    text               text: learnt as it is, without any form of a conversation

The columns are those of the data sets on the Hugging Face hub and of TRL 1.16 (docs, "Dataset formats and
types"). What cannot be used is skipped and counted under a key of `REASONS`, and never changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

from ptbr_slm.chat.messages import ROLES, Message
from ptbr_slm.data.document import REASONS as INPUT_REASONS
from ptbr_slm.data.document import DocumentCounts, Skipped
from ptbr_slm.data.read.files import ROW_FORMATS, InputFile, list_files
from ptbr_slm.data.read.formats import Row
from ptbr_slm.data.read.reader import Position, read_rows
from ptbr_slm.data.wrong_input import ALWAYS_ALLOWED, MAX_WRONG, WRONG
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number

REASONS: dict[str, str] = {
    **INPUT_REASONS,
    "empty": "sem mensagens, ou com uma em branco",
    "no_fields": "sem os campos do formato",
    "no_assistant": "sem resposta do assistente",
    "ends_with_user": "não termina com o assistente",
    "same_role_twice": "duas mensagens seguidas do mesmo papel",
    "wrong_order": "começa com o assistente, ou tem system no meio",
    "unknown_role": "papel que não é system, user nem assistant",
    "same_answers": "a resposta escolhida e a recusada são iguais",
    "not_one_answer": "as duas respostas diferem em mais de uma mensagem",
    "long_line": INPUT_REASONS["too_long"],
    "too_long": "a última pergunta e a resposta não cabem na sequência",
    "masked": "não sobra nenhum token a treinar",
    "template": "o modelo de conversa recusa as mensagens",
    "duplicate": "cópia exata de outra",
    "contaminated": "repete um conjunto de avaliação",
}
"""Why a conversation is skipped -> the words of a report."""
_OF_INPUT = {"too_long": "long_line", "no_text": "no_fields"}
"""A reader's reason -> ours, where they differ."""
_WRONG = {_OF_INPUT.get(reason, reason) for reason in WRONG}
_DETECTION_ROWS = 10


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages that end with the assistant's."""

    messages: tuple[Message, ...]
    where: str
    """The file and the line, row or item: `conversas.jsonl:17`."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same messages, of which the first is wanted."""

    prompt: tuple[Message, ...]
    """Ends with the user's."""
    chosen: str
    rejected: str
    where: str


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text to be learnt as it is."""

    text: str
    where: str


Item = Conversation | Preference | PlainText
Fields = Mapping[str, object]


class Unusable(Exception):
    """A row that no item can be made of; the argument is a key of `REASONS`."""

    @property
    def reason(self) -> str:
        """A key of `REASONS`."""
        return str(self.args[0])


def read_items(
    files: Sequence[Path],
    *,
    format: str = "auto",
    pairs: bool = False,
    counts: DocumentCounts | None = None,
) -> Iterator[Item]:
    """Every usable row of .jsonl, .json, .csv and .parquet files (.gz, .zst too), of folders and of `-`.

    format: a key of `FORMATS`, or `auto`: each file's own. pairs: of columns that say two forms (`messages`
    beside `chosen` and `rejected`), take the pairs. counts: filled with what is skipped, and with the
    bytes read. Raises E_CONFIG for a format that does not exist, E_NOT_FOUND, E_PERMISSION, E_DATA_FORMAT for
    files and columns that are none of the above, E_DATA_WRONG where more than 1 % of the rows (and more than
    100) are wrong, and E_DEPENDENCY for Parquet without pyarrow.
    """
    if format not in ("auto", *FORMATS):
        raise SlmError(
            "E_CONFIG",
            f"não existe o formato de conversas {format!r}.",
            where="format",
            hint=f"Use auto, {', '.join(FORMATS)}.",
        )
    counts = counts if counts is not None else DocumentCounts()
    items = before = 0
    for file in list_files(files, ROW_FORMATS):
        if isinstance(file, Skipped):
            _skip(counts, file)
            continue
        position = Position()
        for row in _parsed_rows(file, format, pairs, position):
            items += 1
            if isinstance(row, Skipped):
                items += row.count - 1
                _skip(counts, row)
                if counts.dropped.total() % ALWAYS_ALLOWED == 0:
                    _check_wrong(counts, items, finished=False)
            else:
                yield row
            counts.input_bytes = before + position.now
        before += position.bytes
        counts.input_bytes = before
    _check_wrong(counts, items, finished=True)


def _parsed_rows(file: InputFile, format: str, pairs: bool, position: Position) -> Iterator[Item | Skipped]:
    rows = read_rows(file, position)
    if format == "auto":
        first = list(islice(rows, _DETECTION_ROWS))
        format, rows = _detected(first, pairs, file), chain(first, rows)
    parse = FORMATS[format]
    for row in rows:
        if isinstance(row, Skipped):
            yield row
            continue
        try:
            yield parse(row.fields, row.source)
        except Unusable as error:
            yield Skipped(error.reason, row.source)


def _skip(counts: DocumentCounts, skipped: Skipped) -> None:
    counts.drop(_OF_INPUT.get(skipped.reason, skipped.reason), skipped.source, skipped.count)


def _check_wrong(counts: DocumentCounts, items: int, *, finished: bool) -> None:
    """Raise E_DATA_WRONG where too many rows are no rows; before the end, where far too many are."""
    wrong = {reason: count for reason, count in counts.dropped.items() if reason in _WRONG}
    total = sum(wrong.values())
    limit = MAX_WRONG * items if finished else items / 2
    if total <= ALWAYS_ALLOWED or total <= limit:
        return
    most = max(wrong, key=wrong.__getitem__)
    raise SlmError(
        "E_DATA_WRONG",
        f"{number(total)} das {number(items)} linhas lidas estão erradas, e o limite é "
        f"{number(100 * MAX_WRONG)} %: {describe_skipped(wrong)}.",
        where=counts.examples[most][0],
        hint="Confira este arquivo; o formato pode ser outro (--format).",
    )


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Counts by reason as a part of a sentence, the most frequent first."""
    by_count = sorted(skipped.items(), key=lambda item: -item[1])
    return "; ".join(f"{number(count)} × {REASONS.get(reason, reason)}" for reason, count in by_count)


# Forms of rows


def detect(columns: Sequence[str], *, pairs: bool = False) -> str | None:
    """The form of rows with these columns: a key of `FORMATS`, or None. pairs: rather than conversations."""
    found = [name for name, needed in _COLUMNS if needed <= set(columns)]
    return "preference" if pairs and "preference" in found else next(iter(found), None)


_COLUMNS: tuple[tuple[str, set[str]], ...] = (
    ("messages", {"messages"}),
    ("sharegpt", {"conversations"}),
    ("prompt_completion", {"prompt", "completion"}),
    ("prompt_completion", {"prompt", "response"}),
    ("prompt_completion", {"pergunta", "resposta"}),
    ("alpaca", {"instruction", "output"}),
    ("alpaca", {"instruction", "response"}),
    ("preference", {"chosen", "rejected"}),
    ("text", {"text"}),
)


def _detected(rows: Sequence[Row | Skipped], pairs: bool, file: InputFile) -> str:
    """The form of a file. Raises E_DATA_FORMAT where its rows have one that is unknown."""
    columns = [list(row.fields) for row in rows if isinstance(row, Row)]
    forms = (detect(names, pairs=pairs) for names in columns)
    found = next((form for form in forms if form is not None), None)
    if found is None and columns:
        raise SlmError(
            "E_DATA_FORMAT",
            f"não reconheço conversas nas colunas {', '.join(map(str, columns[0][:8]))}.",
            where=file.name,
            hint="Use uma coluna messages com [{role, content}], ou prompt e completion, instruction e "
            "output, conversations, text, ou chosen e rejected.",
        )
    return found or "messages"


def _messages_row(fields: Fields, where: str) -> Conversation:
    return _conversation(fields, _messages(_needed(fields, "messages")), where)


def _sharegpt_row(fields: Fields, where: str) -> Conversation:
    return _conversation(fields, _messages(_needed(fields, "conversations")), where)


def _prompt_completion_row(fields: Fields, where: str) -> Conversation:
    prompt = _one_side(_needed(fields, "prompt", "pergunta"), "user")
    answer = _one_side(_needed(fields, "completion", "response", "resposta"), "assistant")
    return _conversation(fields, [*prompt, *answer], where)


def _alpaca_row(fields: Fields, where: str) -> Conversation:
    instruction = _text(_needed(fields, "instruction"))
    further = _text(fields.get("input") or fields.get("context") or "")
    question = f"{instruction}\n\n{further}" if further.strip() else instruction
    answer = _text(_needed(fields, "output", "response"))
    return _conversation(fields, [Message("user", question), Message("assistant", answer)], where)


def _preference_row(fields: Fields, where: str) -> Preference:
    chosen = _one_side(_needed(fields, "chosen"), "assistant")
    rejected = _one_side(_needed(fields, "rejected"), "assistant")
    shared = _common_prefix(chosen, rejected)
    if chosen == rejected:
        raise Unusable("same_answers")
    if len(chosen) != shared + 1 or len(rejected) != shared + 1:
        raise Unusable("not_one_answer")
    prompt = chosen[:shared]
    if not prompt:
        prompt = _one_side(_needed(fields, "prompt"), "user")
    whole = _conversation(fields, [*prompt, chosen[-1]], where).messages
    _check([*whole[:-1], rejected[-1]])
    return Preference(whole[:-1], whole[-1].content, rejected[-1].content, where)


def _text_row(fields: Fields, where: str) -> PlainText:
    text = _text(_needed(fields, "text"))
    if not text.strip():
        raise Unusable("empty")
    return PlainText(text, where)


FORMATS: dict[str, Callable[[Fields, str], Item]] = {
    "messages": _messages_row,
    "prompt_completion": _prompt_completion_row,
    "alpaca": _alpaca_row,
    "sharegpt": _sharegpt_row,
    "preference": _preference_row,
    "text": _text_row,
}
"""Name of a form -> what makes an item of a row. Raises Unusable."""

_ROLE_NAMES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
"""ShareGPT's names for the roles -> ours."""


def _needed(fields: Fields, *names: str) -> object:
    """The first of these fields that is there. Raises Unusable for none."""
    value = next((fields[name] for name in names if fields.get(name) is not None), None)
    if value is None:
        raise Unusable("no_fields")
    return value


def _text(value: object) -> str:
    """A text as it is; of OpenAI's list of parts (`{"type": "text", "text": ...}`), their texts."""
    if isinstance(value, list) and value:
        parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        if len(parts) == len(value):
            return "\n".join(_text(part) for part in parts)
    if not isinstance(value, str):
        raise Unusable("no_fields")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate
        raise Unusable("not_utf8") from error
    return value


def _messages(value: object) -> list[Message]:
    """A list of messages; a column of a CSV holds it as JSON. Raises Unusable."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unusable("no_fields") from error
    if not isinstance(value, list):
        raise Unusable("no_fields")
    return [_message(one) for one in value]


def _message(value: object) -> Message:
    if not isinstance(value, dict):
        raise Unusable("no_fields")
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if not isinstance(role, str):
        raise Unusable("no_fields")
    role = _ROLE_NAMES.get(role, role)
    if role not in ROLES:
        raise Unusable("unknown_role")
    return Message(role, "" if content is None or content == [] else _text(content))


def _one_side(value: object, role: str) -> list[Message]:
    """A prompt or an answer: a text, or a list of messages. Raises Unusable."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):  # a list of messages in a CSV
        try:
            return _messages(value)
        except Unusable:
            pass
    return _messages(value) if isinstance(value, list) else [Message(role, _text(value))]


def _common_prefix(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many messages two conversations begin with alike."""
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _conversation(fields: Fields, messages: list[Message], where: str) -> Conversation:
    """The conversation of a row, with the text of its column `system` first. Raises Unusable."""
    system = fields.get("system")
    if isinstance(system, str) and system.strip() and messages and messages[0].role != "system":
        messages = [Message("system", _text(system)), *messages]
    _check(messages)
    return Conversation(tuple(messages), where)


def _check(messages: Sequence[Message]) -> None:
    """Refuse what is no conversation of turns that ends with an answer. Raises Unusable."""
    if not messages or any(not message.content.strip() for message in messages):
        raise Unusable("empty")
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise Unusable("no_assistant")
    turns = roles[1:] if roles[0] == "system" else roles
    if any(a == b for a, b in pairwise(turns)):
        raise Unusable("same_role_twice")
    if turns[0] != "user" or "system" in turns:
        raise Unusable("wrong_order")
    if turns[-1] != "assistant":
        raise Unusable("ends_with_user")
