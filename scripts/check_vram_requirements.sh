#!/usr/bin/env bash
# Diz o que cabe na GPU desta máquina (ou numa T4 do Kaggle), antes de gastar horas de cota.
set -euo pipefail

usage() {
  cat <<'TEXT'
Uso: bash scripts/check_vram_requirements.sh [opções] [TAMANHO...]

Mostra a conta de memória do treino dos tamanhos 400m e 800m (ou dos que você pedir) contra a
placa desta máquina; sem placa NVIDIA, contra uma T4 do Kaggle. No fim de cada tamanho, o que o
treino escolheria com --batch-size auto em uma placa e em duas. Tudo calculado por «ptbr-slm info»;
para medir, «ptbr-slm bench train».

Opções:
  --batch-size N   sequências por micro-lote (padrão: 1)
  --seq-len N      tokens por sequência (padrão: 1024)
  -h, --help       mostra esta ajuda

Exemplo:
  bash scripts/check_vram_requirements.sh --batch-size 2 --seq-len 256 400m
TEXT
}

python="${PYTHON:-python3}"
batch_size=1
seq_len=1024
sizes=()

while (($#)); do
  case "$1" in
    --batch-size | --seq-len)
      if (($# < 2)); then
        echo "Erro: falta o valor de $1." >&2
        exit 2
      fi
      if [[ "$1" == --batch-size ]]; then batch_size="$2"; else seq_len="$2"; fi
      shift 2
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*)
      echo "Erro: não conheço a opção $1. Veja: bash scripts/check_vram_requirements.sh --help" >&2
      exit 2
      ;;
    *)
      sizes+=("$1")
      shift
      ;;
  esac
done
((${#sizes[@]})) || sizes=(400m 800m)

card=()
if command -v nvidia-smi >/dev/null && line="$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1)" && [[ "$line" == *,* ]]; then
  # PyTorch sees about 97 % of what the driver announces: 14.56 of a T4's 15.0 GiB.
  gib="$(LC_ALL=C awk -F', *' '{printf "%.2f", $2 * 0.97 / 1024}' <<<"$line")"
  echo "Placa desta máquina: ${line%%,*}, ${gib/./,} GiB visíveis ao PyTorch"
  card=(--gpu-memory "$gib")
else
  echo "Sem placa NVIDIA aqui: a conta é contra uma T4 do Kaggle"
fi

for size in "${sizes[@]}"; do
  echo
  "$python" -m ptbr_slm info --model-size "$size" --batch-size "$batch_size" --seq-len "$seq_len" ${card[@]+"${card[@]}"}
done
