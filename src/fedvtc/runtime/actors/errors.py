"""Short texts for Ray's errors."""

from ray.exceptions import RayError, RayTaskError

from fedvtc.errors import FedvtcError

NODE_DIED = "its node died"


def cause_of(error: RayTaskError) -> Exception:
    """Returns the error that the actor raised if it is a `FedvtcError`, else Ray's error with the actor's traceback."""
    return error.cause if isinstance(error.cause, FedvtcError) else error


def reason_of(error: RayError) -> str:
    """Returns the reason for the loss of an actor in a few words; Ray's own text fills a page.

    Raises:
        RayError: the given error, if the constructor of the actor failed; a new actor would fail too.
    """
    text = str(error)
    if "raised in its creation task" in text:
        raise error
    if "NODE_OUT_OF_MEMORY" in text or "running low on memory" in text:
        return "its node ran out of memory"
    return NODE_DIED if "node has died" in text or "node was terminated" in text else "it died"
