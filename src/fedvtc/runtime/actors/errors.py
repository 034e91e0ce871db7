"""What Ray's errors mean, in a few words."""

from ray.exceptions import RayError, RayTaskError

from fedvtc.errors import FedvtcError

NODE_DIED = "its node died"


def cause_of(error: RayTaskError) -> Exception:
    """What the actor raised: ours is one line that names the client, Ray's carries the worker's trace in its text."""
    return error.cause if isinstance(error.cause, FedvtcError) else error


def reason_of(error: RayError) -> str:
    """Why an actor was lost, in a few words; Ray says it in a page, and names every other cause there could be.

    Raises:
        RayError: the error itself, where the actor could not be made, for another one could not either.
    """
    text = str(error)
    if "raised in its creation task" in text:
        raise error
    if "NODE_OUT_OF_MEMORY" in text or "running low on memory" in text:
        return "its node ran out of memory"
    return NODE_DIED if "node has died" in text or "node was terminated" in text else "it died"
