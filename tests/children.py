"""Functions in forked processes: no import again, and one may kill itself without a trace."""

import os
import signal
import traceback
from collections.abc import Callable, Sequence


def in_children(function: Callable[[], object], environments: Sequence[dict[str, str]] = ({},)) -> list[int]:
    """Run `function` in one child for each of these environments, at the same time; their exit codes, −9 for a killed one."""
    children = []
    for environment in environments:
        child = os.fork()
        if child == 0:
            os.environ.update(environment)
            try:
                function()
                code = 0
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def processes(count: int, port: int, **more: str) -> list[dict[str, str]]:
    """What a launcher tells each of `count` processes of this machine."""
    common = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **common, **more} for rank in range(count)]


def die() -> None:
    """End this process at once, as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
