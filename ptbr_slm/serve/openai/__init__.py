"""OpenAI's routes, a file each: the body as it comes, its checks, and the wire form of what is generated.

Read `body.py` and `sampling.py` (what a client may ask), `generation.py` (a request as a call of the engine),
`stream.py` (a call as server-sent events), then the routes.
"""

from ptbr_slm.serve.openai import chat, completions, embeddings, models, responses, tokens

routers = tuple(module.router for module in (completions, chat, responses, models, tokens, embeddings))
