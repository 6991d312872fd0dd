"""Makes the files of the truth tables, bills every load of them and compares each byte.

    compare.py FITWATCH SHARED FOLDER [REAL-MODEL]

SHARED holds the tables (`truth`) and what makes their files (`ggufgen`); the files go to FOLDER and
are made once. Prints the tables' own score, and fails where one byte is off.
"""
import collections
import json
import pathlib
import subprocess
import sys

PARTS = ("model_bytes", "kv_bytes", "rs_bytes", "compute_bytes", "output_bytes")


def main(fitwatch, shared, folder, real=""):
    shared, folder = pathlib.Path(shared), pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name in ("train.jsonl", "mmproj-train.jsonl"):
        rows = read(shared / "truth" / name)
        without = [row for row in rows if row["model"].startswith("real:")] if not real else []
        if without:
            print(f"{len(without)} loads of a real model are left out: it could not be fetched")
        rows = [row for row in rows if row not in without]
        for row in rows:
            row["path"] = real if row["model"].startswith("real:") else str(made(shared, folder, row))
        failures += compared(fitwatch, shared, folder, name, rows)
    return 1 if failures else 0


def read(path):
    return [json.loads(line) for line in open(path) if line.strip()]


def made(shared, folder, row):
    """Returns the file that a row is about."""
    path = folder / f"{row['model']}-{row['quant']}.gguf"
    if not path.exists():
        command = [sys.executable, shared / "ggufgen" / "ggufgen.py", "make", row["model"], "--quant", row["quant"]]
        subprocess.run([*command, "-o", folder], check=True, stdout=subprocess.DEVNULL)
    return path


def compared(fitwatch, shared, folder, name, rows):
    """Prints how the bills of a table compare, and returns how many devices are off."""
    truth, bills = folder / f"truth-{name}", folder / f"bills-{name}"
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(truth) as cases, open(bills, "w") as out:
        subprocess.run([fitwatch, "estimate", "--cases", "-"], stdin=cases, stdout=out)
    found = {bill["id"]: bill.get("devices", {}) for bill in read(bills)}
    devices = off = 0
    for row in rows:
        wanted, billed = by_device(row), found.get(row["id"], {})
        for device in sorted(set(wanted) | set(billed)):
            devices += 1
            for part in PARTS:
                want, got = wanted.get(device, {}).get(part, 0), billed.get(device, {}).get(part, 0)
                if want != got:
                    print(f"  {row['id']} {row['model']}, {part} on {device}: {got} billed, {want} allocated")
            off += any(
                wanted.get(device, {}).get(part, 0) != billed.get(device, {}).get(part, 0) for part in PARTS
            )
    if "buffers" in rows[0]:
        subprocess.run([sys.executable, shared / "truth" / "score.py", truth, bills], check=True)
    print(f"{name}: {len(rows)} loads, {devices} devices, {devices - off} exact to the byte, {off} off")
    return off


def by_device(row):
    """Returns what was allocated, by device and part."""
    if "buffers" not in row:
        return row["devices"]
    devices = collections.defaultdict(lambda: dict.fromkeys(PARTS, 0))
    for buffer in row["buffers"].values():
        for part in PARTS:
            devices[buffer["device"]][part] += buffer.get(part, 0)
    return devices


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
