"""More clients than there is room for: each is answered or told to come again, and nothing is lost."""

import asyncio
import threading
import time

import httpx
import openai
from toy_server import answering

from ptbr_slm.serve.config import ServeConfig

CLIENTS, SLOTS, WAITING = 200, 4, 16


def body(number: int, **more) -> dict:
    # A fixed seed: its 8 tokens must not depend on whether an end of text is drawn.
    return {
        "model": "toy", "prompt": f"O rio {number}", "max_tokens": 8, "seed": 1, "stream": number % 4 < 2
    } | more  # fmt: skip


async def one(client: httpx.AsyncClient, number: int) -> str:
    """What became of it: `answered`, `refused` or `left`. Every other client leaves early."""
    leaves = number % 2 == 1
    async with client.stream("POST", "/v1/completions", json=body(number)) as answer:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert '"queue_full"' in (await answer.aread()).decode()
            return "refused"
        assert answer.status_code == 200
        async for _ in answer.aiter_bytes():
            if leaves:
                return "left"
        return "answered"


async def flood(url: str) -> tuple[list[str], list[float]]:
    """(what became of each client, seconds that /health took meanwhile). Its seconds say little:
    200 clients of httpx keep a core busy, and the server is in their process.
    """
    took = []

    async def watch(client: httpx.AsyncClient) -> None:
        while True:
            began = time.perf_counter()
            assert (await client.get("/health")).status_code == 200
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        watching = asyncio.create_task(watch(client))
        ends = await asyncio.gather(*(one(client, number) for number in range(CLIENTS)))
        watching.cancel()
    return ends, took


def test_200_clients_on_a_queue_of_16_lose_no_slot_and_health_answers_meanwhile(engine):
    engine.fail = lambda what, slots: time.sleep(0.002)
    with answering(engine, ServeConfig(max_slots=SLOTS, max_waiting=WAITING)) as toy:
        ends, took = asyncio.run(flood(toy.url))
        assert set(ends) == {"answered", "refused", "left"} and len(ends) == CLIENTS
        assert took, "/health was not answered meanwhile"
        for _ in range(3000):
            figures = toy.model.load_figures()
            if not figures.running and not figures.waiting and not toy.lifecycle.running:
                break
            time.sleep(0.01)
        assert (figures.running, figures.waiting, figures.waiting_tokens) == (0, 0, 0)
        # All slots are there: as many texts as there are run together, and one more waits for none of them.
        ends, _ = asyncio.run(flood(toy.url))
        assert "answered" in ends
        assert httpx.post(f"{toy.url}/v1/completions", json=body(0, stream=False)).status_code == 200


def test_a_client_that_repeats_gets_through_a_full_queue(engine):
    """openai's client waits as long as 429 says, and tries again."""
    engine.fail = lambda what, slots: time.sleep(0.002)
    with answering(engine, ServeConfig(max_slots=1, max_waiting=1)) as toy:

        async def all_of_them() -> list[int]:
            async with openai.AsyncOpenAI(base_url=f"{toy.url}/v1", api_key="x", max_retries=20) as client:
                calls = [client.completions.create(**body(number, stream=False)) for number in range(8)]
                return [answer.usage.completion_tokens for answer in await asyncio.gather(*calls)]

        assert asyncio.run(all_of_them()) == [8] * 8


def test_prompts_that_wait_are_bounded_in_tokens_too(engine):
    held, released = threading.Event(), threading.Event()

    def hold(what, slots):
        held.set()
        assert released.wait(60)

    engine.fail = hold
    config = ServeConfig(max_slots=1, max_waiting_tokens=50)
    with answering(engine, config) as toy, httpx.Client(timeout=60) as client:
        url = f"{toy.url}/v1/completions"
        running = toy.model.submit("O rio", max_new_tokens=1)
        assert held.wait(60)
        with running, toy.model.submit("O rio corre. " * 30, max_new_tokens=1) as long:  # alone it waits
            assert toy.model.load_figures().waiting_tokens > 50
            assert client.post(url, json=body(2)).status_code == 429
            released.set()
            assert list(iter(long.next_chunk, None))
        assert client.post(url, json=body(2)).status_code == 200
