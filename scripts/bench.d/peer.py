"""PyTorch and Transformers at pagebert's work: peer.py train|infer|accuracy … Prints its figures as a line of JSON.

A training step is the whole of it: texts are put into a batch, forward, backward, clipping, AdamW, schedule.
"""

import argparse
import contextlib
import csv
import json
import random
import sys
import time

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

import texts


def load_model(args, **config):
    """The base as a classifier, with the dropout of its config or the one given."""
    if args.dropout is not None:
        config.update(
            hidden_dropout_prob=args.dropout,
            attention_probs_dropout_prob=args.dropout,
            classifier_dropout=args.dropout,
        )
    model = AutoModelForSequenceClassification.from_pretrained(args.base, dtype=torch.float32, **config)
    return model.to(args.device)


def autocast(args):
    if args.precision == "f32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(args.device).type, dtype=torch.bfloat16)


def synchronize(args):
    if args.device != "cpu":
        torch.cuda.synchronize()


def loader(tokenizer, features, batches):
    return DataLoader(features, batch_sampler=batches, collate_fn=DataCollatorWithPadding(tokenizer))


def on_device(batch, device):
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


class Trainer:
    """A model with AdamW and pagebert's schedule."""

    def __init__(self, args, model, total_steps):
        self.args, self.model = args, model
        plain = {True: [], False: []}
        for name, parameter in model.named_parameters():
            # Biases, norms and embeddings don't decay.
            plain[parameter.ndim < 2 or "embeddings" in name].append(parameter)
        groups = [
            {"params": plain[False], "weight_decay": args.weight_decay},
            {"params": plain[True], "weight_decay": 0.0},
        ]
        # The fused one is what Transformers' Trainer takes by default.
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, fused=True)
        warm_up = int(args.warmup * total_steps + 0.5)

        def share(step):
            if step < warm_up:
                return (step + 1) / warm_up
            return max(total_steps - step, 0) / max(total_steps - warm_up, 1)

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)

    def step(self, batch):
        """One step; gives the loss, still on the device."""
        with autocast(self.args):
            loss = self.model(**on_device(batch, self.args.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.args.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.detach()


def in_random_order(batches, seed):
    """The same texts in batches of the same sizes, but not sorted by length."""
    order = [index for batch in batches for index in batch]
    random.Random(seed).shuffle(order)
    order = iter(order)
    return [[next(order) for _ in batch] for batch in batches]


def train(args):
    """The speed of the steps after those that warm up, and every loss."""
    with open(args.plan, encoding="utf-8") as file:
        batches = json.load(file)["batches"][: args.steps]
    if args.order == "random":
        batches = in_random_order(batches, args.seed)
    torch.manual_seed(args.seed)
    model = load_model(args).train()
    tokenizer = texts.tokenizer_of(args.base)
    features = texts.features(tokenizer, *texts.read(args.data), model.config.id2label.values(), args.max_tokens)
    trainer = Trainer(args, model, len(batches))
    losses, start = [], time.perf_counter()
    for step, batch in enumerate(loader(tokenizer, features, batches), 1):
        losses.append(trainer.step(batch))
        if step == args.untimed:
            synchronize(args)
            start = time.perf_counter()
    synchronize(args)
    seconds = time.perf_counter() - start
    tokens = sum(len(features[index]["input_ids"]) for batch in batches[args.untimed :] for index in batch)
    return {"seconds": seconds, "tokens": tokens, "losses": [loss.item() for loss in losses]}


@torch.inference_mode()
def logits_of(args, model, tokenizer, features, batch_size):
    """Logits in the order of the texts, which run sorted by length."""
    order = sorted(range(len(features)), key=lambda index: len(features[index]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    logits = torch.empty(len(features), model.config.num_labels)
    for indices, batch in zip(batches, loader(tokenizer, features, batches)):
        del batch["labels"]
        with autocast(args):
            logits[indices] = model(**on_device(batch, args.device)).logits.float().cpu()
    return logits


def infer(args):
    """The speed of classifying, from texts to logits."""
    model = load_model(args).eval()
    tokenizer = texts.tokenizer_of(args.base)

    def classify(rows):
        features = texts.features(tokenizer, *rows, model.config.id2label.values(), args.max_tokens)
        return logits_of(args, model, tokenizer, features, args.batch)

    all_texts, labels = texts.read(args.data)
    classify((all_texts[:100], labels[:100]))
    start = time.perf_counter()
    classify((all_texts, labels))
    return {"seconds": time.perf_counter() - start, "texts": len(all_texts)}


def measure(args, model, tokenizer, features):
    """The mean loss and the accuracy."""
    model.eval()
    logits = logits_of(args, model, tokenizer, features, args.batch)
    model.train()
    truths = torch.tensor([one["label"] for one in features])
    loss = torch.nn.functional.cross_entropy(logits, truths).item()
    return loss, (logits.argmax(-1) == truths).float().mean().item()


def sides_of(split):
    """The rows of each side, from 0, as pagebert's split.csv has them."""
    sides = {"train": [], "valid": [], "test": []}
    with open(split, encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            sides[line["side"]].append(int(line["row"]) - 1)
    return sides


def accuracy(args):
    """Trains on pagebert's split, in random order, and measures the best checkpoint on the test side."""
    all_texts, labels = texts.read(args.data)
    names = sorted(set(labels))
    torch.manual_seed(args.seed)
    model = load_model(args, num_labels=len(names), id2label=dict(enumerate(names))).train()
    tokenizer = texts.tokenizer_of(args.base)
    features = texts.features(tokenizer, all_texts, labels, names, args.max_tokens)
    sides = {side: [features[row] for row in rows] for side, rows in sides_of(args.split).items()}
    rng, order, batches = random.Random(args.seed), list(range(len(sides["train"]))), []
    for _ in range(args.epochs):
        rng.shuffle(order)
        epoch = [order[start : start + args.batch] for start in range(0, len(order), args.batch)]
        batches.append(epoch)
    steps = sum(map(len, batches))
    left = steps = min(steps, args.steps or steps)
    trainer = Trainer(args, model, steps)
    best, weights = None, None
    for epoch in batches:
        epoch = epoch[:left]
        if not epoch:
            break
        left -= len(epoch)
        for batch in loader(tokenizer, sides["train"], epoch):
            trainer.step(batch)
        loss, valid = measure(args, model, tokenizer, sides["valid"])
        print(f"valid loss {loss:.4f}, accuracy {valid:.4f}", file=sys.stderr)
        if best is None or loss < best:
            best = loss
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    loss, test = measure(args, model, tokenizer, sides["test"])
    return {"accuracy": test, "loss": loss, "valid_loss": best, "rows": len(sides["test"]), "steps": steps}


KINDS = {"train": train, "infer": infer, "accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--plan", help="what prepare.py plan wrote")
    parser.add_argument("--split", help="split.csv of a run of pagebert")
    parser.add_argument("--order", choices=["planned", "random"], default="planned")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--untimed", type=int, default=0, help="steps that warm up")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--clip", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(KINDS[args.kind](args)))


if __name__ == "__main__":
    main()
