#!/usr/bin/env bash
# Confere numa GPU o que só ela pode dizer, em dez minutos, a partir de um checkout e sem instalar nada.
set -euo pipefail

usage() {
  cat <<'TEXT'
Uso: bash scripts/gpu_check.sh [opções]

Roda «ptbr-slm bench gpu» com o Python desta máquina, direto do checkout: nada é instalado, nada é
baixado, e leva no máximo dez minutos. Grava gpu-check/gpu.md e gpu-check/gpu.json depois de cada
seção. O que cada linha quer dizer, e para onde mandar a tabela: docs/GPU.md.

Opções:
  -o, --output PASTA   onde gravar (padrão: gpu-check)
  --minutes N          tempo total, no máximo (padrão: 10)
  --sections A,B       só estas: machine, gemm, amp, memory, speed, ranks, onnx, graphs, tests
  --wheels PASTA       wheels à mão (onnxruntime-gpu, onnx-ir, ...), inteiros ou em pedaços
  --smoke              ensaio: tudo encolhido, serve sem GPU também
  --json, --quiet, --debug
  -h, --help           mostra esta ajuda

Variável: PYTHON (qual Python usar; padrão: python3).
TEXT
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
arguments=()

while (($#)); do
  case "$1" in
    -h | --help)
      usage
      exit 0
      ;;
    -o | --output | --minutes | --sections | --wheels)
      if (($# < 2)); then
        echo "Erro: falta o valor de $1." >&2
        exit 2
      fi
      arguments+=("$1" "$2")
      shift 2
      ;;
    --smoke | --json | -q | --quiet | --debug)
      arguments+=("$1")
      shift
      ;;
    *)
      echo "Erro: não conheço a opção $1. Veja: bash scripts/gpu_check.sh --help" >&2
      exit 2
      ;;
  esac
done

# What the command cannot do without, then what only a section needs: that one says so in its line.
"$python" - <<'PYTHON' || exit 1
import importlib.util, sys

if sys.version_info < (3, 11):
    sys.exit("Erro: preciso do Python 3.11 ou mais novo. Use: PYTHON=python3.11 bash scripts/gpu_check.sh")
needed = {"torch": "torch", "numpy": "numpy", "tokenizers": "tokenizers", "safetensors": "safetensors",
          "typer": "typer", "rich": "rich"}
wanted = {"onnx": "onnx", "onnx_ir": "onnx-ir", "onnxruntime": "onnxruntime-gpu", "pytest": "pytest"}
absent = lambda names: [pip for module, pip in names.items() if importlib.util.find_spec(module) is None]
if missing := absent(needed):
    sys.exit(f"Erro: faltam pacotes a este Python ({sys.executable}): {', '.join(missing)}\n"
             f"  Instale com:  {sys.executable} -m pip install {' '.join(missing)}")
if missing := absent(wanted):
    print(f"Sem {', '.join(missing)}: as seções que os usam dirão isso (docs/GPU.md).", file=sys.stderr)
PYTHON

export PYTHONPATH="$root:$root/export${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
exec "$python" -m ptbr_slm bench gpu ${arguments[@]+"${arguments[@]}"}
