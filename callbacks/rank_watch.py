"""A job of which a process has died ends at once, whatever the others wait for."""

import hmac
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress

import torch.distributed
from lightning import Callback, LightningModule, Trainer

from app.runs.background import Background

FINISHED, FAILED, TOLD = b".", b"!", b"x"
# Of a machine that has vanished nobody hears: it is asked after 10 s of silence, and given up after 4 answers are missing.
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
GREETING_BYTES, GREETING_SECONDS, MOST_STRANGERS = 36, 10.0, 64
WRITING_SECONDS = 5.0


class RankWatch(Callback):
    """Ends all processes of a job, with the reason, when one of them has died.

    The others would wait for it in their next collective operation: NCCL for ten minutes and more. Every process holds a
    connection to rank 0, on which nothing is said; the kernel closes it when the process ends, however that comes about. Rank 0
    listens at the one address by which the others reach it, and hears only those who know a secret of this job.

    Args:
        grace: seconds that the processes have to end by themselves after one of them has raised an exception; mostly all do.
    """

    def __init__(self, grace: float = 30.0):
        self.grace = grace
        self._connections: dict[socket.socket, int] = {}
        self._strangers: dict[socket.socket, tuple[float, bytes]] = {}  # until when they may say who they are, and what they said
        self._thread: threading.Thread | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        self._rank, self._is_first_here = trainer.global_rank, trainer.local_rank == 0
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._deadline, self._reason = float("inf"), ""
        self._remedy = "; continue the run with --ckpt_path last" if stage == "fit" else ""
        address, secret = None, secrets.token_bytes(32)
        if self._rank == 0:
            host = _own_address() if trainer.num_nodes > 1 else "127.0.0.1"
            self._listener = _listen_at(host, trainer.world_size)
            self._selector.register(self._listener, selectors.EVENT_READ)
            address = (host, self._listener.getsockname()[1])
        self._places: list[tuple] = [()] * trainer.world_size
        torch.distributed.all_gather_object(self._places, (socket.gethostname(), os.getpid(), address, secret))
        self._secret = self._places[0][3]
        if self._rank > 0:
            self._call(self._places[0][2])
        self._thread = threading.Thread(target=self._watch, daemon=True, name="rank-watch")
        self._thread.start()

    def _call(self, address: tuple[str, int]) -> None:
        try:
            connection = socket.create_connection(address, timeout=60)
            connection.settimeout(None)
            connection.sendall(self._greeting(self._rank))
        except OSError as error:
            where = f"{address[0]}, port {address[1]}"
            print(f"rank {self._rank} cannot reach rank 0 at {where} ({error}): neither notices a death", file=sys.stderr)
        else:
            self._keep(connection, 0)

    def _keep(self, connection: socket.socket, rank: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connections[connection] = rank
        self._selector.register(connection, selectors.EVENT_READ)

    def _watch(self) -> None:
        while not self._closing.is_set():
            for key, _ in self._selector.select(timeout=0.2):
                if key.fileobj in self._connections:
                    self._listen(key.fileobj)
                elif key.fileobj in self._strangers:
                    self._greet(key.fileobj)
                else:
                    self._accept()
            for stranger in [one for one, (until, _) in self._strangers.items() if time.monotonic() > until]:
                self._send_away(stranger)
            if time.monotonic() > self._deadline:
                self._end(self._reason)

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)  # who says nothing keeps nobody waiting
            if len(self._strangers) >= MOST_STRANGERS:
                self._send_away(next(iter(self._strangers)))
            self._strangers[connection] = time.monotonic() + GREETING_SECONDS, b""
            self._selector.register(connection, selectors.EVENT_READ)

    def _greet(self, connection: socket.socket) -> None:
        """Keeps a connection whose greeting is that of one of our ranks, and closes any other."""
        until, before = self._strangers[connection]
        try:
            said = connection.recv(GREETING_BYTES - len(before))
        except BlockingIOError:
            return
        except OSError:
            said = b""
        greeting = before + said
        if said and len(greeting) < GREETING_BYTES:
            self._strangers[connection] = until, greeting
            return
        rank = int.from_bytes(greeting[:4], "big")
        expected = 0 < rank < len(self._places) and rank not in self._connections.values()
        if expected and hmac.compare_digest(greeting, self._greeting(rank)):
            del self._strangers[connection]
            self._selector.unregister(connection)
            connection.setblocking(True)
            self._keep(connection, rank)
        else:
            self._send_away(connection)

    def _greeting(self, rank: int) -> bytes:
        """What a rank says first: its number, and what only one who knows the secret can make of it."""
        number = rank.to_bytes(4, "big")
        return number + hmac.digest(self._secret, number, "sha256")

    def _send_away(self, connection: socket.socket) -> None:
        del self._strangers[connection]
        self._selector.unregister(connection)
        connection.close()

    def _listen(self, connection: socket.socket) -> None:
        rank = self._connections[connection]
        try:
            said = connection.recv(1)
        except OSError:
            said = b""
        if said == FAILED:
            self._give_grace(f"{self._name(rank)} failed, and rank {self._rank} did not end by itself")
            return
        if said == TOLD:
            self._end(f"the job has lost a process: see rank 0 on {self._places[0][0]}", speaks=self._is_first_here)
        self._selector.unregister(connection)
        del self._connections[connection]
        connection.close()
        if not said and self._deadline == float("inf") and not self._closing.is_set():  # else all are ending anyway
            self._end(f"{self._name(rank)} has died, killed from outside or by the system for its memory")

    def _name(self, rank: int) -> str:
        host, process, *_ = self._places[rank]
        return f"rank {rank} of {len(self._places)} (process {process} on {host})"

    def _give_grace(self, reason: str) -> None:
        if self._deadline == float("inf"):
            self._deadline, self._reason = time.monotonic() + self.grace, reason

    def _end(self, reason: str, speaks: bool | None = None) -> None:
        """Ends this process, which may be stuck in a kernel or a collective operation, and with it all that watch it."""
        self._tell(TOLD)
        if self._rank <= 1 or self._is_first_here if speaks is None else speaks:  # one voice on every machine
            print(f"error: {reason}; the job ends{self._remedy}", file=sys.stderr, flush=True)
        Background.finish(WRITING_SECONDS)  # the newest checkpoint may be under way
        os._exit(1)

    def _tell(self, word: bytes) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.sendall(word)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._connections:
            self._tell(FAILED)
            self._give_grace(f"rank {self._rank} failed, and could not end")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.close()

    def close(self) -> None:
        """Watches no longer, and says so: from here on this process waits for no other."""
        if self._thread is None:
            return
        self._closing.set()
        self._tell(FINISHED)
        self._thread.join()
        self._thread = None
        for connection in (*self._connections, *self._strangers):
            connection.close()
        self._connections, self._strangers = {}, {}
        if self._rank == 0:
            self._listener.close()
        self._selector.close()


def _listen_at(host: str, backlog: int) -> socket.socket:
    """A listener at that address alone; at all of this machine where the name is one that leads here from outside only."""
    try:
        return socket.create_server((host, 0), backlog=backlog)
    except OSError:
        return socket.create_server(("", 0), backlog=backlog)


def _own_address() -> str:
    """The address by which other machines reach this one."""
    master = os.environ["MASTER_ADDR"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing: it asks which way leads there
        probe.connect((master, int(os.environ["MASTER_PORT"])))
        own = probe.getsockname()[0]
    return master if own.startswith("127.") else own  # this is the master
