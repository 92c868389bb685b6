#!/usr/bin/env bash
# Exercita os modelos grandes num computador sem GPU: treina um passo, exporta, confere e gera texto.
set -euo pipefail

usage() {
  cat <<'TEXT'
Uso: bash scripts/build_test_cpu.sh [opções] [TAMANHO...]

Cria um ambiente Python, instala o ptbr-slm e, para cada tamanho (padrão: 85m e 400m), faz no
processador o caminho inteiro: um passo de treino (ida e volta), exportação para ONNX int8,
conferência com o PyTorch e geração de texto. Serve para ver se tudo funciona, não para aprender:
o texto tem meia página, e o vocabulário pequeno deixa o modelo um pouco menor que o nome.

Opções:
  --work PASTA     onde trabalhar (padrão: build-test-cpu; o que é grande sai no fim)
  --seq-len N      tokens por sequência no passo de treino (padrão: 32)
  --no-venv        usa o Python atual, que já tem o ptbr-slm instalado
  --keep           não apaga os modelos no fim
  -h, --help       mostra esta ajuda

Variáveis: PYTHON (qual Python usar), PIP_ARGS (opções a mais para o pip).
O 400m pede uns 7 GiB de memória livre; sem ela, é pulado com um aviso.
TEXT
}

fail() {
  echo "Erro: $1" >&2
  exit "${2:-1}"
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
work="build-test-cpu"
seq_len=32
venv=1
keep=0
sizes=()

while (($#)); do
  case "$1" in
    --work | --seq-len)
      (($# > 1)) || fail "falta o valor de $1." 2
      if [[ "$1" == --work ]]; then work="$2"; else seq_len="$2"; fi
      shift 2
      ;;
    --no-venv)
      venv=0
      shift
      ;;
    --keep)
      keep=1
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*) fail "não conheço a opção $1. Veja: bash scripts/build_test_cpu.sh --help" 2 ;;
    *)
      sizes+=("$1")
      shift
      ;;
  esac
done
((${#sizes[@]})) || sizes=(85m 400m)

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "preciso do Python 3.11 ou mais novo. Use: PYTHON=python3.11 bash scripts/build_test_cpu.sh"
mkdir -p "$work"

if ((venv)); then
  [[ -x "$work/venv/bin/python" ]] || "$python" -m venv "$work/venv"
  python="$work/venv/bin/python"
  echo "Instalando em $work/venv ..."
  # shellcheck disable=SC2086 # PIP_ARGS is a list of options
  "$python" -m pip install --quiet ${PIP_ARGS:-} -c "$root/constraints.txt" -e "$root[cpu,train,export]"
fi

slm() { "$python" -m ptbr_slm "$@"; }

# Run a verb and say how long it took and how much memory it held at most.
measured() {
  "$python" - "$@" <<'PYTHON'
import resource, subprocess, sys, time

start = time.monotonic()
code = subprocess.call([sys.executable, "-m", "ptbr_slm", *sys.argv[1:]])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(f"  [{sys.argv[1]}: {time.monotonic() - start:.0f} s, pico de {peak / 2**30:.1f} GiB]".replace(".", ","))
sys.exit(code)
PYTHON
}

# Bytes free for a program; empty where the system does not tell.
free_memory() { awk '/^MemAvailable:/ {printf "%.0f", $2 * 1024}' /proc/meminfo 2>/dev/null || true; }

# The step, the copy of the weights that is written, and half a GiB for PyTorch itself.
needed_memory() {
  slm info --model-size "$1" --vocab-size 1024 --batch-size 1 --seq-len "$seq_len" --json |
    "$python" -c 'import json, sys; d = json.load(sys.stdin); print(d["cpu_fp32_bytes"] + d["weights_bytes"] + 2**29)'
}

cat >"$work/texto.txt" <<'TEXT'
Na beira do rio há uma casa de tijolos, e na casa mora um relojoeiro que conserta o tempo dos outros. De manhã ele abre as janelas, põe a água no fogo e conversa com os pássaros que vêm pedir migalhas.

A feira começa antes do sol. Primeiro chegam as verduras, depois as frutas, por fim os vendedores de panelas, que batem nas tampas para acordar a rua. Quem compra cedo paga mais; quem compra tarde leva o que sobrou.

O ônibus da escola passa às sete. As crianças sobem com sono, encostam a cabeça no vidro e contam os postes até a ponte. Do outro lado da ponte o dia já começou, com giz, recreio e tabuada.

Quando chove forte, o bairro inteiro fica em silêncio. Só se ouvem as calhas, os cachorros assustados e um rádio que insiste em tocar samba, como se o céu estivesse azul e a roupa no varal, seca.

À noite o relojoeiro fecha a oficina e escreve cartas. Nunca envia nenhuma: guarda todas numa gaveta, por ordem de saudade, e diz que um dia alguém vai precisar delas para saber que horas eram.
TEXT

echo
echo "== preparação"
slm doctor --quiet
slm tokenizer train "$work/texto.txt" -o "$work/tokenizer.json" --vocab-size 1024 --quiet
slm data prepare "$work/texto.txt" -o "$work/dados" --tokenizer "$work/tokenizer.json" \
  --paragraph-documents --valid-fraction 0.2 --quiet

for size in "${sizes[@]}"; do
  echo
  echo "== $size"
  needed="$(needed_memory "$size")"
  free="$(free_memory)"
  if [[ -n "$free" ]] && ((needed > free)); then
    echo "Pulado: o treino do $size pede $((needed >> 20)) MiB (calculado), e há $((free >> 20)) MiB livres." >&2
    continue
  fi
  rm -rf "$work/$size"
  measured train --data "$work/dados" --output "$work/$size" --model-size "$size" \
    --batch-size 1 --grad-accum 1 --seq-len "$seq_len" --max-steps 1 --quiet
  measured export "$work/$size/final" -o "$work/$size/export" --precision int8 --quiet
  measured verify "$work/$size/export" --against "$work/$size/final" --quiet
  measured generate -m "$work/$size/export" "O relojoeiro" -n 8 --seed 1 --quiet
  ((keep)) || rm -rf "${work:?}/$size"
done

echo
echo "Pronto: treino, exportação, conferência e geração funcionam no processador desta máquina."
