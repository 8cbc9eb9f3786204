"""Makes what a case of the benchmark trains on: prepare.py KIND … (see the bottom)."""

import argparse
import csv
import itertools
import json
import os
import random
import shutil

import torch
from transformers import BertConfig, BertForSequenceClassification

import batches
import texts


def save_base(model, tokenizer_from, out):
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(tokenizer_from, name), out)


def labels_of(names):
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def base_with_classifier(args):
    """A base with a classifier of the data's labels, so that both sides start from the same weights."""
    torch.manual_seed(0)
    names = sorted(set(texts.read(args.data)[1]))
    model = BertForSequenceClassification.from_pretrained(args.base, dtype=torch.float32, **labels_of(names))
    save_base(model, args.base, args.out)


def bert_base(args):
    """BERT-base with random weights: 12 layers × 768."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30522, **labels_of(["negative", "positive"]))
    save_base(BertForSequenceClassification(config), args.base, args.out)


def texts_of(tokenizer, tokens, count):
    """Texts of exactly so many tokens, the two special ones included, and their ids: words that are one token each."""
    rng = random.Random(0)
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower())
    found = [" ".join(rng.choices(words, k=tokens - 2)) for _ in range(count)]
    ids = tokenizer(found)["input_ids"]
    wrong = [one for one in ids if len(one) != tokens]
    if wrong:
        raise SystemExit(f"{len(wrong)} texts do not have {tokens} tokens")
    return found, ids


def even_texts(args):
    """Texts of exactly so many tokens."""
    found, _ = texts_of(texts.tokenizer_of(args.base), args.tokens, args.rows)
    texts.write(args.out, [(text, ("negative", "positive")[index % 2]) for index, text in enumerate(found)])


def measured_texts(args):
    """Texts of each of these numbers of tokens with their ids, as JSON."""
    tokenizer = texts.tokenizer_of(args.base)
    found = {
        tokens: [{"text": text, "ids": ids} for text, ids in zip(*texts_of(tokenizer, int(tokens), args.rows))]
        for tokens in args.token_counts.split(",")
    }
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(found, file)


def test_side(args):
    """The test side of a run; without one, a thousand rows drawn by chance."""
    rows = list(zip(*texts.read(args.data)))
    split = os.path.join(args.base, "split.csv")
    sides = []
    if os.path.exists(split):
        with open(split, encoding="utf-8", newline="") as file:
            sides = [line["side"] for line in csv.DictReader(file)]
    if len(sides) == len(rows):
        rows = [row for row, side in zip(rows, sides) if side == "test"]
    else:
        random.Random(0).shuffle(rows)
        rows = rows[:1000]
    texts.write(args.out, rows)


def many_texts(args):
    """So many texts, no two alike: the words of the data's texts in other orders, under the same labels."""
    rng = random.Random(0)
    source = [(text.split(), label) for text, label in zip(*texts.read(args.data))]
    seen = set()

    def rows():
        for index in range(args.rows):
            words, label = source[index % len(source)]
            words = list(words)
            for attempt in itertools.count():
                text = " ".join(words)
                if hash(text) not in seen:
                    break
                if attempt:
                    # Short texts have few orders.
                    words.append(rng.choice(rng.choice(source)[0]))
                rng.shuffle(words)
            seen.add(hash(text))
            yield text, label

    texts.write(args.out, rows())


def first_rows(args):
    """So many rows of the data, drawn by chance."""
    rows = list(zip(*texts.read(args.data)))
    random.Random(0).shuffle(rows)
    texts.write(args.out, rows[: args.rows])


def plan(args):
    """The batches of the first steps, and how many tokens each has."""
    tokenizer = texts.tokenizer_of(args.base)
    encoded = tokenizer(texts.read(args.data)[0], truncation=True, max_length=args.max_tokens)["input_ids"]
    costs = [len(ids) for ids in encoded]
    chosen = batches.first_batches(costs, args.batch, args.seed, args.steps)
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump({"batches": chosen, "tokens": [sum(costs[index] for index in batch) for batch in chosen]}, file)


KINDS = {
    "base-with-classifier": base_with_classifier,
    "bert-base": bert_base,
    "even-texts": even_texts,
    "measured-texts": measured_texts,
    "test-side": test_side,
    "many-texts": many_texts,
    "first-rows": first_rows,
    "plan": plan,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--out", required=True)
    parser.add_argument("--base")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--token-counts", help="with commas between")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    KINDS[args.kind](args)


if __name__ == "__main__":
    main()
