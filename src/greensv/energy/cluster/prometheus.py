"""Raw samples from a Prometheus server, through its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

Never `increase()` or `rate()`: they extrapolate to the edges, and what a wrapping counter counted between its last
scrape and the wrap is lost in them.
"""

import http.client
import json
import logging
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from greensv import __version__
from greensv.errors import MeterError

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "GREENSV_PROMETHEUS_TOKEN"
"""Environment variable: a bearer token for the server. It is sent, and never stored, logged or shown."""
CHUNK_S = 7 * 86_400.0
"""A server refuses a query that loads too many samples, 50 million by default; a week of 500 series stays below."""
EXCERPT = 200

RawSample = tuple[float, float]
"""When the server took it (UTC epoch seconds, by the server's clock), and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSeries:
    """One time series as it was scraped, in order of time; what is no finite number is left out."""

    labels: Mapping[str, str]
    samples: tuple[RawSample, ...]

    def __str__(self) -> str:
        name = self.labels.get("__name__", "")
        labels = ", ".join(f'{k}="{v}"' for k, v in self.labels.items() if k != "__name__")
        return f"{name}{{{labels}}}"


class PrometheusClient:
    """Asks one server. Opens no connection before it is asked; each request has its own.

    Args:
        url: where the server is, such as `http://localhost:9090`, with the path in front of `/api/v1` if there is one.
        timeout_s: how long the server may be silent.
        monotonic: this machine's monotonic clock, in seconds.

    Raises:
        MeterError: the URL cannot be used.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.url = checked_url(url)
        self._timeout_s = timeout_s
        self.monotonic = monotonic
        self._opener = urllib.request.build_opener(_NoRedirect)

    def clock_offset_s(self) -> float:
        """Returns the server's clock (UTC epoch seconds) less this machine's monotonic clock.

        Exact to half of what the request takes, milliseconds on a local network.
        """
        asked_s = self.monotonic()
        data = self._get("query", {"query": "time()"})
        answered_s = self.monotonic()
        try:
            server_s = float(data["result"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._not_understood(data) from error
        return server_s - (asked_s + answered_s) / 2

    def raw(self, selector: str, *, duration_s: float, end_s: float | None = None) -> list[RawSeries]:
        """Returns the samples of all series that a selector matches, as they were scraped; none where nothing matches.

        Args:
            selector: an instant-vector selector, such as `ceems_rapl_package_joules_total{hostname="n1"}`.
            duration_s: how far to look back.
            end_s: from when, by the server's clock; None: from now.

        Raises:
            MeterError: the server does not answer, refuses, or answers something else.
        """
        if duration_s <= CHUNK_S:
            return self._raw_chunk(selector, duration_s=duration_s, end_s=end_s)
        if end_s is None:
            end_s = self.monotonic() + self.clock_offset_s()
        found: dict[tuple[tuple[str, str], ...], list[RawSample]] = {}
        start_s = end_s - duration_s
        for index in range(math.ceil(duration_s / CHUNK_S)):
            until_s = min(end_s, start_s + (index + 1) * CHUNK_S)
            for part in self._raw_chunk(selector, duration_s=until_s - (start_s + index * CHUNK_S), end_s=until_s):
                samples = found.setdefault(tuple(sorted(part.labels.items())), [])
                # Servers before version 3 give the sample on the seam twice.
                last_s = samples[-1][0] if samples else -math.inf
                samples += [sample for sample in part.samples if sample[0] > last_s]
        return [RawSeries(labels=dict(labels), samples=tuple(samples)) for labels, samples in found.items()]

    def _raw_chunk(self, selector: str, *, duration_s: float, end_s: float | None) -> list[RawSeries]:
        parameters = {"query": f"{selector}[{max(1, math.ceil(duration_s * 1000))}ms]"}
        if end_s is not None:
            parameters["time"] = f"{end_s:.3f}"
        data = self._get("query", parameters)
        if not isinstance(data, dict) or data.get("resultType") != "matrix":
            raise self._not_understood(data)
        try:
            return [_series(item) for item in data["result"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_understood(data) from error

    def _get(self, endpoint: str, parameters: Mapping[str, str]) -> Any:
        address = f"{self.url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        headers = {"Accept": "application/json", "User-Agent": f"greensv/{__version__}"}
        if token := _token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            with self._opener.open(urllib.request.Request(address, headers=headers), timeout=self._timeout_s) as reply:
                body = reply.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, parameters) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MeterError(self._unreachable(error)) from error
        return self._data(body)

    def _data(self, body: bytes) -> Any:
        try:
            answer = json.loads(body)
        except ValueError:
            text = body[:EXCERPT].decode(errors="replace")
            raise MeterError(
                f"{self.url} answered something else than JSON ({text!r}); give the URL of a Prometheus server, with "
                "the path in front of /api/v1, and not that of a log-in page or of Grafana"
            ) from None
        if not isinstance(answer, dict) or answer.get("status") != "success" or "data" not in answer:
            raise self._not_understood(answer)
        for warning in answer.get("warnings") or ():
            logger.warning("%s warns: %s", self.url, warning)
        return answer["data"]

    def _refused(self, error: urllib.error.HTTPError, parameters: Mapping[str, str]) -> MeterError:
        if error.code in (401, 403):
            sent = "refuses the token in" if _token() else "wants a token: set"
            return MeterError(f"{self.url} {sent} the environment variable {TOKEN_VARIABLE} (HTTP {error.code})")
        if 300 <= error.code < 400:
            return MeterError(
                f"{self.url} redirects to {error.headers.get('Location', 'nowhere')!r}, which greensv does not follow; "
                "give the URL of the Prometheus server itself"
            )
        try:
            body = error.read()
        except (OSError, http.client.HTTPException):
            body = b""
        try:
            answer = json.loads(body)
            said = f"{answer['errorType']}: {answer['error']}"
        except (ValueError, KeyError, TypeError):
            said = repr(body[:EXCERPT].decode(errors="replace")) if body else "no explanation"
        advice = 'give a selector such as name{label="value"}, without functions and without a range'
        return MeterError(
            f"{self.url} refuses the query {parameters['query']} (HTTP {error.code}: {said})"
            + (f"; {advice}" if error.code == 400 else "")
        )

    def _unreachable(self, error: Exception) -> str:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return f"{self.url} did not answer within {self._timeout_s:g} s"
        return f"{self.url} cannot be reached ({reason or type(error).__name__})"

    def _not_understood(self, answer: Any) -> MeterError:
        if isinstance(answer, dict) and "error" in answer:
            return MeterError(f"{self.url} answers {answer.get('errorType', 'error')}: {answer['error']}")
        return MeterError(
            f"{self.url} answers in a form that is not Prometheus's: {json.dumps(answer)[:EXCERPT]}; "
            "give the URL of a Prometheus server"
        )


def _token() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise MeterError(f"the environment variable {TOKEN_VARIABLE} holds characters that no token has; set it anew")
    return token


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would send the token along to wherever a server points."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def checked_url(url: str) -> str:
    """Returns a server's URL without a slash at its end.

    Raises:
        MeterError: it is no http(s) URL, or holds a user name: options are stored with the study.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise MeterError(f"no URL of a Prometheus server: {url!r}; give one such as http://localhost:9090")
    if "@" in parts.netloc:
        raise MeterError(
            f"the URL of {parts.hostname} holds a user name, and URLs are stored with a study; "
            f"put a bearer token into the environment variable {TOKEN_VARIABLE} instead"
        )
    if parts.query or parts.fragment:
        raise MeterError(f"the URL {url!r} ends in a query; give it up to the path in front of /api/v1")
    return re.sub(r"/+(api/v1/?)?$", "", url)


def selector_of(name: str, **labels: str) -> str:
    """Returns the selector of a metric whose labels have these values."""
    matchers = ", ".join(f"{label}={json.dumps(value, ensure_ascii=False)}" for label, value in labels.items())
    return f"{name}{{{matchers}}}" if matchers else name


def scrape_interval_s(samples: Sequence[RawSample]) -> float | None:
    """Returns the median time between two successive samples of a series, in seconds; None of fewer than two."""
    steps = sorted(later[0] - earlier[0] for earlier, later in pairwise(samples))
    return steps[len(steps) // 2] if steps else None


def _series(item: Any) -> RawSeries:
    values = [(float(at_s), float(text)) for at_s, text in item.get("values", ())]
    return RawSeries(
        labels=dict(item["metric"]), samples=tuple((at_s, value) for at_s, value in values if math.isfinite(value))
    )
