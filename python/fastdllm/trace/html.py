"""A trace as one HTML file that opens from disk: the viewer of the server's page, and the data."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

from fastdllm.trace.document import TraceDocument

PAGE = Path(__file__).parents[1] / "serve" / "page"


def draw_html(trace: TraceDocument) -> str:
    """Return the file's text. It asks for nothing from elsewhere, and its CSP forbids it."""
    scripts = [_page_file(name) for name in ("trace_picture.js", "trace_view.js")]
    parts = {
        "TITLE": escape(f"fastdllm trace: {trace['package']}"),
        "STYLE": _page_file("trace_view.css"),
        "SCRIPT": re.sub(r"(?m)^import .*\n", "", "\n".join(scripts)),  # one script holds both
        "DATA": json_in_html(trace),
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: parts[found[1]], _page_file("trace.html"))


def json_in_html(content: object) -> str:
    """Return JSON that may stand in a script element: no `<`, so nothing in it ends the element."""
    text = json.dumps(content, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page_file(name: str) -> str:
    return (PAGE / name).read_text("utf-8")
