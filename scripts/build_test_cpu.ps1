<#
.SYNOPSIS
Exercita os modelos grandes num computador sem GPU: treina um passo, exporta, confere e gera texto.

.DESCRIPTION
O mesmo que scripts/build_test_cpu.sh, para Windows. Cria um ambiente Python, instala o ptbr-slm e,
para cada tamanho, faz no processador o caminho inteiro: um passo de treino (ida e volta), exportação
para ONNX int8, conferência com o PyTorch e geração de texto. Serve para ver se tudo funciona, não
para aprender. O 400m pede uns 7 GiB de memória livre; sem ela, é pulado com um aviso.

.PARAMETER Sizes
Tamanhos a exercitar.
.PARAMETER Work
Onde trabalhar; o que é grande sai no fim.
.PARAMETER SeqLen
Tokens por sequência no passo de treino.
.PARAMETER NoVenv
Usa o Python atual, que já tem o ptbr-slm instalado.
.PARAMETER Keep
Não apaga os modelos no fim.
.PARAMETER Help
Mostra esta ajuda.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File scripts\build_test_cpu.ps1 -Sizes 85m
#>
[CmdletBinding()]
param(
    [string[]] $Sizes = @('85m', '400m'),
    [string] $Work = 'build-test-cpu',
    [int] $SeqLen = 32,
    [switch] $NoVenv,
    [switch] $Keep,
    [switch] $Help
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

if ($Help) {
    Get-Help $PSCommandPath -Detailed
    exit 0
}

$root = Split-Path -Parent $PSScriptRoot
$python = if ($env:PYTHON) { $env:PYTHON } else { 'python' }

# Native commands do not stop a PowerShell script by themselves: look at their exit code.
function Invoke-Checked {
    & $args[0] @($args | Select-Object -Skip 1)
    if ($LASTEXITCODE -ne 0) {
        Write-Error "O comando falhou com código ${LASTEXITCODE}: $args"
    }
}

function Invoke-Slm { Invoke-Checked $python -m ptbr_slm @args }

function Invoke-Measured {
    $clock = [System.Diagnostics.Stopwatch]::StartNew()
    Invoke-Slm @args
    Write-Host ('  [{0}: {1:N0} s]' -f $args[0], $clock.Elapsed.TotalSeconds)
}

& $python -c 'import sys; sys.exit(sys.version_info < (3, 11))'
if ($LASTEXITCODE -ne 0) { Write-Error 'Preciso do Python 3.11 ou mais novo. Defina $env:PYTHON.' }
New-Item -ItemType Directory -Force -Path $Work | Out-Null

if (-not $NoVenv) {
    $venvPython = Join-Path $Work 'venv/Scripts/python.exe'
    if (-not (Test-Path $venvPython)) { Invoke-Checked $python -m venv (Join-Path $Work 'venv') }
    $python = $venvPython
    Write-Host "Instalando em $Work/venv ..."
    Invoke-Checked $python -m pip install --quiet -c (Join-Path $root 'constraints.txt') -e "${root}[cpu,train,export]"
}

$text = Join-Path $Work 'texto.txt'
$tokenizer = Join-Path $Work 'tokenizer.json'
$data = Join-Path $Work 'dados'
$paragraphs = @(
    'Na beira do rio há uma casa de tijolos, e na casa mora um relojoeiro que conserta o tempo dos outros. De manhã ele abre as janelas, põe a água no fogo e conversa com os pássaros que vêm pedir migalhas.'
    'A feira começa antes do sol. Primeiro chegam as verduras, depois as frutas, por fim os vendedores de panelas, que batem nas tampas para acordar a rua. Quem compra cedo paga mais; quem compra tarde leva o que sobrou.'
    'O ônibus da escola passa às sete. As crianças sobem com sono, encostam a cabeça no vidro e contam os postes até a ponte. Do outro lado da ponte o dia já começou, com giz, recreio e tabuada.'
    'Quando chove forte, o bairro inteiro fica em silêncio. Só se ouvem as calhas, os cachorros assustados e um rádio que insiste em tocar samba, como se o céu estivesse azul e a roupa no varal, seca.'
    'À noite o relojoeiro fecha a oficina e escreve cartas. Nunca envia nenhuma: guarda todas numa gaveta, por ordem de saudade, e diz que um dia alguém vai precisar delas para saber que horas eram.'
)
# Windows PowerShell 5 writes UTF-16 by default: .NET writes UTF-8.
[System.IO.File]::WriteAllText([System.IO.Path]::GetFullPath((Join-Path (Get-Location) $text)), ($paragraphs -join "`n`n"))

Write-Host "`n== preparação"
Invoke-Slm doctor --quiet
Invoke-Slm tokenizer train $text -o $tokenizer --vocab-size 1024 --quiet
Invoke-Slm data prepare $text -o $data --tokenizer $tokenizer --paragraph-documents --valid-fraction 0.2 --quiet

foreach ($size in $Sizes) {
    Write-Host "`n== $size"
    $plan = & $python -m ptbr_slm info --model-size $size --vocab-size 1024 --batch-size 1 --seq-len $SeqLen --json
    if ($LASTEXITCODE -ne 0) { Write-Error "Não conheço o tamanho $size." }
    $facts = $plan | ConvertFrom-Json
    # The step, the copy of the weights that is written, and half a GiB for PyTorch itself.
    $needed = $facts.cpu_fp32_bytes + $facts.weights_bytes + 512MB
    $free = (Get-CimInstance Win32_OperatingSystem).FreePhysicalMemory * 1024
    if ($needed -gt $free) {
        Write-Warning ('Pulado: o treino do {0} pede {1:N0} MiB (calculado), e há {2:N0} MiB livres.' -f $size, ($needed / 1MB), ($free / 1MB))
        continue
    }
    $run = Join-Path $Work $size
    if (Test-Path $run) { Remove-Item -Recurse -Force $run }
    $final = Join-Path $run 'final'
    $export = Join-Path $run 'export'
    Invoke-Measured train --data $data --output $run --model-size $size --batch-size 1 --grad-accum 1 --seq-len $SeqLen --max-steps 1 --quiet
    Invoke-Measured export $final -o $export --precision int8 --quiet
    Invoke-Measured verify $export --against $final --quiet
    Invoke-Measured generate -m $export 'O relojoeiro' -n 8 --seed 1 --quiet
    if (-not $Keep) { Remove-Item -Recurse -Force $run }
}

Write-Host "`nPronto: treino, exportação, conferência e geração funcionam no processador desta máquina."
