#!/usr/bin/env bash
# Instala o ptbr-slm num notebook do Kaggle sem trocar o PyTorch que já está lá, e examina o ambiente.
# O caderno pronto (ptbr-slm kaggle init) faz o mesmo na primeira célula.
set -euo pipefail

usage() {
  cat <<'TEXT'
Uso: bash scripts/kaggle_setup.sh [opções]

Instala o ptbr-slm num notebook do Kaggle (ou Colab) e termina com «ptbr-slm doctor».
O PyTorch que já está no ambiente não é trocado.

Opções:
  --wheels PASTA        instala sem internet, a partir desta pasta de wheels
                        (um Dataset seu; para achar a pasta:
                        find /kaggle/input -name "ptbr_slm-*.whl")
  --make-wheels PASTA   só prepara essa pasta, num computador com internet, para virar Dataset
  --python-version 3.12 versão do Python do Kaggle, para --make-wheels
  -h, --help            mostra esta ajuda

Exemplos:
  !bash ptbr-slm/scripts/kaggle_setup.sh
  !bash ptbr-slm/scripts/kaggle_setup.sh --wheels /kaggle/input/datasets/USUARIO/ptbr-slm-wheels
TEXT
}

fail() {
  echo "Erro: $1" >&2
  echo "  $2" >&2
  exit "${3:-1}"
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
wheels=""
make_wheels=""
python_version="3.12"

while (($#)); do
  case "$1" in
    --wheels | --make-wheels | --python-version)
      (($# > 1)) || fail "falta o valor de $1." "Veja: bash scripts/kaggle_setup.sh --help" 2
      case "$1" in
        --wheels) wheels="$2" ;;
        --make-wheels) make_wheels="$2" ;;
        *) python_version="$2" ;;
      esac
      shift 2
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) fail "não conheço a opção $1." "Veja: bash scripts/kaggle_setup.sh --help" 2 ;;
  esac
done

# Version of an installed package, empty where it is absent.
version_of() {
  "$python" -c 'import importlib.metadata as m, sys
try: print(m.version(sys.argv[1]))
except m.PackageNotFoundError: pass' "$1"
}

# Our requirements without torch, which Kaggle already has and which would weigh gigabytes.
requirements() {
  "$python" - "$root/pyproject.toml" <<'PYTHON'
import re, sys, tomllib

project = tomllib.load(open(sys.argv[1], "rb"))["project"]
lines = list(project["dependencies"])
for extra in ("cpu", "data", "train", "export", "app"):  # [train] names [data] as ptbr-slm[data]
    lines += [line for line in project["optional-dependencies"][extra] if not line.startswith("ptbr-slm[")]
print("\n".join(line for line in lines if re.split(r"[\[<>=~! ]", line)[0] != "torch"))
PYTHON
}

if [[ -n "$make_wheels" ]]; then
  mkdir -p "$make_wheels"
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$make_wheels" "$root"
  list="$(mktemp)"
  trap 'rm -f "$list"' EXIT
  requirements >"$list"
  "$python" -m pip download --quiet --dest "$make_wheels" --requirement "$list" -c "$root/constraints.txt" \
    --python-version "$python_version" --only-binary=:all: \
    --platform manylinux2014_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64
  echo "Wheels para Python $python_version prontas em $make_wheels."
  echo "Próximo passo: crie com elas um Dataset no Kaggle (Datasets → New Dataset) e use --wheels."
  exit 0
fi

torch="$(version_of torch)"
[[ -n "$torch" ]] || echo "Aviso: este ambiente não tem PyTorch; o pip vai instalar um, o que demora." >&2

# onnxruntime and onnxruntime-gpu share one folder: never add the one beside the other.
extras="cpu,train,export,app"
if [[ -n "$(version_of onnxruntime-gpu)" ]]; then
  extras="train,export,app"
  if [[ -n "$(version_of onnxruntime)" ]]; then
    echo "Aviso: onnxruntime e onnxruntime-gpu estão instalados juntos, e um estraga o outro. Fique só com um:" >&2
    if command -v nvidia-smi >/dev/null; then
      echo '  pip uninstall -y onnxruntime onnxruntime-gpu && pip install "onnxruntime-gpu[cuda,cudnn]==1.31.1"' >&2
    else
      echo '  pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime' >&2
    fi
  fi
fi

constraints="$(mktemp)"
trap 'rm -f "$constraints"' EXIT
[[ -z "$torch" ]] || echo "torch==$torch" >"$constraints"

if [[ -n "$wheels" ]]; then
  [[ -d "$wheels" ]] || fail "a pasta de wheels não existe: $wheels" \
    "Confira em «Add input» se o Dataset está no notebook; ache a pasta com: find /kaggle/input -name '*.whl'"
  echo "Instalando sem internet, de $wheels ..."
  "$python" -m pip install --quiet --no-index --find-links "$wheels" -c "$constraints" "ptbr-slm[$extras]"
else
  echo "Instalando pela internet (se falhar, ligue Settings → Internet, ou use --wheels) ..."
  "$python" -m pip install --quiet -c "$constraints" "$root[$extras]"
fi

after="$(version_of torch)"
[[ -z "$torch" || "$torch" == "$after" ]] || fail "o PyTorch mudou de $torch para $after." \
  "Recomece a sessão (Run → Factory reset) e abra uma issue com esta mensagem."

echo
"$python" -m ptbr_slm doctor
