"""Pede respostas a um modelo maior e grava as conversas, que `ptbr-slm tune` lê.

    python examples/destilar_texto.py PROFESSOR perguntas.txt -o conversas.jsonl --licenca Apache-2.0

PROFESSOR: a pasta de um modelo ou export que sabe conversar, com qualquer tokenizador, ou o endereço de um
servidor compatível com OpenAI (http://localhost:8000#NOME). As perguntas: uma por linha, ou JSONL com
`prompt` ou `messages`. Interrompido, até com kill -9, continua de onde parou quando o comando é repetido.

Respostas vazias e as que não terminam ficam de fora, e são contadas. Ao lado de conversas.jsonl ficam
conversas.jsonl.origem.json (professor, licença, amostragem, contagens) e conversas.jsonl.fora.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.json_client import JsonClient, Refused
from ptbr_slm.eval.server_subject import ServerSubject, is_url
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import ChatPrompt
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.storage.manifest import sha256_file

Mensagens = list[dict[str, str]]
Resposta = tuple[str, str]
"""O texto, e por que terminou: `stop` quando o professor disse tudo."""


def perguntas(arquivo: Path, sistema: str) -> Iterator[Mensagens]:
    """As conversas que esperam uma resposta, na ordem do arquivo."""
    inicio = [{"role": "system", "content": sistema}] if sistema else []
    for linha in arquivo.read_text(encoding="utf-8").splitlines():
        if not linha.strip():
            continue
        if arquivo.suffix != ".jsonl":
            yield [*inicio, {"role": "user", "content": linha.strip()}]
            continue
        item = json.loads(linha)
        mensagens = item.get("messages") or [{"role": "user", "content": item["prompt"]}]
        while mensagens[-1]["role"] == "assistant":  # a resposta é do professor
            mensagens = mensagens[:-1]
        yield mensagens if mensagens[0]["role"] == "system" else [*inicio, *mensagens]


def professor_local(
    pasta: Path, amostragem: dict[str, Any]
) -> tuple[dict[str, str], Callable[[list[Mensagens]], list[Resposta]]]:
    """Quem ele é, e uma função que responde a várias conversas por vez."""
    modelo = Model(pasta)
    if not modelo.is_tuned:
        sys.exit(f"{pasta} continua textos, e não aprendeu a responder: não serve de professor.")
    manifesto = pasta / "manifest.json"
    quem = {"teacher": pasta.resolve().name}
    if manifesto.exists():
        quem["teacher_sha256"] = sha256_file(manifesto)

    def responder(lote: list[Mensagens]) -> list[Resposta]:
        resultados = modelo.generate_detailed([ChatPrompt(mensagens) for mensagens in lote], **amostragem)
        fins = {"eos": "stop"}
        return [(r.text, fins.get(r.finish_reason, r.finish_reason)) for r in resultados]

    return quem, responder


def professor_servidor(
    endereco: str, amostragem: dict[str, Any]
) -> tuple[dict[str, str], Callable[[list[Mensagens]], list[Resposta]]]:
    """O mesmo, por /v1/chat/completions; a chave, se é preciso uma, vem de OPENAI_API_KEY."""
    servidor = ServerSubject(endereco)
    cliente = JsonClient(servidor.url, 300.0)
    opcoes = {**amostragem, "max_tokens": amostragem["max_new_tokens"]}
    del opcoes["max_new_tokens"]

    def uma(mensagens: Mensagens) -> Resposta:
        try:
            corpo = {"model": servidor.model, "messages": mensagens, **opcoes}
            escolha = cliente.post("/v1/chat/completions", corpo)["choices"][0]
        except Refused as recusa:  # longa demais, por exemplo
            return "", f"recusada: {recusa}"
        return str(escolha["message"]["content"] or ""), str(escolha["finish_reason"])

    def responder(lote: list[Mensagens]) -> list[Resposta]:
        with ThreadPoolExecutor(len(lote)) as varias:
            return list(varias.map(uma, lote))

    return {"teacher": servidor.name, "teacher_sha256": servidor.identity}, responder


def linhas_inteiras(arquivo: Path) -> list[dict[str, Any]]:
    """O que já está gravado; uma linha que um kill -9 cortou sai do arquivo."""
    if not arquivo.exists():
        return []
    conteudo = arquivo.read_bytes()
    inteiro = conteudo[: conteudo.rfind(b"\n") + 1]
    if inteiro != conteudo:
        with arquivo.open("r+b") as aberto:
            aberto.truncate(len(inteiro))
    return [json.loads(linha) for linha in inteiro.splitlines()]


def reservar(saida: Path, ficha: Path, origem: dict[str, Any]) -> None:
    """Grava de onde vêm as conversas; para se a saída é de outra destilação, ou de outro programa."""
    if ficha.exists():
        antes = json.loads(ficha.read_text(encoding="utf-8"))
        mudou = [chave for chave in origem if antes.get(chave) != origem[chave]]
        if mudou:
            sys.exit(f"{saida} é de outra destilação ({', '.join(mudou)}): escolha outro -o.")
    elif saida.exists():
        sys.exit(f"{saida} já existe e não foi feito por este programa: escolha outro -o.")
    write_json(ficha, origem)


def destilar(opcoes: argparse.Namespace) -> Counter[str]:
    """Pergunta o que falta e devolve quantas conversas há, e quantas ficaram de fora por cada motivo."""
    amostragem = {"max_new_tokens": opcoes.max_new_tokens, "temperature": opcoes.temperature,
                  "top_p": opcoes.top_p, "seed": opcoes.seed}  # fmt: skip
    abrir: Any = professor_servidor if is_url(opcoes.professor) else professor_local
    alvo = opcoes.professor if is_url(opcoes.professor) else Path(opcoes.professor)
    quem, responder = abrir(alvo, amostragem)
    origem = {
        **quem,
        "licence": opcoes.licenca,
        "prompts_sha256": sha256_file(opcoes.perguntas),
        "system": opcoes.sistema,
        "sampling": amostragem,
    }
    saida: Path = opcoes.saida
    ficha = saida.with_name(saida.name + ".origem.json")
    fora = saida.with_name(saida.name + ".fora.jsonl")
    reservar(saida, ficha, origem)
    gravadas, descartes = linhas_inteiras(saida), linhas_inteiras(fora)
    contagem = Counter(linha["reason"] for linha in descartes)
    contagem["conversas"] = len(gravadas)
    feitas = {linha["id"] for linha in (*gravadas, *descartes)}
    todas = list(enumerate(perguntas(opcoes.perguntas, opcoes.sistema)))
    faltam = [(numero, mensagens) for numero, mensagens in todas if numero not in feitas]
    with saida.open("a", encoding="utf-8") as boas, fora.open("a", encoding="utf-8") as descartadas:
        for inicio in range(0, len(faltam), opcoes.lote):
            lote = faltam[inicio : inicio + opcoes.lote]
            respostas = responder([mensagens for _, mensagens in lote])
            for (numero, mensagens), (texto, fim) in zip(lote, respostas, strict=True):
                motivo = fim if fim != "stop" else "" if texto.strip() else "vazia"
                if motivo:
                    linha: dict[str, Any] = {"id": numero, "reason": motivo}
                else:
                    resposta = {"role": "assistant", "content": texto.strip()}
                    linha = {"id": numero, "messages": [*mensagens, resposta]}
                (descartadas if motivo else boas).write(json.dumps(linha, ensure_ascii=False) + "\n")
                contagem[motivo or "conversas"] += 1
            boas.flush()
            descartadas.flush()
            print(f"\r{len(todas) - len(faltam) + inicio + len(lote)} de {len(todas)}", end="", flush=True)
    write_json(ficha, {**origem, "counts": dict(contagem)})
    print(f"\n{contagem['conversas']} conversas em {saida}")
    for motivo, vezes in sorted(contagem.items()):
        if motivo != "conversas":
            print(f"  {vezes} de fora: {motivo}")
    return contagem


def ler_opcoes(argumentos: list[str] | None = None) -> argparse.Namespace:
    """O que foi escrito na linha de comando."""
    leitor = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    leitor.add_argument("professor", metavar="PROFESSOR", help="pasta ou endereço")
    leitor.add_argument("perguntas", metavar="PERGUNTAS", type=Path, help="arquivo .txt ou .jsonl")
    leitor.add_argument("-o", "--saida", type=Path, required=True, metavar="CONVERSAS.jsonl")
    leitor.add_argument("--licenca", required=True, help="do que o professor escreve: leia a dele antes")
    leitor.add_argument("--sistema", default="", help="mensagem de sistema, gravada com as conversas")
    leitor.add_argument("--max-new-tokens", type=int, default=256, help="de uma resposta (padrão: 256)")
    leitor.add_argument("--temperature", type=float, default=0.3, help="0: sempre a palavra mais provável")
    leitor.add_argument("--top-p", type=float, default=0.9)
    leitor.add_argument("--seed", type=int, default=0)
    leitor.add_argument("--lote", type=int, default=16, help="perguntas por vez (padrão: 16)")
    return leitor.parse_args(argumentos)


if __name__ == "__main__":
    try:
        destilar(ler_opcoes())
    except SlmError as erro:
        sys.exit(f"Erro [{erro.code}]: {erro.message}\n  em: {erro.where}\n  {erro.hint}")
