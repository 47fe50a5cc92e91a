"""What servers of ours have in common: the socket, and how the interpreter divides its time."""

from __future__ import annotations

import gc
import ipaddress
import socket
import sys


def listen(host: str, port: int) -> socket.socket:
    """Listens on a TCP port (0: any that is free), bound when this returns. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit it. asyncio sets it only where a socket names its protocol, and this one does not; without it
    # the second part of each answer waits 40 ms for the client's acknowledgement of the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def prepare_to_serve() -> None:
    """For a process that does nothing but serve. A thread that reads a large request keeps those that answer others
    waiting for 1 ms, not for the 5 that are Python's default. Garbage is looked for every 10,000 objects, which is some
    ten requests, not every 700, and never among what is there already: what was imported."""
    sys.setswitchinterval(0.001)
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
