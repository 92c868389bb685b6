"""Serve um modelo em várias réplicas, numa ou em várias máquinas, com o Ray Serve.

    pip install "ptbr-slm[cpu,ray-serve]"
    python examples/scale/ray_serve.py runs/meu/export --replicas 2 --threads 1

Cada réplica é um processo com o seu motor e o aplicativo inteiro de `ptbr-slm serve`. O Ray reparte os
pedidos, põe outra réplica no lugar da que morre e, com `--max-replicas`, acompanha a procura. Com Ctrl-C ou
SIGTERM, pedidos novos recebem 404, o que as réplicas estão escrevendo termina, e tudo sai.

A chave vem de PTBR_SLM_API_KEY, ou de um arquivo (`--api-key-file`, uma por linha). Num cluster, ponha a
variável em todas as máquinas, com RAY_USAGE_STATS_ENABLED=0, antes de `ray start`; depois, rode o comando
acima com RAY_ADDRESS=auto. Modelo e arquivo de chaves ficam num caminho que todas as máquinas veem.

Quantas réplicas e quantos threads, e o que o Ray responde por conta própria: docs/VARIAS_MAQUINAS.md.
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

import ray
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ptbr_slm.errors import SlmError
from ptbr_slm.serve.app import create_app
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.process.keys import read_keys
from ptbr_slm.serve.process.opening import open_served
from ptbr_slm.serve.served import ServedModels
from ptbr_slm.storage.naming import check_names, name_of

SLOTS = 16
"""Textos que uma réplica escreve ao mesmo tempo."""


class Replica:
    def __init__(self, folder: Path, name: str, threads: int, host: str, key_file: Path | None) -> None:
        os.environ["PTBR_SLM_THREADS"] = str(threads)  # réplicas não disputam os mesmos núcleos
        self.config = ServeConfig(host=host, api_keys=read_keys(key_file, os.environ), max_slots=SLOTS)
        self.served = open_served(name, folder, "auto", self.config.batch_limits)
        self.steps = -1

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return without_request_id(create_app(ServedModels({self.served.name: self.served}), self.config))

    def check_health(self) -> None:
        """Ao falhar em três seguidas, o Ray troca a réplica."""
        figures = self.served.model.load_figures()
        if figures.running and figures.steps == self.steps:
            raise RuntimeError("há textos em andamento, e o motor não deu um passo desde a última vez")
        self.steps = figures.steps

    def __del__(self) -> None:
        if hasattr(self, "served"):
            self.served.model.close()


def without_request_id(app: ASGIApp) -> ASGIApp:
    """O Ray acrescenta à resposta o mesmo x-request-id; com os dois, o cliente leria `id, id`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def passed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            await send(message)

        await app(scope, receive, passed)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve um modelo em várias réplicas.")
    parser.add_argument("modelo", type=Path, help="Pasta exportada, no mesmo caminho em todas as máquinas.")
    parser.add_argument("--name", help="Como os clientes chamam o modelo (padrão: o nome da pasta).")
    parser.add_argument("--replicas", type=int, default=1, help="Réplicas; com --max-replicas, o mínimo.")
    parser.add_argument("--max-replicas", type=int, help="O máximo, se a procura pedir.")
    parser.add_argument("--threads", type=int, default=1, help="Núcleos de cada réplica.")
    parser.add_argument("--queue", type=int, default=64, help="Pedidos que esperam; além deles, 429.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 abre o servidor para a rede.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key-file", type=Path, help="Uma chave por linha.")
    given = parser.parse_args()
    folder, name = given.modelo.resolve(), given.name or name_of(given.modelo)
    key_file = given.api_key_file and given.api_key_file.resolve()
    check_names([name])
    ServeConfig(host=given.host, api_keys=read_keys(key_file, os.environ))  # recusa já aqui o que não serve
    replica = serve.deployment(
        ray_actor_options={"num_cpus": given.threads},
        max_ongoing_requests=SLOTS + 4,  # os 4: quando um lugar fica livre, o próximo texto já está lá
        max_queued_requests=given.queue,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        autoscaling_config={
            "min_replicas": given.replicas,
            "max_replicas": given.max_replicas or given.replicas,
            "target_ongoing_requests": SLOTS / 2,  # uma réplica meio cheia; acima disso, mais uma
        },
        health_check_period_s=10,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=120,  # o que uma réplica que sai tem para terminar os seus textos
    )(serve.ingress()(Replica))

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # o Ray não conta nada a ninguém
    ray.init(include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # como Ctrl-C; ray.init põe o seu
    try:
        serve.start(http_options={"host": given.host, "port": given.port})
        serve.run(replica.bind(folder, name, given.threads, given.host, key_file), name=name)
        print(f"Servidor em http://{given.host}:{given.port}/v1   modelo: {name}", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        serve.delete(name)  # espera pelo que está sendo escrito
    finally:
        serve.shutdown()


if __name__ == "__main__":
    try:
        main()
    except SlmError as error:
        sys.exit(str(error))
