"""The page and a proxy of the user's: this machine asks itself without one."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPTIONS = "no_proxy"


@contextmanager
def own_address_without_proxy(host: str | None = None) -> Iterator[None]:
    """Inside, HTTP requests to this machine (and `host`) go to it directly, others still through the proxy.

    Gradio asks the address that it opened whether it answers, with httpx, which sends even that through
    HTTP_PROXY or ALL_PROXY. httpx also refuses to import or start with a proxy that it cannot use (SOCKS
    without its extra, `socks://`): such a variable is set aside meanwhile. Changes the environment of the
    whole process until the block ends.
    """
    names = [spelled for name in (*_PROXIES, _EXCEPTIONS) for spelled in (name, name.upper())]
    former = {name: os.environ.get(name) for name in names}
    try:
        for name in names[:-2]:
            value = former[name]
            if value is not None and not _usable(value):
                os.environ.pop(name, None)
        kept = former[_EXCEPTIONS] or former[_EXCEPTIONS.upper()]
        direct = ",".join(filter(None, [kept, *LOOPBACK, host]))
        os.environ[_EXCEPTIONS] = os.environ[_EXCEPTIONS.upper()] = direct
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _usable(proxy: str) -> bool:
    """Whether httpx can use it; one without a scheme counts as HTTP there."""
    scheme = proxy.partition("://")[0].lower() if "://" in proxy else "http"
    if scheme in ("socks5", "socks5h"):
        return importlib.util.find_spec("socksio") is not None
    return scheme in ("http", "https")
