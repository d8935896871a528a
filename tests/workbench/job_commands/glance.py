"""A short command: it takes no progress, so it cannot be a job."""


def glance(model: str) -> dict[str, str]:
    """Returns what it was given."""
    return {"model": model}
