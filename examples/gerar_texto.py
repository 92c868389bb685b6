"""Gera texto com um modelo exportado:  python examples/gerar_texto.py runs/meu/export "O Brasil é" """

import sys

import ptbr_slm

pasta, inicio = sys.argv[1], sys.argv[2]

# Um texto inteiro de uma vez.
print(inicio + ptbr_slm.generate(inicio, model=pasta, max_new_tokens=40, temperature=0.8, seed=1))

# O mesmo, palavra por palavra.
print(inicio, end="")
for pedaco in ptbr_slm.stream(inicio, model=pasta, max_new_tokens=40, temperature=0.8, seed=1):
    print(pedaco.text, end="", flush=True)
print()

# Vários inícios juntos, com velocidade e motivo do fim.
with ptbr_slm.load(pasta) as modelo:
    for resultado in modelo.generate_detailed(["Era uma vez", "No Recife,"], max_new_tokens=40, seed=1):
        print(f"{resultado.finish_reason}: {resultado.tokens_per_second:.0f} tokens/s: {resultado.text!r}")
