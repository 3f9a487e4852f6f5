"""What is a secret: a key for a logger or a hub, a password, a token.

Two rules find it: the name of its key (`api_key`, `hf_token`, `password`), and its shape
(`hf_...`, `sk-...`, user:password@ in an address). Where the name is ambiguous (`doc_token`,
`auth`), both: its value has to look random. What is taken for one is left out of all that a run
writes and prints, in whatever sentence it stands: a word, a path or a setting must not be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MASK = "***"

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
    words = words_of(name)
    if not words or words[-1] in NO_SECRET_AT_THE_END:
        return False
    *before, last = words
    if ALWAYS & set(words):
        return True
    if last == "key":
        return bool(before) and before[-1] in KEYS_OF
    return last == "token" and (not before or bool(TOKENS_OF & set(before)))


def is_secret(name: str, value: str) -> bool:
    if not value or is_mask(value):
        return False
    words = words_of(name)
    if words[-1:] == ["token"] and IN_BRACKETS.fullmatch(value):
        return False  # a control token, such as <|end|>
    if is_secret_name(name):
        return True
    if may_be_secret(words):
        return looks_random(value, 16)
    return bool(HEX_40.fullmatch(value)) and not NO_SECRET_IN_HEX & set(words)


def may_be_secret(words: Sequence[str]) -> bool:
    return bool(BY_THEIR_LOOKS & set(words[-1:])) and not OF_A_TOKENIZER & set(words)


def looks_random(value: str, shortest: int) -> bool:
    """Letters and digits in one piece: no word, no sentence, no path."""
    mixed = re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[^\s/]+", value)
    return len(value) >= shortest and bool(mixed)


def words_of(name: str) -> list[str]:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    words = [word.lower() for word in words]
    return words[:-1] if words[-2:] == ["key", "id"] else words  # AWS_ACCESS_KEY_ID


def is_masked(value: Any) -> bool:
    """Whether a secret stood in a setting before it was left out."""
    return isinstance(value, str) and MASK in value


def is_mask(value: str) -> bool:
    """Whether all of it was left out."""
    return len(value) >= len(MASK) and set(value) == {"*"}


def is_secret_number(name: str) -> bool:
    """A password may be a number; `secrets_per_batch` is one and no secret."""
    return bool(ALWAYS & set(words_of(name)[-1:]))
