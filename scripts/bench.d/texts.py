"""Tables of labelled texts, and their tokens."""

import csv

from transformers import AutoTokenizer


def read(path):
    """The texts and labels of a CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def write(path, rows):
    """A CSV of (text, label)."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(rows)


def tokenizer_of(base):
    return AutoTokenizer.from_pretrained(base)


def features(tokenizer, texts, labels, names, max_tokens):
    """What a collator takes, one for each text."""
    encoded = tokenizer(texts, truncation=True, max_length=max_tokens)
    ids = {name: index for index, name in enumerate(names)}
    return [
        {**{key: values[index] for key, values in encoded.items()}, "label": ids[label]}
        for index, label in enumerate(labels)
    ]
