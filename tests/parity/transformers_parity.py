"""Shows that Transformers and `pagebert predict` say the same of the same checkpoint.

    pip install -r tests/parity/requirements.txt
    python tests/parity/transformers_parity.py --pagebert target/release/pagebert RUN

RUN is a folder that `pagebert train` made, or any BERT classifier in Hugging Face form. The texts are in no
repository: random words of the tokenizer's vocabulary, random Unicode, and passages of this Python's own library,
from a few tokens to several windows. Exit code 1 if any probability differs by more than 1e-4.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import unicodedata

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

# First and last code points, inclusive; surrogates are no text.
UNICODE = [
    (0x01, 0x7F), (0x80, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
    (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xFB00, 0xFFFD), (0x10330, 0x1034A), (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F9FF), (0x20000, 0x2A6DF),
]


def word_texts(rng, vocabulary, count, longest):
    """Words of the vocabulary, pieces of words glued to them as they may come, and punctuation."""
    words = [token for token in vocabulary if not token.startswith(("##", "["))]
    pieces = [token[2:] for token in vocabulary if token.startswith("##")] or [""]
    for _ in range(count):
        text = ""
        for _ in range(max(1, round(longest ** rng.random()))):
            text += rng.choice(words)
            if rng.random() < 0.2:
                text += rng.choice(pieces)
            text += rng.choice([" "] * 12 + [", ", ". ", "! ", "-", "\n", "\t", " (", ") "])
        yield text


def unicode_texts(rng, count):
    for _ in range(count):
        characters = []
        for _ in range(rng.randrange(1, 12)):
            first, last = rng.choice(UNICODE)
            characters += [chr(rng.randint(first, last)) for _ in range(rng.randrange(1, 9))]
            characters.append(rng.choice(["", " ", "\u0301", "\u200d", "\ufe0f"]))
        text = "".join(characters)
        yield rng.choice([text, unicodedata.normalize("NFD", text), f"it is {text} and not"])


def library_texts(rng, count):
    """Passages of the sources of Python's own library: comments, prose and code."""
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for path in rng.sample(files, min(count, len(files))):
        text = path.read_text(encoding="utf-8", errors="ignore")
        start = rng.randrange(max(1, len(text) // 2))
        yield text[start : start + round(4000 ** rng.random())]


def window_size(run, positions):
    """Tokens of a window and of what neighbours share, as the run was trained."""
    max_tokens, stride = 512, 64
    try:
        with open(os.path.join(run, "run.toml"), "rb") as file:
            settings = tomllib.load(file)["settings"]
        max_tokens, stride = settings["max_tokens"], settings["stride"]
    except FileNotFoundError:
        pass
    max_tokens = min(max_tokens, positions)
    return max_tokens, min(stride, (max_tokens - 2) // 2)


def windows(ids, max_tokens, stride):
    capacity = max_tokens - 2
    start = 0
    while True:
        yield ids[start : start + capacity]
        if start + capacity >= len(ids):
            return
        start += capacity - stride


class Reference:
    def __init__(self, run):
        self.tokenizer = AutoTokenizer.from_pretrained(run)
        self.model = AutoModelForSequenceClassification.from_pretrained(run).eval()
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]
        self.max_tokens, self.stride = window_size(run, self.model.config.max_position_embeddings)

    @torch.no_grad()
    def predict(self, text):
        encoded = self.tokenizer(text, truncation=False, padding=False, return_tensors="pt", verbose=False)
        tokens = encoded["input_ids"].shape[1]
        if tokens <= self.max_tokens:
            logits, count = self.model(**encoded).logits[0], 1
        else:
            ids = self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
            parts = [[cls, *part, sep] for part in windows(ids, self.max_tokens, self.stride)]
            tokens, count = sum(map(len, parts)), len(parts)
            logits = torch.stack([self.model(input_ids=torch.tensor([part])).logits[0] for part in parts]).mean(0)
        return dict(zip(self.labels, logits.softmax(-1).tolist())), logits.tolist(), tokens, count


def predict(pagebert, run, texts):
    with tempfile.TemporaryDirectory() as folder:
        given, answers = os.path.join(folder, "in.jsonl"), os.path.join(folder, "out.jsonl")
        with open(given, "w", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps({"text": text}) + "\n")
        command = [pagebert, "predict", run, "--data", given, "--out", answers, "--text-column", "text", "--quiet"]
        status = subprocess.run(command).returncode
        if status != 0:
            sys.exit(f"{' '.join(command)}: exit code {status}")
        with open(answers, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--pagebert", default="pagebert", help="the command (default: from the path)")
    parser.add_argument("--count", type=int, default=60, help="texts of each kind (default: 60)")
    parser.add_argument("--seed", type=int, help="of the texts (default: another each time)")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    seed = random.randrange(1 << 30) if args.seed is None else args.seed

    reference = Reference(args.run)
    rng = random.Random(seed)
    vocabulary = sorted(reference.tokenizer.get_vocab())
    texts = [
        *word_texts(rng, vocabulary, args.count, reference.max_tokens // 3),
        *word_texts(rng, vocabulary, max(2, args.count // 10), reference.max_tokens * 4),
        *unicode_texts(rng, args.count),
        *library_texts(rng, args.count),
    ]
    texts = [text for text in texts if text.strip()]
    answers = predict(args.pagebert, args.run, texts)
    if len(answers) != len(texts):
        sys.exit(f"{len(texts)} texts, but {len(answers)} answers")

    worst, worst_logit, wrong, long = 0.0, 0.0, 0, 0
    for text, answer in zip(texts, answers):
        probabilities, logits, tokens, count = reference.predict(text)
        start = repr(text[:60])
        if (answer["tokens"], answer["windows"]) != (tokens, count):
            print(f"{start}: {answer['tokens']} tokens in {answer['windows']} windows, not {tokens} in {count}")
            wrong += 1
            continue
        found = {score["label"]: score["score"] for score in answer["scores"]}
        difference = max(abs(found[label] - p) for label, p in probabilities.items())
        if not difference <= args.tolerance:
            print(f"{start}: probabilities differ by {difference:.2e}")
            wrong += 1
        worst = max(worst, difference)
        worst_logit = max(worst_logit, *(abs(a - b) for a, b in zip(answer["logits"], logits)))
        long += count > 1
    print(
        f"{len(texts)} texts (seed {seed}), {long} of them longer than a window of {reference.max_tokens}: probabilities"
        f" differ by at most {worst:.2e}, logits by {worst_logit:.2e}; {wrong} beyond {args.tolerance:g}"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
