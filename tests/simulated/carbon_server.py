"""The wire forms of RTE's éCO2mix (Opendatasoft v2.1) and of Electricity Maps (v3), served on loopback.

The forms were recorded by others (CEEMS, CodeCarbon, the providers' pages): the hosts cannot be reached from here. The
grid itself is a function of time, so any period can be asked for. Each answer can be replaced, to fail in every way.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "secret-token-0123"
ZONES = {"FR", "DE", "US-CAL-CISO"}
RTE_PATH = "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records"
QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)

Grid = Callable[[datetime], int | None]
Answer = tuple[int, str, str]
"""Status, content type and body."""


@dataclass
class CarbonServer:
    """What the server does, and what it was asked: (path, query, headers)."""

    port: int = 0
    rte: Grid = lambda at: 10 + at.hour
    """g/kWh of the quarter hour that begins at a time; None: not known yet."""
    maps: Grid = lambda at: 20 + at.hour
    published_to: datetime | None = None
    """The last time for which there is a figure; None: now."""
    has_past_range: bool = True
    answers_for: str | None = None
    """A zone it answers for, whatever was asked: the caller's own, by address."""
    is_estimated: bool = False
    instead: Answer | Callable[[], Answer] | None = None
    """An answer to everything."""
    delay_s: float = 0.0
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rte_url(self) -> str:
        return f"{self.url}/api/explore/v2.1"

    @property
    def maps_url(self) -> str:
        return f"{self.url}/v3"

    @property
    def paths(self) -> list[str]:
        return [path.rpartition("/")[2] for path, _, _ in self.asked]

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        self.asked.append((path, query, headers))
        time.sleep(self.delay_s)
        if self.instead is not None:
            return self.instead() if callable(self.instead) else self.instead
        if path == RTE_PATH:
            return self._rte(query)
        if path.startswith("/v3/carbon-intensity/"):
            return self._maps(path.rpartition("/")[2], query, headers)
        return _json(404, {"error": "Not found"})

    def _last(self) -> datetime:
        return self.published_to or datetime.now(UTC)

    def _rte(self, query: dict[str, str]) -> Answer:
        limit = int(query["limit"])
        if limit > 100:
            return _json(
                400, {"error_code": "InvalidRESTParameterError", "message": "Invalid value for limit API parameter"}
            )
        bounds = [datetime.fromisoformat(text) for text in re.findall(r"date'([^']+)'", query["where"])]
        last = self._last()
        start, end = bounds if bounds else (last - timedelta(days=2), last)
        at = start - timedelta(minutes=start.minute % 15, seconds=start.second, microseconds=start.microsecond)
        found = []
        while at < min(end, last):
            if at >= start and (value := self.rte(at)) is not None:
                found.append({"taux_co2": value, "date_heure": at.isoformat()})
            at += QUARTER
        if query["order_by"].endswith("desc"):
            found.reverse()
        return _json(200, {"total_count": len(found), "results": found[:limit]})

    def _maps(self, endpoint: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        if headers.get("auth-token") != TOKEN:
            return _json(401, {"error": f"Request unauthorized: {headers.get('auth-token')} is no token."})
        zone = self.answers_for or query["zone"]
        if zone not in ZONES and self.answers_for is None:
            return _json(404, {"status": "error", "message": f"Zone '{zone}' does not exist."})
        hour = self._last().replace(minute=0, second=0, microsecond=0)
        if endpoint == "latest":
            return _json(200, self._item(zone, hour, query))
        if endpoint == "history":
            hours = [hour - n * HOUR for n in range(24, 0, -1)]
            return _json(200, {"zone": zone, "history": [self._item(zone, at, query) for at in hours]})
        return self._past_range(zone, hour, query)

    def _past_range(self, zone: str, hour: datetime, query: dict[str, str]) -> Answer:
        if not self.has_past_range:
            return _json(403, {"error": "This token does not give access to past-range."})
        start, end = datetime.fromisoformat(query["start"]), datetime.fromisoformat(query["end"])
        if end - start > timedelta(days=10):
            return _json(400, {"error": "The time range is limited to 10 days."})
        hours = [start + n * HOUR for n in range(int((end - start) / HOUR))]
        return _json(200, {"zone": zone, "data": [self._item(zone, at, query) for at in hours if at <= hour]})

    def _item(self, zone: str, at: datetime, query: dict[str, str]) -> dict[str, object]:
        kind = query.get("emissionFactorType", "lifecycle")
        value = self.maps(at)
        return {
            "zone": zone,
            "carbonIntensity": value if value is None or kind == "lifecycle" else value // 2,
            "datetime": f"{at:%Y-%m-%dT%H:%M:%S}.000Z",
            "updatedAt": f"{at + HOUR:%Y-%m-%dT%H:%M:%S}.000Z",
            "createdAt": f"{at - HOUR:%Y-%m-%dT%H:%M:%S}.000Z",
            "emissionFactorType": kind,
            "isEstimated": self.is_estimated,
            "estimationMethod": "TIME_SLICER_AVERAGE" if self.is_estimated else None,
        }


@contextmanager
def carbon_server() -> Iterator[CarbonServer]:
    """Serves until the end of the block."""
    server = CarbonServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, kind, body = server.answer(parts.path, query, headers)
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if 300 <= status < 400:
                    self.send_header("Location", body)
                self.end_headers()
                self.wfile.write(body.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def _json(status: int, body: object) -> Answer:
    return status, "application/json; charset=utf-8", json.dumps(body)
