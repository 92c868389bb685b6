"""Join the lines of prose that was wrapped by hand; keep verse, lists and dialogue as they are."""


def unwrap(text: str) -> str:
    """`text` with hard-wrapped prose joined."""
    return text
