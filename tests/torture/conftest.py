import random

import pytest

from tests.torture.launching import ROOT, Zygote
from tests.torture.rows import ROWS, Score, Trials, is_full, table, timed

OVERLAYS = ROOT / "tests/configs"
SCORES = pytest.StashKey[dict[int, Score]]()
FULL_TIER_SECONDS = 1800  # a row in the full tier, on a busy machine


def pytest_configure(config):
    config.stash[SCORES] = {}


def wanted(config) -> set[int]:
    text = config.getoption("--rows")
    numbers = {int(part) for part in text.split(",")} if text else set(ROWS)
    if unknown := numbers - ROWS.keys():
        raise pytest.UsageError(f"no row {sorted(unknown)}: there are 1 to {max(ROWS)}")
    return numbers


def pytest_collection_modifyitems(config, items):
    numbers, here = wanted(config), ROOT / "tests/torture"
    left_out = []
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        mark = item.get_closest_marker("row")
        if mark is not None and mark.args[0] not in numbers:
            left_out.append(item)
        if config.getoption("--torture"):
            item.add_marker(pytest.mark.timeout(FULL_TIER_SECONDS))
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def trials(request):
    """The trials of this test: see `Trials`."""
    number = request.node.get_closest_marker("row").args[0]
    score = request.config.stash[SCORES].setdefault(number, Score())
    trials = Trials(score, request.config.getoption("--torture"))
    with timed(score):
        yield trials


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Let a test fail that goes through although some of its trials did not."""
    result = yield
    if "trials" in pyfuncitem.funcargs:
        pyfuncitem.funcargs["trials"].finish()
    return result


@pytest.fixture
def draw(request) -> random.Random:
    """Chance that depends on --seed and the test's name only."""
    return random.Random(f"{request.config.getoption('--seed')} {request.node.name}")


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    zygote = Zygote(tmp_path_factory.mktemp("launched"))
    yield zygote
    zygote.close()


@pytest.fixture
def launch(zygote):
    """Start `cli.py ARGUMENTS` in a process of its own; what still runs at the end is killed."""
    started = []

    def launch(*arguments, **options):
        started.append(zygote.launch(*arguments, **options))
        return started[-1]

    yield launch
    for running in started:
        if running.alive():
            running.kill_all()


@pytest.fixture(scope="session")
def tiny_fit_arguments(cache):
    """Arguments of a fit of seconds below `runs`; further ones go to the end."""

    def arguments(runs, *more, chat=False, recipe=None, command="fit"):
        recipe = recipe or f"quickstart/{'finetune' if chat else 'pretrain'}.yaml"
        overlays = ["tiny-chat.yaml"] if chat else ["tiny.yaml", "tiny-text.yaml"]
        files = [ROOT / "configs/recipes" / recipe, *(OVERLAYS / name for name in overlays)]
        return [
            command,
            *(part for file in files for part in ("-c", str(file))),
            f"--data.cache_dir={cache}",
            f"--runs_dir={runs}",
            *map(str, more),
        ]

    return arguments


def pytest_terminal_summary(terminalreporter, config):
    scores = config.stash[SCORES]
    if config.getoption("--torture") and scores:
        terminalreporter.section(f"torture, seed {config.getoption('--seed')}")
        for line in table(scores):
            terminalreporter.write_line(line)


def pytest_sessionfinish(session, exitstatus):
    config = session.config
    if not config.getoption("--torture") or config.getoption("--collect-only"):
        return
    scores = config.stash[SCORES]
    full = all(is_full(number, scores.get(number, Score())) for number in wanted(config))
    if exitstatus == 0 and not full:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
