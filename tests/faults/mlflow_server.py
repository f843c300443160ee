"""A real MLflow server, and a wire to it that can be cut and slowed down."""

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``mlflow server`` with a database in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, cwd=folder)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
            assert self._process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)
        raise TimeoutError("mlflow server did not start")

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Wire:
    """Forwards a port to the server's. ``down``: refused. ``delay``: seconds before each answer.

    ``swallow``: the first request with this text reaches the server, but its answer is lost and the line goes dead.
    """

    def __init__(self, to: int) -> None:
        self.to, self.port = to, free_port()
        self.delay, self.swallow = 0.0, b""
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(16)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        listener, self._listener = self._listener, None
        for end in (listener, *list(self._open)):
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if self._listener is not listener:
                near.close()
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            self._open |= {near, far}
            asked = threading.Event()
            threading.Thread(target=self._ask, args=(near, far, asked), daemon=True).start()
            threading.Thread(target=self._answer, args=(far, near, asked), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self.swallow and self.swallow in data:
                    self.swallow = b""
                    self._open.discard(near)
                    near.settimeout(1.0)  # the body follows, the server does what it was asked, the answer goes nowhere
                asked.set()
                far.sendall(data)
        self._close(near, far)

    def _answer(self, far: socket.socket, near: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if asked.is_set():
                    asked.clear()
                    time.sleep(self.delay)
                if near not in self._open:
                    break
                near.sendall(data)
        self._close(near, far)

    def _close(self, *ends: socket.socket) -> None:
        for end in ends:
            self._open.discard(end)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
