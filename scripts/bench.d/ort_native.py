"""Python's ONNX Runtime at classifying: ort_native.py --model MODEL.onnx --tokenizer RUN --data TEXTS.csv.
Prints its figures as a line of JSON.
"""

import argparse
import json
import time

import numpy as np
import onnxruntime as ort

import texts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()

    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    tokenizer = texts.tokenizer_of(args.tokenizer)

    def classify(rows):
        """Logits in the order of the texts, which run sorted by length."""
        encoded = tokenizer(rows, truncation=True, max_length=512)["input_ids"]
        order = sorted(range(len(rows)), key=lambda index: len(encoded[index]))
        found = [None] * len(rows)
        for start in range(0, len(order), args.batch):
            indices = order[start : start + args.batch]
            ids = np.zeros((len(indices), len(encoded[indices[-1]])), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, index in enumerate(indices):
                ids[row, : len(encoded[index])] = encoded[index]
                mask[row, : len(encoded[index])] = 1
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            logits = session.run(["logits"], {name: feeds[name] for name in names})[0]
            for index, values in zip(indices, logits.tolist()):
                found[index] = values
        return found

    rows, _ = texts.read(args.data)
    classify(rows[:100])
    start = time.perf_counter()
    for _ in range(args.repeat):
        logits = classify(rows)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "texts": args.repeat * len(rows), "logits": logits}))


if __name__ == "__main__":
    main()
