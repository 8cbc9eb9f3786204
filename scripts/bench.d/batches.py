"""The batches that `pagebert train` makes: trainer/src/train/plan.rs once more, so that others can train on them too.

plan.rs's tests compare the two, and the comparison of first losses (speed.py) fails when they come apart.
"""

BUCKET_BATCHES = 50
_SITE = int.from_bytes(b"shuffle\0", "big")
_M32, _M64 = (1 << 32) - 1, (1 << 64) - 1


def _splitmix(x):
    z = (x + 0x9E3779B97F4A7C15) & _M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _M64
    return z ^ (z >> 31)


def _hash(key, index):
    x = (index ^ key ^ (index >> 32)) & _M32
    x ^= x >> 16
    x = (x * 0x7FEB352D) & _M32
    x ^= key >> 32
    x ^= x >> 15
    x = (x * 0x846CA68B) & _M32
    return x ^ (x >> 16)


class _Random:
    def __init__(self, seed, epoch):
        self.key = _splitmix(_splitmix(_splitmix(seed) ^ epoch) ^ _SITE)
        self.index = 0

    def below(self, bound):
        high, low = _hash(self.key, 2 * self.index), _hash(self.key, 2 * self.index + 1)
        self.index += 1
        return ((high << 32 | low) * bound) >> 64

    def shuffle(self, items):
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]


def epoch_batches(costs, batch_size, seed, epoch):
    """The batches of an epoch, as indices of texts. `costs` are the texts' tokens."""
    random = _Random(seed, epoch)
    order = list(range(len(costs)))
    random.shuffle(order)
    bucket = BUCKET_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), bucket):
        texts = sorted(order[start : start + bucket], key=costs.__getitem__)
        batches += [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    random.shuffle(batches)
    return batches


def first_batches(costs, batch_size, seed, steps):
    """The batches of the first steps, over as many epochs as they take."""
    batches, epoch = [], 0
    while len(batches) < steps:
        batches += epoch_batches(costs, batch_size, seed, epoch)
        epoch += 1
    return batches[:steps]
