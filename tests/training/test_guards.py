import torch

from lit_llm.training.guards import Guards, Judged, Opinion


class Above:
    """Skips steps whose loss is above a limit, and notes the gradient norm."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.learned: list[Judged] = []

    def judge(self, step, numbers):
        return Opinion(numbers[0] > self.limit, numbers[1])

    def learn(self, judged):
        self.learned.append(judged)


class Silent(Above):
    def judge(self, step, numbers):
        return Opinion(None, torch.tensor(float(step)))


def judge(guards: Guards, step: int, loss: float):
    return guards.judge(step, torch.tensor(loss), torch.tensor(loss * 10))


def test_a_step_is_skipped_if_one_guard_wants_that():
    guards = Guards()
    guards.add(Above(2))
    guards.add(Above(5))
    assert [bool(judge(guards, step, loss)) for step, loss in enumerate((1, 3, 7))] == [
        False,
        True,
        True,
    ]


def test_without_a_guard_that_could_want_it_nothing_is_decided():
    guards = Guards()
    assert judge(guards, 1, 3.0) is None
    guards.add(Silent(0))
    assert judge(guards, 2, 3.0) is None


def test_each_guard_hears_of_each_step_once_in_order_with_its_own_note():
    guards, first, second = Guards(), Above(2), Silent(0)
    guards.add(first)
    guards.add(second)
    guards.add(first)  # a guard that is there already is not asked twice
    assert len(guards) == 2
    for step in (1, 2, 3):
        judge(guards, step, float(step))
    assert not first.learned
    guards.hear(wait=False)  # on a CPU everything is here
    guards.hear(wait=True)
    assert first.learned == [Judged(1, 1, 10, 10), Judged(2, 2, 20, 20), Judged(3, 3, 30, 30)]
    assert [judged.note for judged in second.learned] == [1, 2, 3]


def test_what_has_not_arrived_is_heard_of_later_and_in_order(monkeypatch):
    guards, guard = Guards(), Above(2)
    guards.add(guard)

    class Event:
        here = False

        def query(self):
            return self.here

        def synchronize(self):
            pass

    judge(guards, 1, 1.0)
    judge(guards, 2, 2.0)
    guards._on_their_way[0].copied = event = Event()
    guards.hear(wait=False)
    assert guard.learned == []  # the second step is here, but not before the first
    event.here = True
    guards.hear(wait=False)
    assert [judged.step for judged in guard.learned] == [1, 2]
    judge(guards, 3, 3.0)
    guards._on_their_way[0].copied = Event()
    guards.hear(wait=True)
    assert [judged.step for judged in guard.learned] == [1, 2, 3]
