"""The recorded cases, and how they are read from their files.

A file of `tests/contract/cases` has one case per line, a JSON object:

    case, area      its name, and the group that it belongs to
    note            what is remarkable about it
    derived         true: made by hand from what Chroma's source says, not recorded from a server
    steps           requests in their order, each with the answer that it must get

A step:

    method, path    what is requested
    headers         headers of the request
    body            JSON to send; or
    raw             text to send as it is; or
    raw_b64         bytes to send, in base64; or
    raw_gen         a text to send that is too long for a file: `pre`, `unit` so many `times`, `post`
    expect          the answer: its status; its `body`, not looked at when it is left out; some of its `headers`, null
                    for one that must not be there
    also_ok         other answers that are as good
    capture         variables to take from the answer's body: name -> JSON pointer

`{name}` in any text of a step stands for a variable: `{tenant}` and `{database}` are the default ones, `{u}` is new and
random for each case, all others were captured by an earlier step. How bodies are compared is in
`tests.contract.matching`.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

CASES: Final = Path(__file__).with_name("cases")


class Generated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A long text: `unit` so many `times` between `pre` and `post`."""

    pre: str
    unit: str
    times: int
    post: str

    def text(self) -> str:
        return self.pre + self.unit * self.times + self.post


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer. `body` is msgspec.UNSET when it does not matter, for null is a body."""

    status: int
    body: Any = msgspec.UNSET
    headers: dict[str, str | None] = {}


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request and the answer that it must get."""

    method: str
    path: str
    expect: Expectation
    headers: dict[str, str] = {}
    body: Any = msgspec.UNSET
    raw: str | None = None
    raw_b64: str | None = None
    raw_gen: Generated | None = None
    also_ok: list[Expectation] = []
    capture: dict[str, str] = {}


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A story of requests and answers that needs nothing but a server."""

    case: str
    area: str
    steps: list[Step]
    note: str = ""
    derived: bool = False

    @property
    def name(self) -> str:
        return f"{self.area}/{self.case}"


def read_cases(path: Path) -> list[Case]:
    """All cases of a file. Raises msgspec.ValidationError for a member that no case has, or that it lacks."""
    lines = path.read_text(encoding="utf-8").split("\n")  # texts of a case may hold other line ends as they are
    # Not parsed by msgspec: integers beyond 64 bits are to be sent as they stand there.
    return [msgspec.convert(json.loads(line), Case) for line in lines if line.strip()]
