"""The budget of an attributor's process reaches the attributor, which may say what it did with it."""

from attriboard.attribution.executors import OwnProcess
from attriboard.attribution.limits import Limits
from attriboard.attribution.runner import Runner

FRUGAL = """
class Frugal(Attributor):
    name = "frugal"

    def fit(self, context):
        return torch.arange(len(context.test) * len(context.train)).view(len(context.test), -1), context.memory_bytes

    def score(self, state):
        return state[0].float()

    def notes(self, state):
        return (f"makes do with {state[1]} bytes",)
"""


def test_the_memory_limit_reaches_the_attributor_and_its_note_comes_back(make_job):
    (limited,) = Runner(OwnProcess(Limits(bytes=2**33))).run(make_job(FRUGAL))
    (free,) = Runner().run(make_job(FRUGAL))
    assert limited.notes == ("makes do with 8589934592 bytes",)
    assert free.notes == ("makes do with None bytes",)
    assert (limited.reason, limited.scores.shape, float(limited.scores[-1, -1])) == (None, (13, 45), 13 * 45 - 1)
