"""The rendezvous of the ranks of one machine: a store on loopback, for torchrun's elastic agent.

The agent's usual rendezvous, c10d, is not used: it keeps its state in the store as a pickle, which anyone who
reaches the port could replace (torch/distributed/elastic/rendezvous/dynamic_rendezvous.py). Its static one
pickles nothing, but listens on every interface, at a port that must be free and known before.
"""

from __future__ import annotations

import socket
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)

LOOPBACK = "127.0.0.1"
BACKEND = "ptbr-slm"
TIMEOUT = timedelta(minutes=15)
"""For the ranks of one start to reach the store."""


def register() -> str:
    """Register `LoopbackRendezvous` with the agent; returns its name, `BACKEND`."""
    rendezvous_handler_registry.register(BACKEND, LoopbackRendezvous)
    return BACKEND


class LoopbackRendezvous(RendezvousHandler):
    """For the only agent of a run; each start of its ranks gets a part of the store of its own.

    Agent and ranks write JSON and plain bytes into the store, a TCPStore at a port that the system chose.
    """

    use_agent_store = True
    """The ranks connect to this store, and do not open one."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        listener = socket.create_server((LOOPBACK, 0))
        self._run_id, self._starts = parameters.run_id, 0
        self._port: int = listener.getsockname()[1]
        # The store owns the listening socket from here on.
        self._store = TCPStore(
            LOOPBACK, self._port, is_master=True, timeout=TIMEOUT, wait_for_workers=False,
            multi_tenant=True, master_listen_fd=listener.detach(),
        )  # fmt: skip

    def get_backend(self) -> str:
        """Its name."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Rank 0 of one agent, with an empty part of the store."""
        self._starts += 1
        store = PrefixStore(f"{self._run_id}/{self._starts}", self._store)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(LOOPBACK, self._port))

    def is_closed(self) -> bool:
        """Never: there is no other agent that could close it."""
        return False

    def set_closed(self) -> None:
        """Does nothing: see `is_closed`."""

    def num_nodes_waiting(self) -> int:
        """Agents that would like to join: there are no others."""
        return 0

    def get_run_id(self) -> str:
        """As in LaunchConfig."""
        return self._run_id

    def shutdown(self) -> bool:
        """The store ends with this object."""
        return True
