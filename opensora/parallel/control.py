"""The control line of a job: its processes exchange small values and report failures.

Rank 0 runs a hub, to which every rank connects by TCP. A connection that closes without a message is that of
a killed process: the hub tells all others, which exit at once instead of waiting in a collective. Every rank
and the hub send heartbeats from a thread, so a process that stands still is noticed, and one that computes,
reads or waits is not. Messages are lines of JSON.
"""

import hmac
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from opensora.console import printable

log = logging.getLogger(__name__)

# A machine that loses power closes no connection: it counts as dead after idle + interval * count seconds of
# silence.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
SECONDS_TO_TELL, SECONDS_TO_HANG_UP = 1.0, 5.0
KILLED = "its process ended without a message: it was killed, or ran out of memory"
HEARTBEATS = 20
"""Heartbeats within the time that a rank may stand still."""


def stop_process(rank: int, reason: str, code: int) -> None:
    """Print the reason and end this process, even if its main thread is blocked."""
    print(f"opensora: rank {rank} failed and ends the job: {printable(reason)}", file=sys.stderr, flush=True)
    time.sleep(SECONDS_TO_TELL)  # the hub on rank 0 may still be sending
    os._exit(code)


def standing_still(seconds: float) -> str:
    """The reason that ends a job of which a rank has sent no heartbeat for this time."""
    return (
        f"its process stood still for {seconds:g} seconds, the limit of --rank_timeout: "
        "find out what suspended it, or raise the limit"
    )


class Silence:
    """Who has been silent for longer than `timeout` seconds."""

    def __init__(self, timeout: float) -> None:
        self.interval = timeout / HEARTBEATS
        self.timeout = timeout
        self._heard: dict[int, float] = {}
        self._looked = time.monotonic()

    def hear(self, rank: int) -> None:
        self._heard[rank] = time.monotonic()

    def forget(self, rank: int) -> None:
        self._heard.pop(rank, None)

    def find(self) -> int | None:
        """A rank that stands still, or None. To be called after every `interval`."""
        now = time.monotonic()
        if now - self._looked > self.timeout / 2:  # this process stood still itself, and has yet to read
            self._heard = dict.fromkeys(self._heard, now)
        self._looked = now
        return next((rank for rank, then in self._heard.items() if now - then > self.timeout), None)


class Hub:
    """Gathers values from ranks and returns them to all members of a round; runs in threads of rank 0."""

    def __init__(self, host: str, token: str, timeout: float) -> None:
        """timeout: seconds that a rank may stand still."""
        self._token = token
        self._silence = Silence(timeout)
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._rounds: dict[str, dict[int, Any]] = {}
        self._over = False
        self._listeners: list[threading.Thread] = []
        self._server = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            self._listeners.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._listeners[-1].start()

    def _watch(self) -> None:
        """Send heartbeats, and find ranks that stand still."""
        while not self._over:
            time.sleep(self._silence.interval)
            with self._lock:
                self._send(list(self._connections), {"heartbeat": True})
                silent = self._silence.find()
            if silent is not None:
                self._fail(silent, standing_still(self._silence.timeout), 1)

    def _serve(self, connection: socket.socket) -> None:
        _keep_alive(connection)
        rank, left = -1, False
        try:
            with connection, connection.makefile("r", encoding="utf-8") as lines:
                hello = json.loads(lines.readline())
                if not hmac.compare_digest(str(hello["token"]), self._token):
                    return
                rank = int(hello["rank"])
                with self._lock:
                    self._connections[rank] = connection
                    self._silence.hear(rank)
                for line in lines:
                    message = json.loads(line)
                    left = left or "leave" in message
                    with self._lock:
                        self._silence.hear(rank)
                    self._take(rank, message)
        except (OSError, ValueError, KeyError):
            pass  # a closed connection or half a message: reported below
        with self._lock:
            self._silence.forget(rank)
        if rank >= 0 and not left:
            self._fail(rank, KILLED, 1)

    def _take(self, rank: int, message: dict[str, Any]) -> None:
        if "failed" in message:
            self._fail(rank, message["failed"], message["code"])
        elif "round" in message:
            with self._lock:
                values = self._rounds.setdefault(message["round"], {})
                values[rank] = message["value"]
                if len(values) == len(message["members"]):
                    del self._rounds[message["round"]]
                    self._send(
                        message["members"], {"values": [values[member] for member in message["members"]]}
                    )

    def _fail(self, rank: int, reason: str, code: int) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                # Rank 0 last: the hub ends with it.
                self._send(
                    sorted(self._connections, reverse=True), {"failed": reason, "rank": rank, "code": code}
                )

    def _send(self, ranks: Sequence[int], message: dict[str, Any]) -> None:
        for rank in ranks:
            try:
                self._connections[rank].sendall(_line(message))
            except OSError:
                log.debug("rank %d is gone", rank)

    def close(self) -> None:
        """Wait SECONDS_TO_HANG_UP at most until all ranks disconnect: they still have an answer to read."""
        self._over = True
        self._server.close()
        end = time.monotonic() + SECONDS_TO_HANG_UP
        for listener in self._listeners:
            listener.join(max(0.0, end - time.monotonic()))


class Control:
    """A rank's end of the control line."""

    def __init__(
        self,
        rank: int,
        size: int,
        address: tuple[str, int],
        token: str,
        timeout: float,
        on_failure: Callable[[int, str, int], None] = stop_process,
    ) -> None:
        """timeout: seconds that the hub may stand still. on_failure: gets a rank, a reason, an exit code."""
        self.rank, self.size = rank, size
        self._silence = Silence(timeout)
        self._silence.hear(0)
        self._on_failure = on_failure
        self._answers: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._rounds: dict[str, int] = {}
        self._over = False
        self._sending = threading.Lock()
        self._connection = socket.create_connection(address, timeout=60)
        self._connection.settimeout(None)
        _keep_alive(self._connection)
        self._send({"rank": rank, "token": token})
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def agree(
        self, value: Any = None, group: str = "world", members: Sequence[int] | None = None
    ) -> list[Any]:
        """The values of all members (default: all ranks) in their order; waits without a timeout for the last
        one.

        The n-th call of each member belongs to one round, counted for each group. Values must be JSON.
        """
        number = self._rounds[group] = self._rounds.get(group, 0) + 1
        chosen = list(range(self.size)) if members is None else list(members)
        self._send({"round": f"{group}/{chosen[0]}/{number}", "members": chosen, "value": value})
        return self._answers.get()

    def fail(self, reason: str, code: int) -> None:
        """Tell all other ranks to exit with this code."""
        self._over = True
        self._send({"failed": reason, "code": code})
        time.sleep(SECONDS_TO_TELL)

    def leave(self) -> None:
        """Wait until all ranks are done, then disconnect."""
        self.agree("leave")
        self._over = True
        self._send({"leave": True})
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self._over = True
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the hub is gone")
        self._connection.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                self._connection.sendall(_line(message))
        except OSError:
            log.debug("the hub is gone")  # the listening thread ends this process

    def _watch(self) -> None:
        """Send heartbeats, and notice if the hub stands still."""
        while not self._over:
            self._send({"heartbeat": True})
            time.sleep(self._silence.interval)
            if self._silence.find() is not None and not self._over:
                self._on_failure(0, standing_still(self._silence.timeout), 1)
                return

    def _listen(self) -> None:
        failed: dict[str, Any] = {"failed": KILLED, "rank": 0, "code": 1}
        try:
            with self._connection.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    message = json.loads(line)
                    self._silence.hear(0)
                    if "failed" in message:
                        failed = message
                        break
                    if "values" in message:
                        self._answers.put(message["values"])
        except (OSError, ValueError):
            pass
        if not self._over:
            self._on_failure(int(failed["rank"]), str(failed["failed"]), int(failed["code"]))


def _line(message: dict[str, Any]) -> bytes:
    return (json.dumps(message) + "\n").encode()


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
