"""The process of `ptbr-slm serve`: `server` (socket, uvicorn, models, signals, a clean end) and its parts."""
