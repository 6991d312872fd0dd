#!/usr/bin/env python3
"""Makes the small copy of the truth that the tests read.

    sample.py FOLDER TRUTH.jsonl...

Each row of the tables has the key `path`, its GGUF file. Writes FOLDER/headers.jsonl (every file's
header without its vocabulary) and FOLDER/cases.jsonl (rows that together show every family of
models under every placement and setting; FOLDER/README.md says what is in them). The same tables
give the same files.
"""
import collections
import itertools
import json
import pathlib
import random
import re
import struct
import sys

PARTS = ("model_bytes", "kv_bytes", "rs_bytes", "compute_bytes", "output_bytes")
# A case leaves out what is as here.
USUAL = {
    "n_cpu_moe": 0, "cpu_repack": True, "n_ctx": 4096, "n_batch": 2048, "n_ubatch": 512, "n_parallel": 1,
    "kv_unified": False, "type_k": "f16", "type_v": "f16", "flash_attn": "auto", "offload_kqv": True,
    "swa_full": False, "n_outputs_max": 0, "embeddings": False,
}  # fmt: skip
# Rows of each file, and of each architecture, at most.
ROWS_OF_A_FILE, ROWS_OF_AN_ARCHITECTURE = 6, 30
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def main(folder, tables):
    folder = pathlib.Path(folder)
    rows = [json.loads(line) for table in tables for line in open(table) if line.strip()]
    rows = [row for row in rows if row.get("buffers")]
    kept = sample(rows)
    with open(folder / "cases.jsonl", "w") as out:
        for row in kept:
            out.write(written(case(row)))
    with open(folder / "headers.jsonl", "w") as out:
        for path in sorted({row["path"] for row in kept}, key=name):
            out.write(written(header(path)))
    print(f"{len(kept)} of {len(rows)} cases, {len({row['path'] for row in kept})} files")


def written(row):
    return json.dumps(row, separators=(",", ":")) + "\n"


def name(path):
    return pathlib.Path(path).name.removesuffix(".gguf")


# What of the tables is kept


def sample(rows):
    """Takes of each file the rows that show most of what its architecture was not yet shown under."""
    rows = sorted(rows, key=lambda row: (name(row["path"]), row["id"]))
    random.Random(11434).shuffle(rows)
    files, most = collections.defaultdict(list), collections.Counter()
    for row in rows:
        files[row["path"]].append(row)
        most[row["path"]] = max(most[row["path"]], row["n_gpu_layers"])
    shown, count, kept = collections.Counter(), collections.Counter(), []
    # The smaller tables of a file come first, so that a file with one row keeps it.
    for path in sorted(files, key=lambda path: (len(files[path]), name(path))):
        left = files[path]
        for _ in range(ROWS_OF_A_FILE):
            if not left or count[left[0]["arch"]] >= ROWS_OF_AN_ARCHITECTURE:
                break
            best = max(left, key=lambda row: sum(1 / (1 + shown[key]) ** 2 for key in keys(row, most[path])))
            left.remove(best)
            shown.update(keys(best, most[path]))
            count[best["arch"]] += 1
            kept.append(best)
    return sorted(kept, key=lambda row: (name(row["path"]), row["id"]))


def keys(row, most):
    """Returns what a row shows: its architecture under each setting, and each pair of settings."""
    settings = [("placement", placement(row, most))]
    settings += [(key, row[key]) for key in ("flash_attn", "type_k", "type_v", "n_parallel", "kv_unified")]
    settings += [(key, row[key]) for key in ("offload_kqv", "swa_full", "n_outputs_max", "embeddings")]
    settings += [("batch", (row["n_batch"], row["n_ubatch"])), ("n_ctx", row["n_ctx"])]
    alone = [(row["arch"], setting) for setting in settings]
    return alone + [(row["memory_kind"], *pair) for pair in itertools.combinations(settings, 2)]


def placement(row, most):
    if not row["gpus"]:
        return "none", row["cpu_repack"]
    part = "all" if not 0 <= row["n_gpu_layers"] < most else "part" if row["n_gpu_layers"] else "nothing"
    return len(row["gpus"]), part, row["n_cpu_moe"] > 0


def case(row):
    out = {"id": row["id"], "header": name(row["path"])}
    out["gpus"] = {gpu["name"]: gpu["memory_bytes"] for gpu in row["gpus"]}
    out["n_gpu_layers"] = row["n_gpu_layers"]
    out |= {key: row[key] for key, usual in USUAL.items() if row[key] != usual}
    devices = collections.defaultdict(lambda: [0] * len(PARTS))
    for buffer in row["buffers"].values():
        for at, part in enumerate(PARTS):
            devices[buffer["device"]][at] += buffer.get(part, 0)
    return out | {"devices": devices}


# A GGUF header, without what no bill looks at


def header(path):
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            sys.exit(f"{path} is no GGUF file")
        _, tensors, entries = number(file, "I"), number(file, "Q"), number(file, "Q")
        metadata = dict((text(file), value(file, number(file, "I"))) for _ in range(entries))
        table = [tensor(file) for _ in range(tensors)]
    architecture = metadata["general.architecture"]
    found = {}
    for key, kept in metadata.items():
        if key.startswith((f"{architecture}.", "clip.")):
            found[key.removeprefix(architecture)] = kept
        elif key in ("general.type", "general.file_type"):
            found[key] = kept
    vocabulary = metadata.get("tokenizer.ggml.tokens", {"skipped": 0})["skipped"]
    return {
        "name": name(path), "architecture": architecture, "file_bytes": pathlib.Path(path).stat().st_size,
        "tokens": vocabulary, "metadata": found, "tensors": repeated(table),
    }  # fmt: skip


def number(file, kind):
    return struct.unpack("<" + kind, file.read(struct.calcsize("<" + kind)))[0]


def text(file):
    return file.read(number(file, "Q")).decode("utf-8", "replace")


def value(file, kind):
    if kind == 8:
        return text(file)
    if kind == 9:
        kind, count = number(file, "I"), number(file, "Q")
        if kind == 8:
            for _ in range(count):
                file.seek(number(file, "Q"), 1)
            return {"skipped": count}
        elements = [scalar(file, kind) for _ in range(count)]
        return elements if count <= 4096 else {"skipped": count}
    return scalar(file, kind)


def scalar(file, kind):
    found = number(file, SCALARS[kind])
    # The shortest text that gives the same 32 bits; a point tells a float from an integer.
    return float(f"{found:.9g}") if kind == 6 else found


def tensor(file):
    title, dimensions = text(file), number(file, "I")
    sizes = [number(file, "Q") for _ in range(dimensions)]
    kind, _ = number(file, "I"), number(file, "Q")
    return title, f"{kind} {'x'.join(map(str, sizes))}"


def repeated(table):
    """Writes the tensors that differ in their block alone as one: `blk.0-3,7.attn_q.weight 12 64x64`."""
    found = {}
    for title, shape in table:
        match = re.search(r"(?<=\.)\d+(?=\.)", title)
        stem, block = (title[: match.start()] + "*" + title[match.end() :], int(match[0])) if match else (title, None)
        found.setdefault((stem, shape), []).append(block)
    return [f"{stem.replace('*', ranges(blocks))} {shape}" for (stem, shape), blocks in found.items()]


def ranges(blocks):
    if blocks == [None]:
        return ""
    parts = []
    for block in sorted(blocks):
        if parts and parts[-1][1] == block - 1:
            parts[-1][1] = block
        else:
            parts.append([block, block])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
