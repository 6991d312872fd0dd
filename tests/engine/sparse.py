"""Makes GGUF files that hold a model's header and a hole where its weights would be.

The headers are those of the truth tables' sample (`tests/fixtures/truth/headers.jsonl`), which has every
family of models; a vocabulary is only counted in them, so the files have none. llama.cpp measures a load of
such a file as it does a real one.
"""
import json
import pathlib
import re
import struct

HEADERS = pathlib.Path(__file__).parent.parent / "fixtures" / "truth" / "headers.jsonl"
ALIGNMENT = 32
U32, I32, F32, BOOL, TEXT, ARRAY = 4, 5, 6, 7, 8, 9
# Elements and bytes of a block of each element type.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 26: (1, 4),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


def headers():
    """Returns the sample's headers of language models by name."""
    found = [json.loads(line) for line in open(HEADERS)]
    return {header["name"]: header for header in found if header["architecture"] != "clip"}


def write(path, header):
    """Writes the file of a header."""
    architecture, tensors = header["architecture"], list(tensors_of(header))
    metadata = {"general.architecture": architecture, "tokenizer.ggml.model": "no_vocab"}
    for key, value in header["metadata"].items():
        if not isinstance(value, dict):
            metadata[architecture + key if key.startswith(".") else key] = value
    metadata.setdefault(f"{architecture}.vocab_size", header["tokens"])
    # What the sample lacks, as no bill looks at it and newer builds do not.
    metadata.setdefault(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    if architecture == "apertus":
        metadata.update((f"xielu.{key}", 1.0) for key in ("alpha_n", "alpha_p", "beta", "eps"))
    kinds = [sizes[1] for name, _, sizes in tensors if name == "token_types.weight"]
    metadata.update(("tokenizer.ggml.token_type_count", kind) for kind in kinds)
    head, place = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))], 0
    for key, value in metadata.items():
        kind, kept = encoded(value)
        head.append(text(key) + struct.pack("<I", kind) + kept)
    for name, kind, sizes in tensors:
        head.append(text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, place))
        elements, bytes_of_block = BLOCKS[kind]
        count = sizes[0] // elements * bytes_of_block
        for size in sizes[1:]:
            count *= size
        place += padded(count)
    head = b"".join(head)
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(padded(len(head)) + place)


def tensors_of(header):
    """Yields name, element type and sizes of every tensor of a header."""
    for line in header["tensors"]:
        name, kind, sizes = line.split(" ")
        sizes = [int(size) for size in sizes.split("x")]
        blocks = re.search(r"(?<=\.)\d+[-,][-,\d]*(?=\.)", name)
        names = [name]
        if blocks:
            names = [name[: blocks.start()] + str(block) + name[blocks.end() :] for block in numbers(blocks[0])]
        yield from ((name, int(kind), sizes) for name in names)


def numbers(ranges):
    """Yields the numbers of `0-3,7`."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def encoded(value):
    """Returns a value's type and bytes."""
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return (U32, struct.pack("<I", value)) if value >= 0 else (I32, struct.pack("<i", value))
    if isinstance(value, float):
        return F32, struct.pack("<f", value)
    if isinstance(value, str):
        return TEXT, text(value)
    kinds = [encoded(element)[0] for element in value]
    kind = I32 if kinds and kinds[0] == U32 else kinds[0]
    elements = [struct.pack("<i", element) if kind == I32 else encoded(element)[1] for element in value]
    return ARRAY, struct.pack("<IQ", kind, len(value)) + b"".join(elements)


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def padded(count):
    return -(-count // ALIGNMENT) * ALIGNMENT
