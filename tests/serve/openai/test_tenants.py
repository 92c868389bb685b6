"""What was asked with one key is nothing that another key can learn of."""

from __future__ import annotations

from pathlib import Path

import openai
from serving import serving
from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.config import ServeConfig

SECRET = "O resultado do exame de Maria é " * 8


def test_cached_tokens_tell_nothing_of_another_key_s_prompts(tokenizer):
    keys = ("chave-da-ana", "chave-do-rui")
    model = Model.over(ToyEngine(tokenizer), Path(__file__))
    with model, serving({"base": model}, ServeConfig(api_keys=keys)) as server:
        clients = [openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) for key in keys]

        def cached(client):
            answer = client.completions.create(model="base", prompt=SECRET, max_tokens=1, temperature=0)
            return answer.usage.prompt_tokens_details.cached_tokens

        assert cached(clients[0]) == 0 < cached(clients[0])
        assert cached(clients[1]) == 0 < cached(clients[1])
