#!/usr/bin/env python3
"""Makes digits.zip and fashion.zip, the sample image sets, byte for byte the same at every run.

    pip install numpy==2.4.6 scikit-learn==1.9.1
    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fashion
    python3 bundles/samples/make.py --fashion fashion/usr/share/datasets/fashion-mnist

Where the images come from and what they may be used for is in PROVENANCE.md.
"""

import argparse
import gzip
import pathlib
import struct
import zipfile
import zlib

import numpy as np
from sklearn.datasets import load_digits

FASHION = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]


def png(image):
    """The smaller of a few grey 8-bit PNGs: one per row filter, with zlib at its best."""
    height, width = image.shape
    rows = image.astype(np.int32)
    left = np.pad(rows, ((0, 0), (1, 0)))[:, :-1]
    up = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(rows, ((1, 0), (1, 0)))[:-1, :-1]
    guess = left + up - corner
    d_left, d_up, d_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    paeth = np.where((d_left <= d_up) & (d_left <= d_corner), left, np.where(d_up <= d_corner, up, corner))
    filtered = [rows, rows - left, rows - up, rows - (left + up) // 2, rows - paeth]
    filtered = [(f & 255).astype(np.uint8) for f in filtered]
    bodies = [b"".join(bytes([kind]) + row.tobytes() for row in f) for kind, f in enumerate(filtered)]
    cheapest = [min(range(5), key=lambda k: np.abs(filtered[k][y].view(np.int8).astype(int)).sum()) for y in range(height)]
    bodies.append(b"".join(bytes([k]) + filtered[k][y].tobytes() for y, k in enumerate(cheapest)))
    packed = min((zlib.compress(body, 9) for body in bodies), key=len)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def write(path, splits, names):
    """One ImageFolder zip: `split/class/number.png`, entries stored (PNG is compressed already)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for split, (images, labels) in splits.items():
            for label, name in enumerate(names):
                for number, image in enumerate(images[labels == label]):
                    entry = zipfile.ZipInfo(f"{split}/{name}/{number:04}.png", (1980, 1, 1, 0, 0, 0))
                    entry.external_attr = 0o644 << 16
                    out.writestr(entry, png(image))
    counts = {split: len(labels) for split, (_, labels) in splits.items()}
    print(f"{path}: {counts}, {path.stat().st_size} bytes")


def digits(out):
    """scikit-learn's digits: 16 grey levels spread to 0..255, one fifth of every class as test."""
    data = load_digits()
    images = (data.images * 255 / 16).round().astype(np.uint8)
    random = np.random.default_rng(0)
    test = np.zeros(len(images), dtype=bool)
    for label in range(10):
        members = random.permutation(np.flatnonzero(data.target == label))
        test[members[: round(len(members) / 5)]] = True
    splits = {"train": (images[~test], data.target[~test]), "test": (images[test], data.target[test])}
    write(out / "digits.zip", splits, [str(digit) for digit in range(10)])


def idx(path):
    """An IDX file as an array."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3]
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def find(folder, stem):
    return next(path for path in sorted(folder.rglob(f"{stem}*")) if path.is_file())


def fashion(out, folder, train, test):
    """A balanced, seeded part of Fashion-MNIST; its own test images stay test images."""
    random = np.random.default_rng(0)
    splits = {}
    for split, stem, per_class in [("train", "train", train), ("test", "t10k", test)]:
        images, labels = idx(find(folder, f"{stem}-images")), idx(find(folder, f"{stem}-labels"))
        members = [random.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(10)]
        chosen = np.sort(np.concatenate(members))
        splits[split] = (images[chosen], labels[chosen])
    write(out / "fashion.zip", splits, FASHION)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--fashion", type=pathlib.Path, required=True, help="folder with the IDX files")
    args.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    args.add_argument("--train", type=int, default=350, help="Fashion-MNIST training images per class")
    args.add_argument("--test", type=int, default=100, help="Fashion-MNIST test images per class")
    options = args.parse_args()
    digits(options.out)
    fashion(options.out, options.fashion, options.train, options.test)


if __name__ == "__main__":
    main()
