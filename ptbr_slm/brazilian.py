"""Numbers as Brazilian readers expect them, for every text that a user sees. Imports nothing."""


def number(value: float, decimals: int = 0) -> str:
    """12345.6 -> '12.346' (or '12.345,6' with one decimal): thousands with points, decimals after a comma."""
    return f"{value:,.{decimals}f}".translate(str.maketrans(",.", ".,"))
