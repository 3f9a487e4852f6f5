"""Which configurations are plainly right, told without importing what they configure?

A key is plainly right if the signature of what it sets, read from its source, has it and takes such
a value; numbers are above 0. Where that cannot be told, with classes of the user's, a strategy with
arguments, anything unusual, the answer is no, and `fit`'s own parser decides: so this may only ever
be too strict. The keys of data are parsed here and give the parts of a preparation.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from jsonargparse import Namespace

from lit_llm.commands.compose import Configuration, merge, parse_value
from lit_llm.commands.parser import Parser, merged, refuse_linked, refuse_masked
from lit_llm.commands.plan_keys import DATA, GROUPS
from lit_llm.commands.signatures import definition, outline
from lit_llm.data.source import Source

GPT = "lit_llm.model.config.GPTConfig"
CLASSES = {
    "model.optimizer": ("torch.optim.AdamW", "lit_llm.optim.Muon"),
    "model.schedule": (
        *("lit_llm.optim.Constant", "lit_llm.optim.Linear"),
        *("lit_llm.optim.WarmupCosine", "lit_llm.optim.WarmupStableDecay"),
    ),
    "model.objective": ("lit_llm.objective.CausalLM", "lit_llm.objective.MaskedLM"),
}
"""Of the parts that have a class, those known here."""

NAMES = {"run": str, "runs_dir": str, "ckpt_path": str, "overwrite": bool}
FOLLOW = ("vocab_size", "max_seq_len", "seed", "init_from", "tokenizer_from")
"""Keys that others decide, or that bring another configuration with them."""

PRECISIONS = ("auto", "32-true", "bf16-mixed", "bf16-true")
KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}


def plain_data(configuration: Configuration, flags: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of a `Source`, if all of a configuration is plainly right; else None.

    Raises:
        Exception: something is wrong with it, or cannot be read here.
    """
    refuse_linked(configuration)
    refuse_masked(configuration, flags)
    values = configuration.values
    data = values.get("data")
    if isinstance(data, dict) and data.get("class_path") not in (None, DATA):
        return None
    rest = {key: value for key, value in values.items() if key != "data"}
    of_data = []
    for key, text in _pairs(flags):
        if key.partition(".")[0] == "data":
            of_data.append((key, text))
            continue
        value: Any = parse_value(text)
        for name in reversed(key.split(".")):
            value = {name: value}
        rest = merge(rest, value)
    if not all(_is_plain(key, value) for key, value in rest.items()):
        return None
    return _parsed(data, of_data)


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield key and text of each flag."""
    words = iter(flags)
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key or key.endswith("+"):
            raise ValueError(f"{word} is no plain flag")
        text = text if equals else next(words)
        if not equals and text.startswith("--"):
            raise ValueError(f"{word} has no value")
        yield key, text


def _parsed(data: Any, flags: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """Let jsonargparse read the keys of data, and build its corpora and its tokenizer."""
    node: dict[str, Any] = {"init_args": {}}
    if data is not None:
        inner = {key: value for key, value in data.items() if key not in node | {"class_path": 0}}
        node = {"init_args": merge(data.get("init_args") or {}, inner)}
    named = [] if data is None else [data.get("class_path")]
    words = []
    for key, text in flags:
        if key in ("data", "data.class_path"):
            named.append(text)
        else:
            inner_key = key.removeprefix("data.").removeprefix("init_args.")
            words.append(f"--data.{inner_key}={text}")
    if not named or named[-1] != DATA:
        return None
    settings = Configuration()
    settings.values = {"data": node["init_args"]}
    parser = Parser(prog="cli.py prepare")
    parser.add_argument("-c", "--config", action="config")
    parser.add_class_arguments(outline(DATA), "data", instantiate=False)
    parsed = parser.parse_args([*merged(settings), *words])
    for name in ("seq_len", "global_batch_size", "micro_batch_size"):
        size: Any = parsed.data[name]
        if size is not None and size < 1:
            return None
    # Older versions of jsonargparse know the second name only.
    built: Namespace = (getattr(parser, "instantiate", None) or parser.instantiate_classes)(parsed)
    wanted = inspect.signature(Source).parameters
    return {name: value for name, value in vars(built.data).items() if name in wanted}


def _is_plain(key: str, value: Any) -> bool:
    """Whether one of the groups of keys beside data is plainly right."""
    if key in NAMES:
        return value is None or isinstance(value, NAMES[key])
    if key == "seed_everything":
        return type(value) is int and 0 <= value < 2**32
    if key not in GROUPS or not isinstance(value, dict) or key == "spike_guard":
        return False
    if key == "trainer":
        value = {**value}
        precision = value.pop("precision", "auto")
        if precision not in PRECISIONS:
            return False
    elif key == "model":
        return _is_plain_model(dict(value))
    return takes(GROUPS[key], value)


def _is_plain_model(model: dict[str, Any]) -> bool:
    gpt = model.pop("gpt", {})
    groups = model.pop("groups", None) or {}
    for name in ("optimizer", "schedule", "objective"):
        part = model.pop(name, None)
        part = {"class_path": part} if isinstance(part, str) else part
        if part is not None and not _is_known(f"model.{name}", part):
            return False
    numbers: list[Any] = (
        [n for g in groups.values() for n in g.values()] if _is_nested(groups) else [None]
    )
    return (
        all(type(number) in (int, float) and number >= 0 for number in numbers)
        and isinstance(gpt, dict)
        and takes(GPT, gpt)
        and _splits(gpt)
        and takes(GROUPS["model"], model)
    )


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())


def _is_known(key: str, part: Any) -> bool:
    """Whether a part is of a class that is known, with arguments that it takes."""
    if not isinstance(part, dict) or not part.keys() <= {"class_path", "init_args"}:
        return False
    path, arguments = part.get("class_path"), part.get("init_args") or {}
    if path not in CLASSES[key] or not isinstance(arguments, dict):
        return False
    return takes(path, arguments) if key != "model.objective" else not arguments


def _splits(gpt: dict[str, Any]) -> bool:
    """Whether a network's width comes out even; a head's, and how many share keys."""
    default = {name: value for name, (_, value) in _parameters(GPT).items()}
    sizes: dict[str, Any] = {**default, **gpt}
    heads = sizes["n_head"]
    width, rest = divmod(sizes["d_model"], heads)
    width, rest = (width, rest) if sizes["head_dim"] is None else (sizes["head_dim"], 0)
    return rest == 0 and width % 2 == 0 and heads % (sizes["n_kv_head"] or heads) == 0


# -- signatures ------------------------------------------------------------------------------------


def takes(class_path: str, arguments: dict[str, Any]) -> bool:
    """Whether a class plainly takes these arguments."""
    parameters = _parameters(class_path)
    return all(
        name in parameters and name not in FOLLOW and _fits(value, *parameters[name])
        for name, value in arguments.items()
    )


def _parameters(class_path: str) -> dict[str, tuple[ast.expr | None, Any]]:
    """Annotation and default of each parameter; `...` for a default that is no plain value."""
    found = definition(class_path)
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return dict(_of_function(node.args))
    fields = [node for node in found.body if isinstance(node, ast.AnnAssign)]  # a dataclass
    return {
        node.target.id: (node.annotation, _plain_value(node.value))
        for node in fields
        if isinstance(node.target, ast.Name)
    }


def _of_function(args: ast.arguments) -> Iterator[tuple[str, tuple[ast.expr | None, Any]]]:
    by_place = args.args[1:]
    defaults = [*[None] * (len(by_place) - len(args.defaults)), *args.defaults]
    for argument, default in [
        *zip(by_place, defaults, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]:
        yield argument.arg, (argument.annotation, _plain_value(default))


def _plain_value(node: ast.expr | None) -> Any:
    try:
        return ... if node is None else ast.literal_eval(node)
    except ValueError:
        return ...


def _fits(value: Any, annotation: ast.expr | None, default: Any) -> bool:
    if type(value) is type(default) and value == default:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (value <= 0 or (isinstance(default, float) and default < 1 <= value)):
        return False  # zero is often a mistake, and so is a share of 1
    return _is_of(value, annotation)


def _is_of(value: Any, annotation: ast.expr | None) -> bool:
    """Whether a value is of an annotation's kind; no, where that is not told by Python alone."""
    match annotation:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in KINDS:
            is_bool = isinstance(value, bool)
            return isinstance(value, KINDS[name]) and is_bool == (name == "bool")
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _is_of(value, left) or _is_of(value, right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return value is None or _is_of(value, inner)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=several)):
            return any(_is_of(value, one) for one in several)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=several)):
            return value in [one.value for one in several if isinstance(one, ast.Constant)]
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return isinstance(value, list) and all(_is_of(one, inner) for one in value)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=several)):
            same = isinstance(value, list) and len(value) == len(several)
            return same and all(map(_is_of, value, several))
    return False
