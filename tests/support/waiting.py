"""Numbers that say whether the host has waited for them."""


class Number(float):
    """A number that a device is still to compute.

    Attributes:
      is_ready: whether somebody has waited for it.
    """

    is_ready = False

    def block_until_ready(self):
        self.is_ready = True
        return self


def counting(update):
    """The same update; it fails if the step before the last has not been waited for."""
    losses = []

    def run(state, batch):
        assert all(loss.is_ready for loss in losses[:-1]), "the host runs ahead"
        state, _, outputs = update(state, batch)
        losses.append(Number(0))
        return state, {"loss": losses[-1]}, outputs

    return run
