"""`/openapi.json` and a page made of it for people: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import functools
import html
from typing import Any

import orjson

from frontend.http.request import Request
from frontend.http.responses import HttpResponse, encoded_response
from frontend.http.router import Route
from frontend.routes import openapi

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
code, pre { font: 14px/1.5 ui-monospace, monospace }
summary { cursor: pointer; padding: .3rem 0 }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600; text-transform: uppercase }
"""


@functools.cache
def document_bytes() -> bytes:
    return orjson.dumps(openapi.document())


@functools.cache
def page() -> bytes:
    document = openapi.document()
    sections: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(parts)}" for tag, parts in sections.items())
    schemas = "".join(
        _details(f"<code>{name}</code>", schema) for name, schema in document["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{openapi.TITLE}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{openapi.TITLE} {openapi.VERSION}</h1>"
        f'<p>{html.escape(document["info"]["description"])} <a href="/openapi.json">openapi.json</a></p>'
        f"{body}<h2>Schemas</h2>{schemas}</body></html>"
    ).encode()


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    title = f'<span class="method">{method}</span> <code>{html.escape(path)}</code>'
    shown = {name: operation[name] for name in ("parameters", "requestBody", "responses") if operation.get(name)}
    return _details(title, shown)


def _details(title: str, content: Any) -> str:
    text = orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()
    return f"<details><summary>{title}</summary><pre>{html.escape(text)}</pre></details>"


async def docs(_request: Request) -> HttpResponse:
    return HttpResponse(page(), content_type="text/html; charset=utf-8")


async def docs_redirect(_request: Request) -> HttpResponse:
    answer = HttpResponse(status=303, content_type=None)
    answer.add("Location", "/docs/")
    return answer


async def openapi_json(_request: Request) -> HttpResponse:
    return encoded_response(document_bytes())


def routes() -> list[Route]:
    return [
        Route("GET", "/docs", docs_redirect),
        Route("GET", "/docs/", docs),
        Route("GET", "/openapi.json", openapi_json),
    ]
