"""The command line: picks a command, and says what a user did wrong in at most three lines.

Nothing heavy is imported before a command is known: the help appears at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from lit_llm.commands.processes import exit_with_error
from lit_llm.commands.secrets import redacted_output, remember_environment

# command: (module with `run(command, arguments)`, help)
COMMANDS = {
    "fit": ("lit_llm.commands.fit", "train: pretrain, fine-tune, or continue a run"),
    "validate": ("lit_llm.commands.fit", "loss of a checkpoint on validation data"),
    "test": ("lit_llm.commands.fit", "the same on test data"),
    "predict": ("lit_llm.commands.predict", "answer prompts with a checkpoint"),
    "evaluate": ("lit_llm.commands.evaluate", "score it: bits per byte, questions, lm_eval"),
    "prepare": ("lit_llm.commands.prepare", "train the tokenizer and write shards, no training"),
    "plan": ("lit_llm.commands.plan", "memory, speed and trainer file, before anything runs"),
    "parity": ("lit_llm.commands.parity", "train alike under every strategy and precision here?"),
    "export": ("lit_llm.commands.export", "a checkpoint in another form"),
    "import": ("lit_llm.commands.importing", "a published model as a checkpoint"),
    "merge": ("lit_llm.commands.merge", "adapters of a LoRA run and their base as one checkpoint"),
    "report": ("lit_llm.commands.report", "draw a run's report.html again"),
}

HELP = """usage: python cli.py COMMAND [-c FILE]... [--key VALUE]...

{commands}

Every file of configs/ is a part; later ones win, and flags win over files:
  python cli.py fit -c configs/recipes/quickstart/pretrain.yaml --trainer.max_steps 200
All keys of a command: python cli.py COMMAND --help. Documentation: README.md, docs/."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exits with 2 after an error of the user's, 1 after one of ours."""
    # How long a thread of libgomp spins for the next piece of work before it gives its core away.
    # Its default makes a training step on two threads take 2.7 s instead of 0.4 s where other
    # processes want the cores too. On idle cores 1000, 5000 and 20000 take 257, 241 and 235 ms for
    # a step of 6 layers of width 384; with one of two cores taken, 488 (1000) and 633 (20000).
    # It is read when torch is imported, which no line above does.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    arguments = sys.argv[1:] if arguments is None else arguments
    remember_environment()
    with redacted_output():
        _run(arguments)


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:9} {text}" for name, (_, text) in COMMANDS.items())
        print(HELP.format(commands=commands))
        return
    command, *rest = arguments
    try:
        if command not in COMMANDS:
            raise ValueError(f"no command {command!r}{_nearest(command)}: see python cli.py --help")
        import_module(COMMANDS[command][0]).run(command, rest)
    except ArithmeticError as error:
        if type(error).__name__ != "NotFinite":  # the run itself stopped: it says at which step
            raise
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        refusal = user_error(error)
        if refusal is None:
            raise
        lines = [line for line in str(refusal).splitlines() if line.strip()]
        exit_with_error("\n".join(lines[:3]))
    except (KeyboardInterrupt, SystemExit) as end:
        # Before training begins, and in validate, Ctrl-C is Lightning's, which exits with 1.
        if isinstance(end, SystemExit) and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def user_error(error: BaseException) -> BaseException | None:
    """What a user did wrong, or None for a mistake of ours.

    Our own code refuses what it is given by a ValueError. One from the depths of a library is a
    bug until proven otherwise and keeps its traceback. The refusal may be the cause of what
    arrives here: jsonargparse wraps what the __init__ of a part says. Lightning has a class of
    its own for what a user cannot have, and so has a disk that takes no checkpoint.
    """
    found: BaseException | None = None
    link: BaseException | None = error
    while link is not None:
        if type(link).__name__ in ("MisconfigurationException", "SaveFailed") or (
            isinstance(link, ValueError) and _raised_here(link)
        ):
            found = link
        link = link.__cause__ if link.__cause__ is not link else None
    return found


def _raised_here(error: BaseException) -> bool:
    last_frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last_frame.filename).is_relative_to(Path(__file__).parent)


def _nearest(command: str) -> str:
    import difflib

    match = difflib.get_close_matches(command, COMMANDS, 1)
    return f"; did you mean {match[0]}?" if match else ""
