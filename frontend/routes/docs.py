"""Routes of the documentation: `/openapi.json`, and a page for people that is made of it, without any script."""

from __future__ import annotations

import functools
import html
from typing import Any

import orjson

from frontend.http.request import Request
from frontend.http.responses import HttpResponse, encoded_response
from frontend.http.router import Route
from frontend.routes.openapi.document import TITLE, VERSION, document

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
code, pre { font: 14px/1.5 ui-monospace, monospace }
summary { cursor: pointer; padding: .3rem 0 }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600; text-transform: uppercase }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@functools.cache
def document_bytes() -> bytes:
    """The OpenAPI document, encoded once."""
    return orjson.dumps(document())


@functools.cache
def page() -> bytes:
    """The page, made once."""
    described = document()
    sections: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(operations)}" for tag, operations in sections.items())
    schemas = "".join(
        _details(f"<code>{name}</code>", schema) for name, schema in described["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{TITLE} {VERSION}</h1>"
        f'<p>{html.escape(described["info"]["description"])} <a href="/openapi.json">openapi.json</a></p>'
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
    """The page."""
    response = HttpResponse(page(), content_type="text/html; charset=utf-8")
    response.add("Content-Security-Policy", _POLICY)
    response.add("Referrer-Policy", "no-referrer")
    return response


async def docs_redirect(_request: Request) -> HttpResponse:
    """Sends browsers to the page."""
    response = HttpResponse(status=303, content_type=None)
    response.add("Location", "/docs/")
    return response


async def openapi_json(_request: Request) -> HttpResponse:
    """The OpenAPI document."""
    return encoded_response(document_bytes())


def routes() -> list[Route]:
    """The routes of this group."""
    return [
        Route("GET", "/docs", docs_redirect),
        Route("GET", "/docs/", docs),
        Route("GET", "/openapi.json", openapi_json),
    ]
