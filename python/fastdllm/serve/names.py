"""The host names that a server accepts, and the pages that may use it.

A page anywhere can have its own name resolve to 127.0.0.1 and then ask a server there as if it came
from it. The Host header tells: it holds the page's name. And a page can send a request elsewhere
without reading the answer; then its Origin is another than the server's.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastdllm.serve.errors import ApiError
from fastdllm.serve.hosts import Host, is_loopback, read_host

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}


def check_names(
    headers: Sequence[tuple[bytes, bytes]],
    *,
    address: str | None,
    method: str,
    allowed: frozenset[str],
) -> None:
    """Refuse a request by a name that is not the server's, and one of a page of another.

    address: where the request came in; None: unknown. allowed: names beside those of this machine.
    Errors: ApiError 400 for a Host that is no host, 403.
    """
    given = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
    host = read_host(given[0]) if len(given) == 1 else None
    if allowed or (address is not None and is_loopback(address)):
        if host is None:
            found = "; ".join(ascii(one)[:80] for one in given) or "none"
            raise ApiError(
                400, f"the Host header is {found}; expected one name", code="invalid_host"
            )
        if host.name not in _LOCAL | allowed | {_name_of(address)}:
            raise ApiError(
                403,
                f"this server is not called {host.name[:80]!a}; expected localhost, 127.0.0.1,"
                " [::1] or a name given with --allowed-host",
                code="host_not_allowed",
            )
    if method not in ("GET", "HEAD"):
        _check_origin(headers, host, allowed)


def _name_of(address: str | None) -> str | None:
    host = read_host(f"[{address}]" if ":" in (address or "") else address or "")
    return None if host is None else host.name


def _check_origin(
    headers: Sequence[tuple[bytes, bytes]], host: Host | None, allowed: frozenset[str]
) -> None:
    given = [value.decode("latin-1") for name, value in headers if name.lower() == b"origin"]
    if not given:
        return  # no browser
    scheme, _, rest = given[0].lower().partition("://")
    origin = read_host(rest) if len(given) == 1 and scheme in _PORTS else None
    if origin is not None:
        usual = _PORTS[scheme]
        same = host is not None and origin.name == host.name
        if same and (origin.port or usual) == ((host and host.port) or usual):
            return
        if origin.name in allowed:
            return
    raise ApiError(
        403,
        f"the request comes from a page of {ascii(given[0])[:80]}, not of this server; its name"
        " may be given with --allowed-host",
        code="origin_not_allowed",
    )
