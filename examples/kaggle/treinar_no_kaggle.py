# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Treine um modelo de português no Kaggle
#
# Este caderno vai do zero à conversa: instala o `ptbr-slm`, examina a máquina, prepara os textos, treina nas
# **duas T4**, exporta para ONNX, confere, escreve, ensina o modelo a responder e abre uma página. Se a sessão
# acabar no meio, a próxima continua do mesmo ponto.
#
# Antes de rodar, no painel da direita (*Session options*):
#
# - **Accelerator: GPU T4 x2.** A P100 já não é atendida pelo PyTorch do Kaggle.
# - **Internet**: ligada; ou desligada, com um Dataset de wheels em *Add Input* (a célula 1 o encontra
#   sozinha).
#
# Para um treino longo, use *Save Version → Save & Run All*: roda com o navegador fechado e guarda
# `/kaggle/working`.

# %% [markdown]
# ## Escolhas
#
# Os nomes são os das opções do comando `ptbr-slm train`. Os valores abaixo treinam um modelo pequeno na
# obra de Machado de Assis: bom para ver tudo funcionar. Para um modelo de verdade, aponte `TEXTS` para um
# Dataset seu (20 tokens de texto para cada parâmetro, de preferência), use `MODEL_SIZE = "85m"` e mais
# passos.

# %% tags=["parameters"]
MODEL_SIZE = "mini"  # nano, mini, 85m, 160m, 400m ou 800m
VOCAB_SIZE = 8000
SEQ_LEN = 512
BATCH_SIZE = (
    16  # sequências por micro-lote; um passo tem BATCH_SIZE * GRAD_ACCUM ao todo, com uma ou duas placas
)
GRAD_ACCUM = 2
MAX_STEPS = 4000
MAX_TIME = "11h30m"  # a sessão do Kaggle acaba em 12 horas, sem aviso
SESSION_START = "kaggle"  # de quando conta o MAX_TIME: do começo da sessão, não do comando
TEXTS = ""  # pasta ou arquivo seu em /kaggle/input; vazio: a obra de Machado de Assis
PREPARED = ""  # pasta já preparada (data prepare) em /kaggle/input, no lugar de TEXTS: lida dali, sem cópia
COPY_UP_TO_GB = 2  # dados da versão anterior acima disto são lidos de onde estão
PROMPT = "Era uma vez"
SOURCE = ""  # de onde instalar: pasta de /kaggle/input com o .whl, ou "git+https://..."; vazio: o .whl que
# houver em /kaggle/input, ou o PyPI
OPTIONS = ""  # outras opções do treino, como "--logger tensorboard"

TUNE = True  # depois do treino, ensinar o modelo a responder (seção 7)
CONVERSATIONS = ""  # pasta ou arquivo seu em /kaggle/input; vazio: 46 conversas de exemplo
TUNE_EPOCHS = 3  # quantas vezes cada conversa sua é lida
TUNE_OPTIONS = ""  # outras opções do ajuste, como "--method lora"
QUESTIONS = ["Quem é você?", "Quanto são 3 mais 4?", "Que dia é hoje?"]

# %% [markdown]
# ## 1. Instalar
#
# O PyTorch que já está no Kaggle não é trocado: a instalação falha antes disso. Cada `!` é um terminal
# novo.

# %%
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(os.environ.get("PTBR_SLM_KAGGLE_ROOT", "/kaggle"))
INPUT, WORKING = ROOT / "input", ROOT / "working"
DATA, RUN, EXPORT = WORKING / "dados", WORKING / "runs" / "meu-modelo", WORKING / "modelo"


def check(*accepted: int) -> None:
    """Para o caderno se o último comando com ! não terminou com 0 (ou com um dos códigos aceitos)."""
    if globals()["_exit_code"] not in (0, *accepted):
        raise RuntimeError("O comando acima falhou: a mensagem dele diz o que fazer.")


try:
    (WORKING / "torch.txt").write_text(f"torch=={version('torch')}\n")
except PackageNotFoundError:
    (WORKING / "torch.txt").write_text("")
place = Path(SOURCE) if SOURCE.startswith("/") else INPUT
wheels = sorted(place.rglob("ptbr_slm-*.whl")) if place == INPUT or place.is_dir() else []
if place != INPUT and not wheels:
    raise RuntimeError(f"Em {SOURCE} (SOURCE) não há um ptbr_slm-*.whl. Veja o nome certo com: !ls {INPUT}")
offline = f"--no-index --find-links {wheels[-1].parent}" if wheels else ""
package = "ptbr-slm[cpu,train,export,app]" + (f" @ {SOURCE}" if SOURCE and not wheels else "")
# !{sys.executable} -m pip install --quiet {offline} --constraint {WORKING}/torch.txt "{package}"
if globals()["_exit_code"] and not (SOURCE or wheels):
    raise RuntimeError(
        "O PyPI não deu o ptbr-slm. Acrescente em Add Input um Dataset com o .whl (passo 2b do guia), ou diga "
        "em SOURCE de onde instalar."
    )
check()

# %% [markdown]
# ## 2. Examinar a máquina
#
# Com uma P100 (ou outra placa que o PyTorch não atende) o caderno para aqui, antes de gastar cota.

# %%
# !ptbr-slm doctor --strict
check()

# %% [markdown]
# ## 3. Textos e tokenizador
#
# Se a saída da versão anterior deste caderno estiver em *Add Input*, os dados dela são usados de novo:
# continuar um treino exige os mesmos dados. Senão, os textos são preparados agora.
#
# Dados grandes ficam onde estão: `/kaggle/working` guarda 20 GB, e os checkpoints precisam deles. Prepare-os uma
# vez, faça da saída um Dataset (*Output → New Dataset*) e ponha a pasta dele em `PREPARED`, em todas as sessões.
#
# A obra de Machado de Assis (1839–1908) está em **domínio público** e já vem na imagem do Kaggle, com os
# dados do NLTK: não precisa de internet. Se ela faltar, baixamos o corpus Dante (notícias CC BY 4.0, teses
# CC BY-SA 4.0). As licenças ficam ao lado dos textos, em `LICENCA.md`.

# %%
if PREPARED:
    DATA = Path(PREPARED)
    if not (DATA / "index.json").is_file():
        raise RuntimeError(
            f"Em {PREPARED} (PREPARED) não há um index.json. Procure com: !find {INPUT} -name index.json"
        )
earlier = sorted(INPUT.rglob("dados/index.json"))
if earlier and not DATA.exists():
    before = earlier[-1].parent
    size = sum(file.stat().st_size for file in before.iterdir()) / 1e9
    print(f"Dados da versão anterior: {before} ({size:.1f} GB)")
    if size > COPY_UP_TO_GB:
        DATA = before
        print(
            "São grandes demais para copiar: faça deles um Dataset e diga a pasta em PREPARED na próxima sessão."
        )
    else:
        # !cp -r --no-preserve=mode {before} {DATA}
        check()

# %%
if not DATA.exists():
    texts = TEXTS or f"{WORKING}/textos"
    tokenizer = f"{WORKING}/tokenizer.json"
    if not TEXTS:
        print("Textos em", texts)
        # !ptbr-slm data fetch machado -o {texts} || ptbr-slm data fetch dante -o {texts}
        check()
    # !ptbr-slm tokenizer train {texts} -o {tokenizer} --vocab-size {VOCAB_SIZE}
    check()
    # !ptbr-slm data prepare {texts} -o {DATA} --tokenizer {tokenizer} --valid-fraction 0.02
    check()
# !ptbr-slm data stats {DATA}
check()

# %% [markdown]
# ## 4. Treinar
#
# As duas T4 trabalham juntas, em fp16, sem que seja preciso pedir. O treino para sozinho antes do fim da
# sessão, com um modelo que se pode exportar em `final/`: a média dos últimos pesos. O código de saída é então
# 75: «rode de novo para continuar».
#
# Para continuar noutra sessão: *Add Input → Your Work → Notebooks*, escolha este caderno, e rode tudo de
# novo. O treino da versão anterior é achado em `/kaggle/input` e copiado para `/kaggle/working`.

# %%
# !ptbr-slm train --data {DATA} --output {RUN} --model-size {MODEL_SIZE} --seq-len {SEQ_LEN} \
#   --batch-size {BATCH_SIZE} --grad-accum {GRAD_ACCUM} --max-steps {MAX_STEPS} --set schedule.kind=wsd \
#   --max-time {MAX_TIME} --session-start {SESSION_START} --resume auto {OPTIONS}
check(75)
TRAINED = globals()["_exit_code"] == 0  # e não 75: falta treino, para a próxima sessão

# %%
from IPython.display import SVG, Markdown, display

checkpoints = RUN / "checkpoints"
MODEL = RUN / "final"
if not MODEL.exists():
    MODEL = checkpoints / (checkpoints / "latest").read_text().strip()
if (RUN / "report").exists():
    display(SVG(filename=str(RUN / "report" / "loss.svg")))
    display(Markdown((RUN / "report" / "samples.md").read_text()[-3000:]))

# %% [markdown]
# ## 5. Exportar e conferir
#
# O modelo exportado roda em qualquer computador, sem GPU e sem PyTorch. A conferência compara os dois antes
# de aceitar.

# %%
# !ptbr-slm export {MODEL} -o {EXPORT} --precision int8
check()
# !ptbr-slm verify {EXPORT} --against {MODEL}
check()

# %% [markdown]
# ## 6. Escrever

# %%
# !ptbr-slm generate -m {EXPORT} "{PROMPT}" -n 100 --seed 1
check()

# %% [markdown]
# ## 7. Ensinar a responder
#
# Até aqui o modelo **continua** textos. No ajuste ele vê conversas, e aprende a responder e a parar. As de
# exemplo são poucas: mostram a forma dos dados e que tudo funciona. Para respostas que prestem, aponte
# `CONVERSATIONS` para um Dataset com milhares delas, em JSONL, CSV ou Parquet:
#
# ```json
# {"messages": [{"role": "user", "content": "Oi!"}, {"role": "assistant", "content": "Oi! Em que posso ajudar?"}]}
# ```
#
# Um décimo das sequências é texto do treino, para que ele não esqueça o que sabe. As duas T4 trabalham juntas, e
# o tempo é o mesmo da sessão: o que não couber continua na próxima. Enquanto o treino não termina, esta parte
# espera.

# %%
from ptbr_slm.kaggle.project import example_conversations

TUNED, CHAT = WORKING / "runs" / "conversa", WORKING / "conversa"
if CONVERSATIONS:
    conversations, how = CONVERSATIONS, f"--epochs {TUNE_EPOCHS}"
else:  # tão poucas, ele as aprende de cor
    conversations, how = example_conversations(), "--epochs 20 --learning-rate 1e-3"
if TUNE and TRAINED:
    # !ptbr-slm tune {MODEL} --data {conversations} --output {TUNED} {how} --replay 0.1 --replay-data {DATA} \
    #   --max-time {MAX_TIME} --session-start {SESSION_START} --resume auto {TUNE_OPTIONS}
    check(75)
elif TUNE:
    print("O treino ainda não terminou: o ajuste vem na sessão que o terminar.")

# %% [markdown]
# ### Exportar, conferir e conversar

# %%
import ptbr_slm

if (TUNED / "final").exists():
    # !ptbr-slm export {TUNED}/final -o {CHAT} --precision int8
    check()
    # !ptbr-slm verify {CHAT} --against {TUNED}/final
    check()
    with ptbr_slm.load(CHAT) as model:
        for question in QUESTIONS:
            answer = model.chat([{"role": "user", "content": question}], max_new_tokens=60, seed=1)
            print(f"Você:   {question}\nModelo: {answer}\n")

# %% [markdown]
# ## 8. Abrir a página
#
# Numa sessão interativa com internet aparece um link público, com usuário e senha. A célula termina e a
# página continua aberta até o fim da sessão; rodar a célula de novo fecha a anterior. Sem internet você
# escreve aqui mesmo, na célula, até mandar uma linha vazia. Em *Save & Run All* não há quem a visite: o
# modelo escreve um trecho e segue.

# %%
from ptbr_slm.app import open_page, serve

serve(open_page(CHAT if CHAT.exists() else EXPORT), share=True)

# %% [markdown]
# ## 9. Guardar
#
# O Kaggle guarda o que está em `/kaggle/working` (até 20 GB) quando a versão termina: as pastas `modelo` e
# `conversa` para usar e baixar (painel *Output*), `runs` e `dados` para continuar o treino. Os textos podem ir
# embora.

# %%
# !rm -rf {WORKING}/textos {WORKING}/torch.txt
# !du -sh {WORKING}/*
