"""Secrets: what is one, and how it stays out of everything that a run writes or prints.

A key for a logger or a hub has to reach the object that needs it, and nothing else: not the run's
folder, not its checkpoints, not the terminal. Two rules find it: the name of its key (`api_key`,
`hf_token`, `password`), and its shape (`hf_...`, `sk-...`, user:password@ in an address). Where
the name is ambiguous (`doc_token`, `auth`), both: its value has to look random.
What was found once in files, flags or the environment is also left out of all later output,
whatever sentence it stands in. So a word of English, a path or a setting must not be taken for one.

Imports nothing heavy: error messages pass through here.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

MASK = "***"

# -- what is a secret ----------------------------------------------------------------------------

ALWAYS = {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
ALWAYS |= {"apikey", "authorization", "pwd"}
OF_A_SERVICE = {"api", "access", "private", "account", "storage", "service", "deploy", "client"}
OF_A_SERVICE |= {"wandb", "hf", "hub", "huggingface", "github", "gitlab", "git", "aws", "azure"}
OF_A_SERVICE |= {"google", "openai", "anthropic", "mlflow", "neptune", "comet", "databricks"}
KEYS_OF = {"auth", "signing", "encryption", "license", "master", "shared", "ssh"} | OF_A_SERVICE
TOKENS_OF = {"auth", "oauth", "bearer", "refresh", "session", "security", "jwt"} | OF_A_SERVICE
BY_THEIR_LOOKS = {"token", "key", "auth", "cookie"}  # a tokenizer, a corpus may have such settings
NO_SECRET_AT_THE_END = {"file", "path", "dir", "folder", "name", "type", "kind", "mode"}
OF_A_TOKENIZER = {"bos", "eos", "pad", "unk", "mask", "sep", "cls", "stop", "end", "begin", "start"}
OF_A_TOKENIZER |= {"special", "per", "new", "image"}
NO_SECRET_IN_HEX = {"revision", "commit", "sha", "hash", "version", "fingerprint", "digest", "id"}
NO_SECRET_IN_HEX |= {"rev", "ref", "checksum", "tag", "tree", "branch", "md", "etag"}
SHORTEST = 6  # a shorter one could be a part of any word: its key hides it, and nothing else

# The group is the secret; without one it is the whole.
SHAPES = [
    re.compile(pattern)
    for pattern in (
        r"\bhf_[A-Za-z0-9]{16,}",  # Hugging Face
        # OpenAI, Anthropic and others; `sk-` begins the name of many a file in Slovak too
        r"\b(?:sk|pk|rk)-(?=[\w-]*\d)(?=[\w-]*[A-Z])(?=[\w-]*[A-Za-z0-9]{16})[\w-]{20,}",
        r"\b(?:sk|pk|rk)-(?:[a-z0-9]+-)*[0-9a-f]{32,}",
        r"\bwandb_v\d_[A-Za-z0-9_]{16,}",
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # Amazon
        r"\bAIza[0-9A-Za-z_-]{30,}",  # Google
        r"\b(?:gh[opsur]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{16,}",
        r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+",  # a JSON web token
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        # "basic arithmetic" is none: a header's name comes first, or it begins a text and is random
        r"(?i:\bauthorization\b['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token))\s+"
        r"((?=[a-z.]*[A-Z0-9_~+/=-])[\w.~+/=-]{8,})",
        r"(?:^|['\"])(?i:bearer|basic)\s+"
        r"((?=[\w.~+/=-]*\d)(?=[\w.~+/=-]*[A-Z])[\w.~+/=-]{20,})",
        r"://([^/\s:@'\"]*:[^/\s@'\"]+)@",  # user:password@host
        r"://([^/\s:@'\"]{16,})@",  # token@host
        r"(?i)[?&;](?:[\w-]*(?:token|key|secret|password|signature|sig))=([^&;\s'\"]{6,})",
        r"(?i)\b(?:AccountKey|SharedAccessKey|Password|Pwd)=([^;&\s'\"]+)",
    )
]
SCHEME = re.compile(r"(?i)^(?:bearer|basic|token)\s+")  # of a header, before its secret
HEX_40 = re.compile(r"[0-9a-f]{40}")  # a key of Weights & Biases, or a commit of git
IN_BRACKETS = re.compile(r"<.*>|\[.*\]")


def is_secret_name(name: str) -> bool:
    """Whether a text under this name is a secret, by the name alone.

    The last word decides: `hf_token` and `token` are one, `doc_token`, `token_bytes`,
    `max_new_tokens`, `tokenizer`, `state_key` and `password_file` are none.
    """
    words = _words(name)
    if not words or words[-1] in NO_SECRET_AT_THE_END:
        return False
    *before, last = words
    if ALWAYS & set(words):
        return True
    if last == "key":
        return bool(before) and before[-1] in KEYS_OF
    return last == "token" and (not before or bool(TOKENS_OF & set(before)))


def _is_secret(name: str, value: str) -> bool:
    if not value or _is_mask(value):
        return False
    words = _words(name)
    if words[-1:] == ["token"] and IN_BRACKETS.fullmatch(value):
        return False  # a control token, such as <|end|>
    if is_secret_name(name):
        return True
    if _may_be_secret(words):
        return _looks_random(value, 16)
    return bool(HEX_40.fullmatch(value)) and not NO_SECRET_IN_HEX & set(words)


def _may_be_secret(words: Sequence[str]) -> bool:
    return bool(BY_THEIR_LOOKS & set(words[-1:])) and not OF_A_TOKENIZER & set(words)


def _looks_random(value: str, shortest: int) -> bool:
    """Letters and digits in one piece: no word, no sentence, no path."""
    mixed = re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[^\s/]+", value)
    return len(value) >= shortest and bool(mixed)


def _words(name: str) -> list[str]:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    words = [word.lower() for word in words]
    return words[:-1] if words[-2:] == ["key", "id"] else words  # AWS_ACCESS_KEY_ID


def is_masked(value: Any) -> bool:
    """Whether a secret stood in a setting before it was left out."""
    return isinstance(value, str) and MASK in value


def _is_mask(value: str) -> bool:
    """Whether all of it was left out."""
    return len(value) >= len(MASK) and set(value) == {"*"}


# -- leaving them out ------------------------------------------------------------------------------


def redact(tree: Any, name: str = "", *, inside: bool = False) -> Any:
    """Copy a configuration without its secrets.

    Args:
        tree: mappings, lists and values; jsonargparse's Namespaces too
        name: of the key that holds it
        inside: whether all of it stands under the name of a secret

    Returns:
        The same with MASK in place of each secret; what is no text, such as null, stays.
    """
    items = _items(tree)
    if items is not None:
        inside = inside or is_secret_name(name)
        values = {
            key: redact(value, str(key), inside=inside and key != "class_path")
            for key, value in items
        }
        return values if isinstance(tree, dict) else type(tree)(**values)
    if isinstance(tree, list | tuple):
        return type(tree)(redact(item, name, inside=inside) for item in tree)
    if isinstance(tree, int) and not isinstance(tree, bool):
        return MASK if _is_secret_number(name) else tree
    if not isinstance(tree, str):
        return tree
    return MASK if tree and (inside or _is_secret(name, tree)) else _redact_shapes(tree)


def _is_secret_number(name: str) -> bool:
    """A password may be a number; `secrets_per_batch` is one and no secret."""
    return bool(ALWAYS & set(_words(name)[-1:]))


def redact_text(text: str) -> str:
    """Leave out of a text what looks like a secret, and what is known to be one."""
    return redact_known(_redact_shapes(text))


def redact_known(text: str) -> str:
    """Leave out of a text the secrets that `remember` has met; anything else stays as it is."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without its secrets, to be kept with a run."""
    redacted = list(arguments)
    for index, name, value in _named(arguments):
        flag, equals, _ = arguments[index].partition("=")
        clean = _redact_value(name, value)
        redacted[index] = f"{flag}={clean}" if arguments[index] != value and equals else clean
    return [redact_text(argument) for argument in redacted]


def _redact_shapes(text: str) -> str:
    for shape in SHAPES:
        text = shape.sub(_mask_match, text)
    return text


def _mask_match(match: re.Match[str]) -> str:
    group = 1 if match.re.groups else 0
    if _is_mask(match[group]):
        return match[0]
    start, end = match.start(group) - match.start(), match.end(group) - match.start()
    return match[0][:start] + MASK + match[0][end:]


def _redact_value(name: str, value: str) -> str:
    tree = _structure(value)
    if tree is None:
        return str(redact(value, name))
    clean = redact(tree, name)
    return value if clean == tree else str(clean)


def _structure(value: str) -> Any:
    """What a flag's value holds if it is a mapping or a list, else None."""
    if not value.lstrip().startswith(("{", "[")):
        return None
    from lit_llm.commands.compose import parse_value

    try:
        return parse_value(value)
    except Exception:  # the parser will say so
        return None


def _named(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield place, key and value of each flag's value; the place is that of the value."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            continue
        name = flag.removeprefix("--").rstrip("+").rpartition(".")[2]
        if equals:
            yield index, name, value
        elif index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            yield index + 1, name, arguments[index + 1]


def _items(tree: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(tree, dict):
        return list(tree.items())
    return list(vars(tree).items()) if type(tree).__name__ == "Namespace" else None


# -- what is known -----------------------------------------------------------------------------

# The secrets of this process. One place for all, since any exception may carry one anywhere.
_known: set[str] = set()


def remember(tree: Any) -> None:
    """Learn the secrets of a configuration, so that no later output shows them."""
    for name, value, inside in _texts(tree):
        if inside or _is_secret(name, value):
            _learn(value)
            _learn(SCHEME.sub("", value))
        for shape in SHAPES:
            for match in shape.finditer(value):
                found = match[1] if shape.groups else match[0]
                _learn(found)
                _learn(found.partition(":")[2])  # of user:password


def remember_arguments(arguments: Sequence[str]) -> None:
    """The same for a command line."""
    for _, name, value in _named(arguments):
        tree = _structure(value)
        remember({name: value if tree is None else tree})


def remember_environment(environment: Mapping[str, str] = os.environ) -> None:
    """The same for environment variables, of which some name a file that holds the secret.

    Nobody wrote them for this run: under an unknown name only what looks random is learned, for
    `X_AUTH=kerberos` must not hide a word.
    """
    for name, value in environment.items():
        if _is_path(value):
            continue
        words = _words(name)
        is_random = _looks_random(value, 8)
        known = bool(OF_A_SERVICE & set(words)) or is_random or len(value) >= 16
        remember({name if known else "": value})
        if is_random and _may_be_secret(words):
            _learn(value)


def _learn(secret: str) -> None:
    if len(secret) >= SHORTEST and not _is_mask(secret):
        _known.update((secret, quote(secret, safe="")))


def _is_path(value: str) -> bool:
    try:
        return value.startswith((os.sep, "~", ".")) and os.path.exists(os.path.expanduser(value))
    except (OSError, ValueError):
        return False


def _texts(tree: Any, name: str = "", inside: bool = False) -> Iterator[tuple[str, str, bool]]:
    items = _items(tree)
    if items is not None:
        inside = inside or is_secret_name(name)
        for key, value in items:
            yield from _texts(value, str(key), inside and key != "class_path")
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _texts(item, name, inside)
    elif isinstance(tree, str):
        yield name, tree, inside
    elif isinstance(tree, int) and not isinstance(tree, bool) and _is_secret_number(name):
        yield name, str(tree), True


# -- output --------------------------------------------------------------------------------------


@contextmanager
def redacted_output() -> Iterator[None]:
    """Leave known secrets out of what is printed, logged or warned, and out of tracebacks.

    Tracebacks are printed after this process has left the block, so their printer stays.
    """
    sys.excepthook = _print_exception
    threading.excepthook = _print_exception_of_thread
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Redacted(out), _Redacted(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


class _Redacted:
    """A stream that leaves known secrets out; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact_known(text) if _known else text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _print_exception(kind: Any, error: BaseException | None, trace: Any) -> None:
    lines = traceback.format_exception(kind, error, trace)
    print(redact_text("".join(lines)), end="", file=sys.stderr, flush=True)


def _print_exception_of_thread(arguments: Any) -> None:
    if arguments.exc_type is not SystemExit:
        _print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
