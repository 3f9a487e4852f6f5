"""The little English grammar that templates cannot hold: articles and capitals."""


def article(noun: str) -> str:
    """Put "a" or "an" before a noun phrase; our words sound as they are spelled."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def capital(text: str) -> str:
    """Raise the first letter and leave the rest alone."""
    return text[0].upper() + text[1:]


def sentence(*parts: str) -> str:
    """Join phrases into one sentence with a capital and a full stop."""
    return capital(" ".join(part for part in parts if part)) + "."
