"""Names and addresses as a Host header has them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Host:
    """A name or address without brackets, in lower case, and a port where one is named."""

    name: str
    port: int | None


def read_host(text: str) -> Host | None:
    """Read "name", "name:port" or "[address]:port"; None: it is none of them."""
    found = _HOST.fullmatch(text.strip(" \t").lower())
    if found is None or int(found[3] or 0) > 65535:
        return None
    name = found[2]
    if name is None:
        try:
            name = ipaddress.IPv6Address(found[1]).compressed
        except ValueError:
            return None
    return Host(name, int(found[3]) if found[3] else None)


def is_loopback(address: str) -> bool:
    """Tell whether a request to this address comes from the same machine."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address == "localhost"
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
