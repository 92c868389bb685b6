"""Lines that belong to a site and not to its page: menus, cookie notices, calls to share, read or subscribe.

A line goes only as a whole, and only where the phrase is one that sites write of themselves: `este site
utiliza cookies` goes, `um cookie é um pequeno arquivo` stays. C4 (Raffel et al. 2020, arXiv:1910.10683,
section 2.2) drops lines with such phrases in English; the Portuguese ones are our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped

MAX_LINE = 400
"""Characters: a longer line is a paragraph that quotes such a phrase."""

_SITE = r"(?:est[ea]|nosso|nossa|o|a) (?:site|s[ií]tio|portal|p[áa]gina|blog|loja|aplicativo)"
_NOTICES = (
    rf"(?:{_SITE}|n[óo]s)? ?(?:usa|utiliza|usamos|utilizamos|faz uso de)(?: \w+)? cookies\b.*",
    r".*\bao continuar (?:navegando|a navega[çr]\w*|usando).*\b(?:cookies|pol[íi]tica|termos|concorda)\b.*",
    r".*\bse (?:você )?continuar (?:navegando|a navegar).*\b(?:cookies|pol[íi]tica|termos|concorda)\b.*",
    r"(?:aceitar|recusar|rejeitar|gerenciar|configurar)(?: todos(?: os)?| os)? cookies",
    r"cookies|pol[íi]tica de (?:privacidade|cookies)|termos (?:de uso|e condi[çc][õo]es)|aviso legal",
    r".*\b(?:aceit[eo]|concordo com) (?:os|nossos|o uso de|a|nossa| )*(?:cookies|pol[íi]tica|termos)\b.*",
    r"(?:copyright )?(?:©|\(c\))? ?.{0,60}\btodos os direitos reservados\b.{0,60}",
    r".*\bative o javascript\b.*",
)
_NOTICE = re.compile("|".join(_NOTICES), re.IGNORECASE)
_NOTICE_WORDS = ("cookie", "javascript", "termos", "privacidade", "direitos reservados", "aviso legal")
"""One of these is in every notice."""
_NETWORKS = (
    r"(?:no|na|nas|via|por|pelo|em|com|,|e|ou| )*\b"
    r"(?:facebook|twitter|x|whatsapp|telegram|linkedin|instagram|pinterest|e-?mail|redes sociais|seus amigos)"
)
_CALLS = (
    r"(?:leia|veja|confira|assista|ouça|saiba) (?:também|tamb[ée]m|mais)(?: ?[:>»] ?.*)?",
    r"continua (?:após|depois d)[ae]? ?(?:a )?publicidade|publicidade|conte[úu]do patrocinado",
    rf"(?:compartilh[ae]r?|curta|siga(?:-nos)?|seguir)(?: \w+){{0,3}}?(?: {_NETWORKS})+",
    r"compartilh(?:e|ar)(?: ?[:|/])?",
    r"(?:assine|receba|inscreva-se|cadastre-se)(?: \w+){0,4} (?:newsletter|boletim|novidades|canal)\b.{0,80}",
    r"clique aqui(?: (?:para|e) .{0,80})?",
    r"(?:deixe|envie) (?:um|seu|o seu) coment[áa]rio|\d+ coment[áa]rios?",
    r"voltar (?:ao|para o) (?:topo|in[íi]cio)|(?:pular|ir) para o conte[úu]do(?: principal)?",
    r"fazer login|esqueci minha senha|minha conta|meu carrinho|adicionar ao carrinho",
)
_CALL = re.compile("|".join(_CALLS), re.IGNORECASE)
_BEGINNINGS = """
leia veja confira assista ouça saiba continua publicidade conteúdo conteudo compartilhe compartilhar
compartilha curta siga siga-nos seguir assine receba inscreva-se cadastre-se clique deixe envie voltar pular
ir fazer esqueci minha meu adicionar
"""
_CALL_BEGINNINGS = frozenset(_BEGINNINGS.split())
"""The first words of calls, in lower case; a number begins one too."""
_END = re.compile(r"[\s.!…»>:]+$")

_ENTRIES = """
home, início, inicio, contato, contacto, contatos, sobre, sobre nós, quem somos, fale conosco, blog,
notícias, loja, produtos, serviços, empresa, entrar, login, cadastre-se, cadastro, menu, buscar, busca,
pesquisar, pesquisa, mapa do site, faq, ajuda, galeria, galeria de fotos, fotos, vídeos, eventos, downloads,
links, anuncie, esportes, economia, política, cultura, entretenimento, colunistas, últimas notícias,
editorias, assine, newsletter, trabalhe conosco, onde estamos, localização, clientes, facebook, twitter,
instagram, youtube, linkedin, whatsapp, categorias, arquivo, tags
"""
_MENU_WORDS = frozenset(entry.strip() for entry in _ENTRIES.replace("\n", " ").split(","))
"""Entries of menus, in lower case."""
_SEPARATOR = re.compile(r"[|»•·›>/\t]|  ")
MIN_MENU = 3
"""Entries that a line, or lines one after another, must have, two of them known, to be a menu."""


def _is_menu_line(line: str) -> bool:
    """`Home | Sobre | Contato`."""
    entries = [entry.strip() for entry in _SEPARATOR.split(line.lower()) if entry.strip()]
    known = sum(entry in _MENU_WORDS for entry in entries)
    return len(entries) >= MIN_MENU and known >= max(2, len(entries) / 3)


def _is_site_line(line: str) -> bool:
    """A notice, a call or a menu. A line in lower case continues the one before and is none."""
    if not line or len(line) > MAX_LINE or line[0].islower():
        return False
    lower = line.lower()
    if any(word in lower for word in _NOTICE_WORDS) and _NOTICE.fullmatch(_END.sub("", line)):
        return True
    first = lower.split(None, 1)[0].rstrip(".:!|/") if not line.isspace() else ""
    if (first in _CALL_BEGINNINGS or first.isdigit()) and _CALL.fullmatch(_END.sub("", line).strip()):
        return True
    return _SEPARATOR.search(line) is not None and _is_menu_line(line)


def _menu_blocks(lines: list[str]) -> set[int]:
    """Numbers of lines that are entries of a menu, one a line."""
    found: set[int] = set()
    run: list[int] = []
    for number, line in enumerate([*lines, "."]):
        if len(line) <= MAX_LINE and _END.sub("", line).strip().lower() in _MENU_WORDS:
            run.append(number)
            continue
        if len(run) >= MIN_MENU:
            found.update(run)
        if line.strip():
            run = []
    return found


def remove_boilerplate(text: str) -> str:
    """`text` without the lines of a site."""
    lines = text.split("\n")
    menus = _menu_blocks(lines)
    kept = [line for number, line in enumerate(lines) if number not in menus and not _is_site_line(line)]
    if len(kept) == len(lines):
        return text
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")


@dataclass(frozen=True, slots=True)
class RemoveBoilerplate:
    """`remove_boilerplate` as a stage."""

    name: str = "remove_boilerplate"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document without those lines; dropped as `only_boilerplate` where none is left."""
        text = remove_boilerplate(document.text)
        if text == document.text:
            return document
        return document.repaired(text, "boilerplate") if text.strip() else Dropped("only_boilerplate")
