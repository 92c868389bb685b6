#!/usr/bin/env bash
# Brings Debian's Chromium for the browser tests, where that needs no password; says so where it does.
set -euo pipefail

usage() {
  cat <<'TEXT'
Uso: bash scripts/install_chromium.sh

Instala o Chromium do Debian para os testes da página num navegador (make test o chama). Se já houver um
Chromium ou Chrome, não faz nada. Se não puder instalar, diz como, e os testes do navegador são pulados.
TEXT
}

for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit 0 ;;
    *) echo "Erro: não conheço a opção $argument. Veja: bash scripts/install_chromium.sh --help" >&2; exit 2 ;;
  esac
done

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then exit 0; fi
done

as_root=()
if [[ $(id -u) != 0 ]]; then as_root=(sudo -n); fi
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
  echo "Instalando o Chromium para os testes do navegador…"
  export DEBIAN_FRONTEND=noninteractive
  if "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
    exit 0
  fi
  echo "Não consegui instalar o Chromium com apt-get." >&2
fi
cat >&2 <<'TEXT'
Os testes da página num navegador serão pulados: falta o Chromium, e não posso instalá-lo sem senha.
Para rodá-los, instale um destes e repita make test:
  sudo apt-get install chromium                 (Debian)
  .venv/bin/playwright install chromium         (outros sistemas)
  ou o Google Chrome
TEXT
