"""The length of a client's training in a round: passes over the client's images, whole or cut after a training step."""

from fedvtc.config.schema import TrainingConfig


def batch_sizes(num_images: int, batch_size: int) -> list[int]:
    """Returns the number of images in each batch of a whole pass; see `fedvtc.learning.data.module.epoch_batches`."""
    sizes = [batch_size] * (num_images // batch_size)
    if num_images % batch_size:
        sizes.append(num_images % batch_size)
    if batch_size > 1 and len(sizes) > 1 and sizes[-1] == 1:
        tail = sizes.pop() + sizes.pop()
        sizes += [tail - tail // 2, tail // 2] if tail > 3 else [tail]
    return sizes


def pass_lengths(num_images: int, training: TrainingConfig) -> list[int]:
    """Returns the number of batches in each pass of a round.

    With `training.steps` as many passes follow each other as the steps need, and the last pass may end early.
    """
    whole = len(batch_sizes(num_images, training.batch_size))
    if training.steps is None:
        return [whole] * training.epochs
    num_whole, rest = divmod(training.steps, whole) if whole else (0, 0)
    return [whole] * num_whole + [rest] * (rest > 0)


def images_in_round(num_images: int, training: TrainingConfig) -> int:
    """Returns the number of images that a client trains on in a round, where each pass counts an image anew."""
    sizes = batch_sizes(num_images, training.batch_size)
    return sum(sum(sizes[:length]) for length in pass_lengths(num_images, training))
