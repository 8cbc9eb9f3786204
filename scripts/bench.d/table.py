"""Tables of figures."""

from statistics import median


def markdown(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def number(value):
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values):
    """The median, and between what it lies."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def mebibytes(size):
    return f"{size / 2**20:,.0f} MiB"


def ratio(ours, theirs):
    """How many times as fast as theirs ours is."""
    return f"{median(ours) / median(theirs):.2f} ×"
