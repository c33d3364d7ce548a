"""A real Prometheus server, filled with known series and scraping a small exporter; and servers that answer wrongly."""

import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

START_S = 20.0


@dataclass(frozen=True)
class Series:
    """A metric with its labels, written as in a selector, and its samples (UTC epoch seconds, value)."""

    name: str
    samples: Sequence[tuple[float, float]]


@dataclass
class Server:
    """A running Prometheus."""

    url: str
    process: subprocess.Popen[bytes]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing while the block runs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@dataclass
class Exporter:
    """Shows what `text` returns, which is called once per scrape."""

    text: Callable[[], str]
    url: str = ""
    scrapes: int = 0


@dataclass
class Answers:
    """Gives every request the same answer, and remembers what it was asked."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    url: str = ""


@contextmanager
def prometheus(folder: Path, *, history: Sequence[Series] = (), scrape: Sequence[str] = ()) -> Iterator[Server]:
    """Runs a server with `history` in its blocks, that scrapes the targets `scrape` (host:port) every 0.2 s.

    It scrapes for the first time after 5 s, whatever is configured.
    """
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install prometheus")
    data = folder / "data"
    if history:
        text = folder / "history.om"
        text.write_text(openmetrics(history))
        made = subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(text), str(data)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert made.returncode == 0, made.stdout + made.stderr
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: exporter, static_configs: [{{targets: [{', '.join(scrape)}]}}]}}]\n"
    )
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=3650d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Server(url=f"http://127.0.0.1:{port}", process=process)
            wait_until(lambda: _is_ready(server), what=(folder / "log").read_text)
            yield server
        finally:
            process.kill()


def openmetrics(series: Sequence[Series]) -> str:
    """Returns series as OpenMetrics text, family by family."""
    lines = []
    for name in dict.fromkeys(one.name.partition("{")[0] for one in series):
        family = name.removesuffix("_total")
        lines.append(f"# TYPE {family} {'counter' if family != name else 'gauge'}")
        for one in series:
            if one.name.partition("{")[0] == name:
                lines += [f"{one.name} {value!r} {at_s:.3f}" for at_s, value in one.samples]
    return "\n".join([*lines, "# EOF\n"])


@contextmanager
def exporter(text: Callable[[], str]) -> Iterator[Exporter]:
    """Serves Prometheus's text format."""
    shown = Exporter(text=text)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.scrapes += 1
            _answer(self, 200, shown.text(), {"Content-Type": "text/plain; version=0.0.4"})

        def log_message(self, *args: object) -> None:
            return

    with _served(Handler) as address:
        shown.url = address
        yield shown


@contextmanager
def answering(answers: Answers) -> Iterator[Answers]:
    """Serves the same answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append((self.path, dict(self.headers)))
            time.sleep(answers.delay_s)
            _answer(self, answers.status, answers.body, answers.headers)

        def log_message(self, *args: object) -> None:
            return

    with _served(Handler) as address:
        answers.url = f"http://{address}"
        yield answers


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, status: int, body: str, headers: Mapping[str, str]) -> None:
    try:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body.encode())
    except OSError:
        return  # the client has given up, which may be what is tested


def _is_ready(server: Server) -> bool:
    assert server.process.poll() is None, "prometheus ended"
    try:
        with urllib.request.urlopen(f"{server.url}/-/ready", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_until(
    is_true: Callable[[], object], *, what: Callable[[], str] = lambda: "", within_s: float = START_S
) -> None:
    """Waits for something that will happen soon; fails where it does not."""
    until_s = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < until_s, f"waited {within_s} s in vain. {what()}"
        time.sleep(0.02)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
