"""The OpenAI-compatible server: FastAPI over `runtime.model.Model`, one engine a process.

Read `app.py` (what is put together), then `openai/` (a file a route: bodies in, wire forms out), `served.py`
(which models), `errors.py` (a fault on the wire), `config.py`, `limits.py` and `access.py` (what is refused
before a route sees it), `metrics/`, `server.py` (the process: uvicorn, signals, drain).
"""
