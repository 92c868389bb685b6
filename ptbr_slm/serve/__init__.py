"""The OpenAI-compatible server: FastAPI over `runtime.model.Model`, one engine a process.

Read `app.py` (what is put together), then `openai/` (a file a route: bodies in, wire forms out), `served.py`
(which models), `errors.py` and `validation.py` (a fault on the wire), `config.py`, `middleware/` (what stands
before the routes), `metrics/`, `page.py`, `process/` (uvicorn, signals, drain, logs).
"""
