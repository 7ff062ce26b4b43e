"""The entry of an RPC server in the membership, by which its callers find it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from shared.cluster.membership import Member, Membership
from shared.errors import Unavailable
from shared.process import telemetry
from shared.rpc.frames import join_address, split_address
from shared.rpc.server import RpcServer

MISSED_HEARTBEATS_MAX: Final = 3

LEAVE_S: Final = 1.0
"""Share of the time for draining that is kept for removing the member from the membership, in seconds."""

log = telemetry.get_logger(__name__)


class Registration:
    """Keeps the entry of a server while it serves, and removes it when the server stops.

    `address` is where callers reach the server. The entry is written anew every `heartbeat_s` seconds, and expires when
    that was missed a few times.
    """

    def __init__(
        self, member_id: str, address: str, membership: Membership, server: RpcServer, heartbeat_s: float
    ) -> None:
        self.address = address
        self.draining = False
        self._member_id = member_id
        self._membership = membership
        self._server = server
        self._heartbeat_s = heartbeat_s
        self._announcing = asyncio.Lock()
        self._left = False

    async def announce(self) -> None:
        """Lists the member as it is now, for a few heartbeats; not once it has left. Raises Unavailable."""
        async with self._announcing:
            if not self._left:
                member = Member(self._member_id, self.address, draining=self.draining)
                await self._membership.announce(member, MISSED_HEARTBEATS_MAX * self._heartbeat_s)

    async def drain(self, timeout_s: float) -> None:
        """Announces that this member is leaving, refuses new calls, delivers the answers to those in flight, and
        removes the member. All of it takes at most about `timeout_s` seconds.

        Heartbeats go on all the while and say that it is draining: callers take a member that is listed no more for
        dead, and ask another one for what this one is still answering.
        """
        ends_s = asyncio.get_running_loop().time() + timeout_s
        self.draining = True
        try:
            await self.announce()
        except Unavailable as error:  # they find out by being refused
            log.warning("draining_not_announced", error=error.message)
        await self._server.drain(max(0.0, ends_s - LEAVE_S - asyncio.get_running_loop().time()))
        try:
            await self._leave()
        except Unavailable as error:  # the entry expires by itself
            log.warning("member_not_removed", error=error.message)

    async def _leave(self) -> None:
        """Removes the member. What announces it at this moment ends first: it would bring the member back."""
        async with self._announcing:
            self._left = True
            await self._membership.leave(self._member_id)

    async def heartbeat(self) -> None:
        """A loop, for ever: announces the member until it has left."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                await self.announce()
            except Unavailable as error:
                log.warning("heartbeat_failed", error=error.message)


def advertised_address(host: str, bound: str, advertise_host: str, redis_url: str) -> str:
    """The address that callers are given for a server that was to listen on `host` and is `bound` to an address: its
    port at `advertise_host` if that is given; else at `host`, or, where that is a wildcard, at the address that Redis
    is reached from.
    """
    _, port = split_address(bound)
    if advertise_host:
        return join_address(advertise_host, port)
    return join_address(_address_towards(redis_url) if _is_wildcard(host) else host, port)


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""


def _address_towards(url: str) -> str:
    """Our address as a peer of the server in `url` sees it. Nothing is sent: a datagram socket only looks
    up the route.
    """
    parts = urlsplit(url)
    found = socket.getaddrinfo(parts.hostname, parts.port or 6379, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, peer = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
