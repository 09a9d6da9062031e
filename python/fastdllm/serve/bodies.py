"""The server's JSON reader, which is stricter than Python's."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastdllm.serve.errors import ApiError


def read_json(body: bytes) -> Any:
    """Return the content of a JSON body. Errors: ApiError 400.

    Refused are NaN and infinities, a key that comes twice, what is no UTF-8, lone surrogates, and
    numbers or nesting beyond what Python's reader takes.
    """
    try:
        content = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant
        )
        if b"\\u" in body:  # may have written half of a surrogate pair
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise ApiError(400, "the body is no valid UTF-8 text", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as problem:
        raise ApiError(400, f"the body is no JSON: {problem}", code="invalid_json") from None
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:80]!a} comes twice in an object")
            seen.add(key)
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
