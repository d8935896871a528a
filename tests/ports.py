"""A port of this machine that nothing listens on."""

import contextlib
import random
import socket

# Below the range that systems hand out by themselves: between this call and the server's start nobody else is given it.
RANGE = 10_240, 32_000


def find_free_port() -> int:
    """A free TCP port on 127.0.0.1."""
    # Drawn by the system: tests side by side that seed `random` alike must not draw alike.
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(*RANGE)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
