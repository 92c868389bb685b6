"""Lines of a site go; sentences that only mention such things stay."""

from __future__ import annotations

import pytest
from page_text import PAGE

from ptbr_slm.data.document import REASONS, REPAIRS, Document
from ptbr_slm.data.stages.boilerplate import RemoveBoilerplate, remove_boilerplate
from ptbr_slm.data.stages.stage import Dropped

SITE_LINES = """\
Este site utiliza cookies para melhorar sua experiência.
Utilizamos cookies essenciais e outros de acordo com a nossa Política de Privacidade.
Ao continuar navegando, você concorda com estas condições e com os termos de uso.
Aceitar todos os cookies
Política de Privacidade
© 2024 Jornal da Praça - Todos os direitos reservados.
Leia também:
Leia também: Prefeito anuncia obras
Continua após a publicidade
Publicidade
Compartilhe no Facebook
Compartilhar no WhatsApp e Telegram
Siga-nos no Instagram
Assine nossa newsletter
Inscreva-se no nosso canal e receba novidades
Clique aqui para ver a galeria de fotos.
Deixe um comentário
12 comentários
Voltar ao topo
Pular para o conteúdo principal
Home | Sobre | Contato
Início » Notícias » Esportes » Brasileirão
Por favor, ative o JavaScript do navegador."""
SITE = SITE_LINES.split("\n")

PROSE_LINES = """\
Um cookie é um pequeno arquivo que o navegador guarda.
Os cookies de aveia da avó eram os melhores.
Leia também nas entrelinhas do que ele escreveu, pediu o mestre.
Veja mais de perto o que acontece quando a água ferve.
A publicidade no rádio cresceu dez por cento no ano passado.
A política de privacidade dos bancos foi tema do debate de ontem no Senado.
Siga em frente até a praça e vire à direita.
Clique no botão para abrir a janela.
curta, e eu não esqueço nada.
publicidade das vossas homenagens.
Voltar ao início da história não muda o fim.
Contato
Receba, meu amigo, este abraço.
1/2 xícara de açúcar / 3 ovos / sal
| Nome | Idade | Cidade |"""
PROSE = PROSE_LINES.split("\n")


@pytest.mark.parametrize("line", SITE)
def test_lines_of_a_site_go(line: str):
    assert remove_boilerplate(f"Antes.\n{line}\nDepois.") == "Antes.\nDepois."


@pytest.mark.parametrize("line", PROSE)
def test_sentences_stay(line: str):
    text = f"Antes.\n{line}\nDepois."
    assert remove_boilerplate(text) == text


def test_a_menu_with_an_entry_a_line_goes():
    menu = "Home\nNotícias\nEsportes\nContato\n\n"
    assert remove_boilerplate(menu + PAGE) == PAGE.strip("\n")


def test_the_repair_is_told_and_a_page_of_menus_is_dropped():
    stage = RemoveBoilerplate()
    good = Document(PAGE, "a.txt")
    assert stage(good) is good
    changed = stage(Document("Publicidade\n" + PAGE, "a.txt"))
    assert isinstance(changed, Document) and changed.attributes == {"repairs": "boilerplate"}
    assert stage(Document("\n".join(SITE), "a.txt")) == Dropped("only_boilerplate")
    assert "boilerplate" in REPAIRS and "only_boilerplate" in REASONS
