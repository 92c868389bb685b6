"""Runs the Jinja template of a model, in a sandbox, with what transformers gives it.

The environment is that of transformers 5 (utils/chat_template_utils.py, `_cached_compile_jinja_template`):
the same filters, functions and trimming. `{% generation %}` ... `{% endgeneration %}` encloses what the
assistant writes; here it leaves two marks in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

_GENERATION = re.compile(r"\{%(?P<left>[-+]?)\s*(?P<end>end)?generation\s*(?P<right>[-+]?)%\}")


class ChatTemplate:
    """A compiled template. Raises `jinja2.TemplateError`, and whatever else its code raises."""

    def __init__(self, source: str, start: str = "", end: str = "") -> None:
        """start, end: texts written where `{% generation %}` opens and closes."""
        self.has_generation = _GENERATION.search(source) is not None
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.extend(generation_start=start, generation_end=end)
        environment.filters["tojson"] = _tojson
        environment.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "dict": _Dict(),
            "namespace": _Namespace,
        }
        self._compiled = environment.from_string(source)

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        variables: Mapping[str, str],
    ) -> str:
        """The text of a conversation. variables: the names of special tokens, as `bos_token`."""
        return self._compiled.render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **variables,
        )


def without_generation_marks(source: str) -> str:
    """The template without `{% generation %}`, which llama.cpp and onnxruntime-genai do not know.

    A mark that trims the white space around it, or might, becomes `{% if true %}`, which trims alike.
    """

    def replaced(mark: re.Match[str]) -> str:
        before, after = source[mark.start() - 1 : mark.start()], source[mark.end() : mark.end() + 1]
        if not (mark["left"] or mark["right"] or before.isspace() or after.isspace()):
            return ""
        return f"{{%{mark['left']} {'endif' if mark['end'] else 'if true'} {mark['right']}%}}"

    return _GENERATION.sub(replaced, source)


def trimmed(source: str) -> str:
    """The template for an engine that trims nothing around blocks, as onnxruntime-genai's.

    Its text is what trimming leaves; white space beside a block is written as an expression, so that an
    engine that trims leaves it too. A template that is not valid stays as it is.
    """
    lexer = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).lexer
    try:
        parts = [(kind, value) for _, kind, value in lexer.tokeniter(source, None)]
    except jinja2.TemplateSyntaxError:
        return source
    written = []
    for number, (kind, value) in enumerate(parts):
        if kind == "data":
            raw = number > 0 and parts[number - 1][0] == "raw_begin"
            trimmable = (number > 0 and value[:1].isspace()) or value[-1:].isspace()
            quoted = f"{{{{ {json.dumps(value, ensure_ascii=False)} }}}}"
            written.append(quoted if raw or trimmable else value)
        elif kind in ("raw_begin", "raw_end"):
            continue
        elif kind.endswith(("_begin", "_end")):
            written.append(value.replace("+", "").strip())
        else:
            written.append(value)
    return "".join(written)


class _Generation(Extension):
    """`{% generation %}`: its body between the environment's two marks."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        settings: Any = self.environment
        return f"{settings.generation_start}{caller()}{settings.generation_end}"


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes what HTML would read."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _Dict:
    """`dict` without the attributes of the type, by which a template could leave the sandbox."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` without names that begin with an underscore, for the same reason."""

    def __init__(*args: Any, **values: Any) -> None:  # so that `namespace(self=...)` works
        self, rest = args[0], args[1:]
        names = dict(*rest, **values)
        for name in names:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")
