"""A TCP connection to a PostgreSQL of the test that can fall silent: bytes are received, acknowledged and kept, as by the kernel
of a proxy.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime import embedded


class Network:
    """Forwards from a port of loopback to the Unix socket of a server, in its own threads."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self._word: bytes | None = None
        self._deaf: list[threading.Event] = []  # connections whose answers are kept; each event is set when it may go on
        self._sockets: set[socket.socket] = set()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """From now on no bytes pass, and both sides get no error."""
        self._flows.clear()

    def lose_answers_to(self, word: bytes) -> None:
        """From now on the answers of a connection are kept, once its client has sent this word to the server."""
        self._word = word

    def restore(self) -> None:
        """Bytes that were kept are delivered, and new ones pass."""
        self._word = None
        self._flows.set()
        for hears in self._deaf:
            hears.set()

    def close(self) -> None:
        self.restore()
        self._door.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()  # ends when the socket is closed
                server = socket.socket(socket.AF_UNIX)
                self._sockets |= {client, server}
                try:
                    server.connect(str(self._target))
                except OSError:  # the server is not there
                    self._end(client, server)
                    continue
                hears = threading.Event()
                hears.set()
                threading.Thread(target=self._ask, args=(client, server, hears), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, hears), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, hears: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                self._flows.wait()
                if self._word is not None and self._word in data:
                    hears.clear()
                    self._deaf.append(hears)
                server.sendall(data)
        self._end(client, server)

    def _answer(self, server: socket.socket, client: socket.socket, hears: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                self._flows.wait()
                hears.wait()
                client.sendall(data)
        self._end(server, client)

    def _end(self, *pair: socket.socket) -> None:
        for sock in pair:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(sock)
            sock.close()


@contextmanager
def network(cluster: embedded.Cluster) -> Iterator[Network]:
    """A network to a server during the block."""
    way = Network(Path(cluster.socket_dir) / f".s.PGSQL.{embedded.PORT}")
    try:
        yield way
    finally:
        way.close()
