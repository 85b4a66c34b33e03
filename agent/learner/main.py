"""The learner process: `python -m agent.learner`, started by the server.

Says `ready` on standard output once it serves, or the reason why it cannot, and ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from agent.config import LogFormat
from agent.errors import AgentError
from agent.learner.device_thread import DeviceThread
from agent.server.learner_link.client import MAX_MESSAGE_BYTES
from agent.server.learner_link.process import ALIVE, CANNOT_START_EXIT_CODE, READY
from agent.server.telemetry.logs import configure
from continual.learner.v1 import learner_pb2_grpc

if TYPE_CHECKING:
    from agent.learner.core import Learner

STOP_GRACE_SECONDS = 2.0
SWITCH_SECONDS = 0.0005
ALIVE_SECONDS = 1.0


def main() -> None:
    """Parses the command line and serves until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="unix:PATH or HOST:PORT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--general-text", type=Path, default=None)
    parser.add_argument("--log-format", type=LogFormat, default=LogFormat.TEXT)
    options = parser.parse_args()
    configure(options.log_format, process="learner")
    stop = threading.Event()
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    device = DeviceThread()
    with _alive():
        try:
            learner = _load(options, device)
        except AgentError as error:
            print(" ".join(str(error).split()), flush=True)
            sys.exit(CANNOT_START_EXIT_CODE)
    # The device's thread hardly ever lets go of the interpreter by itself; at the usual 5 ms a
    # question to a small model waits longer for its request to be read than for its answer.
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(_serve(options.listen, learner, device, stop))


def _load(options: argparse.Namespace, device: DeviceThread) -> Learner:
    # PyTorch is imported here: that takes seconds, and signs of life are given meanwhile.
    from agent.learner.core import Learner
    from agent.learner.environment import make_deterministic
    from agent.models.loading import load

    make_deterministic(options.threads)
    return Learner(
        load(options.model, device=options.device),
        pause=device.pause,
        general_text=options.general_text,
    )


@contextmanager
def _alive() -> Iterator[None]:
    """Says that it lives, again and again, while the model is loaded."""
    over = threading.Event()

    def say() -> None:
        print(ALIVE, flush=True)
        while not over.wait(ALIVE_SECONDS):
            print(ALIVE, flush=True)

    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    try:
        yield
    finally:
        over.set()
        saying.join()


def _watch_parent(stop: threading.Event) -> None:
    """Sets `stop` at the end of standard input; ends the process itself if that is not heeded."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if stop.is_set():
        return
    stop.set()
    # Loading a model, or one long unit of work, would hold up an orderly end.
    threading.Event().wait(STOP_GRACE_SECONDS * 2)
    os._exit(0)


async def _serve(
    address: str, learner: Learner, device: DeviceThread, stop: threading.Event
) -> None:
    from agent.learner.servicer import LearnerServicer  # imports PyTorch

    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ]
    )
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(learner, device), server)
    server.add_insecure_port(address)
    await server.start()
    print(READY, flush=True)
    # Nobody reads standard output from here on: a full pipe must not stop the learner.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    await asyncio.to_thread(stop.wait)
    await server.stop(STOP_GRACE_SECONDS)
    device.close()
