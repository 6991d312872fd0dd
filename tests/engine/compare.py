"""Loads a model in a real llama.cpp under several settings and compares every buffer it logs with
fitwatch's bill. Prints a row a buffer; fails where one is off by more than it may be.

    compare.py FITWATCH MODEL
"""
import json
import re
import subprocess
import sys
import tempfile

# What each part may be off by, as a share. Weights, cache and output are exact but for the log's
# rounding to a hundredth of a MiB.
ALLOWED = {"weights": 0.0005, "repacked_weights": 0.002, "kv_cache": 0.0005, "output": 0.002, "compute": 0.001}
CASES = [
    {"context": 4096, "parallel": 1},
    {"context": 4096, "parallel": 4},
    {"context": 32768, "parallel": 2},
    {"context": 8192, "parallel": 4, "unified_kv": False},
    {"context": 16384, "parallel": 1, "ubatch": 256},
    {"context": 16384, "parallel": 1, "cache_type": "q8_0"},
]
LOAD = """
import json, os, sys, xllamacpp
case = json.loads(sys.argv[2])
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel = case["context"], case["parallel"]
params.n_batch, params.n_ubatch = 512, case.get("ubatch", 512)
params.kv_unified = case.get("unified_kv", True)
params.cpuparams.n_threads, params.verbosity, params.warmup = 2, 5, False
if "cache_type" in case:
    kind = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + case["cache_type"].upper())
    params.cache_type_k = params.cache_type_v = kind
server = xllamacpp.Server(params)
print("LOADED", flush=True)
os._exit(0)
"""


def logged(model, case):
    """Returns the bytes of each part as llama.cpp logs them for its last, real load."""
    # A file, not a pipe: llama.cpp's threads may hold a pipe open after the process has ended.
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        load = [sys.executable, "-c", LOAD, model, json.dumps(case)]
        subprocess.run(load, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=120)
        log.seek(0)
        text = log.read()
    if "LOADED" not in text:
        sys.exit(f"llama.cpp did not load {case}:\n{text[-2000:]}")
    # A dry run that sizes the load comes first, with buffers of 0.00 MiB for the weights.
    text = text[text.rindex("load_tensors: loading model tensors") :]
    parts = dict.fromkeys(ALLOWED, 0.0)
    names = [
        (r"CPU_Mapped model buffer size = +([\d.]+)", "weights"),
        (r"CPU_REPACK model buffer size = +([\d.]+)", "repacked_weights"),
        (r"CPU KV buffer size = +([\d.]+)", "kv_cache"),
        (r"CPU +output buffer size = +([\d.]+)", "output"),
        (r"CPU compute buffer size = +([\d.]+)", "compute"),
    ]
    for pattern, part in names:
        parts[part] = sum(float(size) for size in re.findall(pattern, text)) * 2**20
    # The mapped range holds the tensors that were repacked as well; fitwatch counts them once.
    parts["weights"] -= parts["repacked_weights"]
    return parts


def billed(fitwatch, model, case):
    command = [fitwatch, "estimate", model, "--json", "--backend", "none", "--batch", "512"]
    command += ["--context", str(case["context"]), "--parallel", str(case["parallel"])]
    command += ["--ubatch", str(case.get("ubatch", 512))]
    command += ["--unified-kv" if case.get("unified_kv", True) else "--no-unified-kv"]
    if "cache_type" in case:
        command += ["--cache-type-k", case["cache_type"], "--cache-type-v", case["cache_type"]]
    run = subprocess.run(command, capture_output=True, text=True)
    if not run.stdout:
        sys.exit(f"fitwatch says nothing: {run.stderr}")
    parts = dict.fromkeys(ALLOWED, 0)
    for line in json.loads(run.stdout)["bill"]["lines"]:
        parts[line["part"]] = parts.get(line["part"], 0) + line["bytes"]
    return parts


def main(fitwatch, model):
    failures = 0
    for case in CASES:
        truth, bill = logged(model, case), billed(fitwatch, model, case)
        print(json.dumps(case))
        for part, allowed in ALLOWED.items():
            difference = bill[part] - truth[part]
            share = difference / truth[part] if truth[part] else float(bool(difference))
            is_off = abs(share) > allowed
            failures += is_off
            print(f"  {part:17} llama.cpp {truth[part]/2**20:9.2f} MiB  fitwatch {bill[part]/2**20:9.2f} MiB"
                  f"  {100*share:+7.3f} %{'  OFF' if is_off else ''}")
        whole, ours = sum(truth.values()), sum(bill[part] for part in ALLOWED)
        print(f"  {'total':17} llama.cpp {whole/2**20:9.2f} MiB  fitwatch {ours/2**20:9.2f} MiB  {100*(ours-whole)/whole:+7.3f} %")
    print(f"{len(CASES) * len(ALLOWED) - failures} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
