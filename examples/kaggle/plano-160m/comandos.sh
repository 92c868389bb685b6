# antes, sem GPU; depois ponha dados em /kaggle/input/datasets/SEU_USUARIO/dados
ptbr-slm data fetch fineweb2-pt -o textos --tokens 2.6B
ptbr-slm tokenizer train textos -o tokenizer.json --vocab-size 32000
ptbr-slm data prepare textos -o dados --tokenizer tokenizer.json
# sessão 1: termina com o código 75, que é «rode de novo para continuar»
ptbr-slm train --config treino.toml --max-time 11h25m --session-start kaggle --cooldown average
# sessão 2: termina com o código 75, que é «rode de novo para continuar»
ptbr-slm train --config treino.toml --max-time 11h25m --session-start kaggle --cooldown average
# sessão 3
ptbr-slm train --config treino.toml --max-time 6h25m --session-start kaggle --cooldown session
# no fim da última: avaliar, exportar, conferir, ensinar a conversar
ptbr-slm eval /kaggle/working/runs/160m/final --data /kaggle/input/datasets/SEU_USUARIO/dados -o /kaggle/working/runs/160m-avaliacao
ptbr-slm export /kaggle/working/runs/160m/final -o /kaggle/working/runs/160m-onnx --precision int4
ptbr-slm verify /kaggle/working/runs/160m-onnx --against /kaggle/working/runs/160m/final
ptbr-slm tune /kaggle/working/runs/160m/final --data conversas.jsonl -o /kaggle/working/runs/160m-conversa --replay 0.1 --replay-data /kaggle/input/datasets/SEU_USUARIO/dados
