"""Server-side scripts for the model of Redis, run by the Lua that Redis has, with the library that it gives them."""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final

import msgspec
import orjson
from lupa import lua51

from tests.simulation.redis_data import CommandError, Data, Reply, Status

_LIBRARY: Final = """
return function(call, sha1hex, decode, encode, null, pack, unpacked, unpack_struct)
  redis = {
    call = call,
    sha1hex = sha1hex,
    error_reply = function(text) return {err = text} end,
    status_reply = function(text) return {ok = text} end,
  }
  redis.pcall = function(...)
    local worked, result = pcall(call, ...)
    return worked and result or {err = tostring(result)}
  end
  server = redis
  cjson = {decode = decode, encode = encode, null = null}
  cmsgpack = {pack = pack, unpack = unpacked}
  struct = {unpack = unpack_struct}
end
"""


class Scripts:
    """One Lua interpreter for all runs: scripts keep nothing between calls. It works on one `Data` at a time."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self._globals = self._lua.globals()
        self._compiled: dict[str, Any] = {}
        self._data: Data | None = None
        self._null = object()
        library = self._lua.execute(_LIBRARY)
        library(
            self._call, _sha1hex, self._decode, self._encode, self._null, self._pack, self._unpack, self._unpack_struct
        )

    def sha_of(self, text: bytes) -> str:
        """Compiles a script; its name."""
        sha = hashlib.sha1(text).hexdigest()
        if sha not in self._compiled:
            body = text.split(b"\n", 1)[1] if text.startswith(b"#!") else text
            self._compiled[sha] = self._lua.compile(body)
        return sha

    def run(self, data: Data, sha: str, keys: list[bytes], args: list[bytes]) -> Reply:
        """Runs a script that was compiled. Raises CommandError."""
        self._data = data
        self._globals[b"KEYS"], self._globals[b"ARGV"] = self._lua.table_from(keys), self._lua.table_from(args)
        try:
            return self._reply(self._compiled[sha]())
        except lua51.LuaError as error:
            raise CommandError(f"ERR {error}") from error
        finally:
            self._data = None

    # ---- what scripts call

    def _call(self, *args: Any) -> Any:
        assert self._data is not None
        return self._to_lua(self._data.call([_argument(arg) for arg in args]))

    def _decode(self, text: bytes) -> Any:
        return self._to_lua(orjson.loads(text), null=self._null)

    def _encode(self, value: Any) -> bytes:
        return orjson.dumps(self._from_lua(value))

    def _pack(self, *values: Any) -> bytes:
        return b"".join(msgspec.msgpack.encode(self._from_lua(value, text=False)) for value in values)

    def _unpack(self, packed: bytes) -> Any:
        return self._to_lua(msgspec.msgpack.decode(packed))

    def _unpack_struct(self, layout: bytes, text: bytes, at: Any = 1) -> tuple[int, int]:
        kinds = {b"<I4": "<I", b"<i4": "<i", b"<I2": "<H", b"<i2": "<h", b"<I8": "<Q", b"<i8": "<q"}
        kind = struct.Struct(kinds[layout])
        return kind.unpack_from(text, int(at) - 1)[0], int(at) + kind.size

    # ---- values

    def _to_lua(self, value: Any, null: Any = False) -> Any:
        match value:
            case None:
                return null
            case Status():
                return self._lua.table_from({b"ok": bytes(value)})
            case str():
                return value.encode()
            case list() | tuple():
                return self._lua.table_from([self._to_lua(item, null) for item in value])
            case dict():
                return self._lua.table_from({key.encode(): self._to_lua(item, null) for key, item in value.items()})
        return value

    def _from_lua(self, value: Any, *, text: bool = True) -> Any:
        if lua51.lua_type(value) == "table":
            keys = list(value.keys())
            if all(isinstance(key, int) for key in keys):
                return [self._from_lua(value[at], text=text) for at in range(1, len(keys) + 1)]
            return {key.decode(): self._from_lua(value[key], text=text) for key in keys}
        if value is self._null:
            return None
        return value.decode() if text and isinstance(value, bytes) else value

    def _reply(self, value: Any) -> Reply:
        if lua51.lua_type(value) == "table":
            if value[b"err"] is not None:
                raise CommandError(value[b"err"].decode())
            if value[b"ok"] is not None:
                return Status(value[b"ok"])
            items: list[Reply] = []
            while (item := value[len(items) + 1]) is not None:
                items.append(self._reply(item))
            return items
        if isinstance(value, bool):
            return 1 if value else None
        return int(value) if isinstance(value, float) else value


def _argument(value: Any) -> bytes:
    """An argument of a command, as Redis makes it of a Lua value."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CommandError("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % value if value == int(value) else f"{value:.17g}".encode()


def _sha1hex(text: bytes) -> bytes:
    return hashlib.sha1(text).hexdigest().encode()


SCRIPTS: Final = Scripts()
