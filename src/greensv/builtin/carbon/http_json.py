"""One HTTP question with a JSON answer. What goes wrong is said in words, and never with the token."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NoReturn

from greensv.errors import CarbonError

MAX_ANSWER_BYTES = 8 * 2**20
USER_AGENT = "greensv"
REMEDIES: Mapping[int, str] = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it has moved; give the new address as base_url"),
    401: "the token is missing or wrong",
    403: "the token's plan does not include this",
    404: "it is not there",
    429: "too many questions in a while; ask less often",
}


class Refused(CarbonError):
    """The server answered with an HTTP status that is an error."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: urllib would send the token on to wherever they lead."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def get_json(
    url: str,
    params: Mapping[str, str],
    *,
    timeout_s: float,
    about: str = "",
    headers: Mapping[str, str] | None = None,
    secret: str = "",
) -> Any:
    """Returns the parsed answer of a GET.

    Args:
        url: http or https, without a query.
        params: the query.
        timeout_s: for connecting, and for each wait for data.
        about: what is asked for, in words for messages.
        headers: to be sent; they never appear in a message.
        secret: a part of them that is cut out of what the server says.

    Raises:
        Refused: with the status, and what the server said.
        CarbonError: not reached, too long, or no JSON; names the address.
    """
    where = f"{url} (asked for {about})" if about else url
    try:
        request = urllib.request.Request(
            f"{url}?{urllib.parse.urlencode(params)}", headers={"User-Agent": USER_AGENT, **(headers or {})}
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s) as answer:
            body = answer.read(MAX_ANSWER_BYTES + 1)
            kind = answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        with error:
            _refused(where, error.code, _said(error), secret)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        what = f"no answer within {timeout_s:g} s" if isinstance(reason, TimeoutError) else str(reason)
        raise CarbonError(f"{where} was not reached: {what}; check the network, a proxy or base_url") from None
    if len(body) > MAX_ANSWER_BYTES:
        raise CarbonError(f"{where} answered with more than {MAX_ANSWER_BYTES // 2**20} MiB; check base_url")
    try:
        return json.loads(body)
    except ValueError:
        raise CarbonError(f"{where} answered with {kind}, not JSON; a proxy or a login page? check base_url") from None


def _said(error: urllib.error.HTTPError) -> str:
    """Returns what the body of an error says: its `error` or `message`, in either provider's form."""
    try:
        found = json.loads(error.read(4096))
    except (OSError, HTTPException, ValueError):
        return ""
    if not isinstance(found, dict):
        return ""
    return next((str(found[key]) for key in ("message", "error") if isinstance(found.get(key), str)), "")


def _refused(where: str, code: int, said: str, secret: str) -> NoReturn:
    told = said.replace(secret, "…")[:200] if secret else said[:200]
    parts = [f"{where} answered HTTP {code}", REMEDIES.get(code, ""), f"it says {told!r}" if told else ""]
    raise Refused("; ".join(filter(None, parts)), code=code) from None
