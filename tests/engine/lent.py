"""Has a real llama-server measure loads of every family of models on devices lent to it over loopback, and
compares the memory that it logs with fitwatch's bill. Prints what is off; fails where anything is.

    lent.py FITWATCH ENGINE FOLDER [REAL-MODEL] [--build BUILD]

ENGINE is the folder of llama-server and ggml-rpc-server, FOLDER where files are made. `--build` bills another
build than ENGINE's, to see the comparison fail. Nothing is loaded or computed: the server is ended once it has
logged its dry run. Ends with 3 where ENGINE does not run on this machine.
"""
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import queue
import re
import socket
import subprocess
import sys
import time

import sparse

BUILD = 10434
MIB = 2**20
USUAL = {
    "gpus": 1, "n_gpu_layers": 999, "n_cpu_moe": 0, "n_ctx": 8192, "n_batch": 2048, "n_ubatch": 512, "n_parallel": 4,
    "kv_unified": True, "type_k": "f16", "type_v": "f16", "flash_attn": "auto", "offload_kqv": True,
    "cpu_repack": True, "swa_full": False, "embeddings": False,
}  # fmt: skip
# What differs from the usual settings, by name.
SETTINGS = {
    "all on the device": {},
    "part of the layers": {"n_gpu_layers": 8, "n_ctx": 4096, "n_parallel": 2, "kv_unified": False},
    "experts on the CPU": {"n_cpu_moe": 3},
    "cache in RAM": {"offload_kqv": False},
    "quantised cache": {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"},
    "without flash attention": {"flash_attn": "off"},
    "nothing on the device": {"n_gpu_layers": 0},
    "two devices": {"gpus": 2},
    "part on two devices": {"gpus": 2, "n_gpu_layers": 9, "flash_attn": "on"},
    "separate slots": {"n_parallel": 2, "kv_unified": False, "n_ctx": 16384, "n_ubatch": 256},
    "long context": {"n_ctx": 32768, "n_parallel": 1, "n_gpu_layers": 4, "cpu_repack": False},
    "full windows": {"swa_full": True, "n_ubatch": 1024},
    "no device": {"gpus": 0},
}
# Models that are measured under all settings; the others under one each, in turn.
THOROUGH = (
    "llama-3.1-8b-Q4_K_M", "qwen3-30b-a3b-Q4_K_M", "gemma-3-4b-Q4_K_M", "gemma-3n-e4b-Q4_K_M", "gpt-oss-20b-MXFP4_MOE",
    "granite-4.0-h-tiny-Q4_K_M", "qwen3-next-80b-a3b-Q4_K_M", "deepseek-v2-lite-Q4_K_M", "mamba2-2.7b-Q4_K_M", "minicpm3",
)  # fmt: skip
ENCODERS = ("bert", "embed", "encoder")
# What llama.cpp says of a model that this build does not know or knows with other tensors, and of a cache
# whose blocks do not fit a model's heads.
REFUSED = r"unknown model architecture|check_tensor_dims|wrong number of tensors|does not divide n_embd_head"
TABLE = "common_memory_breakdown_print"
# The part of the loads that the build has to measure.
LEAST_MEASURED = 0.9
# No answer takes longer, in seconds.
PATIENCE = 60


def main(fitwatch, engine, folder, real="", build=BUILD):
    engine, folder = pathlib.Path(engine), pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    loads = list(planned(folder, real))
    with lenders(engine, workers=min(os.cpu_count() or 1, 4)) as idle:
        if not runs(engine, loads[0], idle):
            print("left out: the engine does not run on this machine", file=sys.stderr)
            return 3
        with concurrent.futures.ThreadPoolExecutor(idle.qsize()) as pool:
            logs = list(pool.map(lambda load: measured(engine, load, idle), loads))
    bills = billed(fitwatch, loads, build)
    figures, off, refused = 0, 0, []
    for load, log, bill in zip(loads, logs, bills):
        title = f"{load['name']}, {load['setting']}"
        logged = parsed(log)
        if not logged:
            if not re.search(REFUSED, "".join(log)):
                sys.exit(f"{title}: llama.cpp does not measure it:\n{''.join(log[-20:])}")
            refused.append(load["name"])
            continue
        if "error" in bill:
            sys.exit(f"{title}: {bill['error']}")
        for what, truth, ours, fits in compared(logged, bill["devices"]):
            figures += 1
            if not fits:
                off += 1
                print(f"  OFF  {title}, {what}: llama.cpp {truth:.2f} MiB, fitwatch {ours:.4f} MiB")
    measures = len(loads) - len(refused)
    print(f"{measures} loads measured by llama.cpp b{BUILD}; it refuses those of {', '.join(refused)}")
    print(f"{figures - off} figures passed, {off} failed")
    return 1 if off or measures < LEAST_MEASURED * len(loads) else 0


# What is measured


def planned(folder, real):
    """Yields every load: a model's file under a setting."""
    turns = itertools.cycle(SETTINGS)
    for name, header in sparse.headers().items():
        path = folder / f"{name}.gguf"
        sparse.write(path, header)
        for setting in SETTINGS if name in THOROUGH else [next(turns)]:
            yield load(name, path, setting, header)
    for setting in SETTINGS if real else ():
        yield load(pathlib.Path(real).name, real, setting)


def load(name, path, setting, header=None):
    found = {**USUAL, **SETTINGS[setting], "name": name, "setting": setting, "path": str(path)}
    if header and (header["metadata"].get(".pooling_type") or any(part in name for part in ENCODERS)):
        found["embeddings"] = True
    return found


def flags(load, ports):
    """Returns the settings of a load as llama-server is told them."""
    values = {
        "--model": load["path"], "--ctx-size": load["n_ctx"], "--batch-size": load["n_batch"],
        "--ubatch-size": load["n_ubatch"], "--parallel": load["n_parallel"], "--n-gpu-layers": load["n_gpu_layers"],
        "--cache-type-k": load["type_k"], "--cache-type-v": load["type_v"], "--flash-attn": load["flash_attn"],
    }  # fmt: skip
    if load["gpus"]:
        # Devices can be named once they are known.
        values["--rpc"] = ",".join(f"127.0.0.1:{port}" for port in ports[: load["gpus"]])
    values["--device"] = ",".join(f"RPC{device}" for device in range(load["gpus"])) or "none"
    if load["gpus"] > 1:
        values["--tensor-split"] = ",".join("1" * load["gpus"])
    if load["n_cpu_moe"]:
        values["--n-cpu-moe"] = load["n_cpu_moe"]
    alone = ["--kv-unified" if load["kv_unified"] else "--no-kv-unified"]
    alone += ["--no-kv-offload"] if not load["offload_kqv"] else []
    alone += ["--no-repack"] if not load["cpu_repack"] else []
    alone += ["--swa-full"] if load["swa_full"] else []
    alone += ["--embedding"] if load["embeddings"] else []
    return [str(part) for pair in values.items() for part in pair] + alone


# The engine


@contextlib.contextmanager
def lenders(engine, workers):
    """Starts two servers that lend a device for each worker, and ends them."""
    idle = queue.Queue()
    for _ in range(workers):
        idle.put([lender(engine), lender(engine)])
    try:
        yield idle
    finally:
        while not idle.empty():
            for server, _ in idle.get():
                end(server)


def lender(engine):
    """Starts a server that lends this machine's CPU, and returns it with its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [engine / "ggml-rpc-server", "--host", "127.0.0.1", "--port", str(port)]
    server = started(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.02)
    return server, port


def measured(engine, load, idle):
    """Returns what llama-server logs up to its memory."""
    pair = idle.get()
    try:
        for _ in range(3):
            # A server that lends may end with the one it lent to.
            pair = [(server, port) if server.poll() is None else lender(engine) for server, port in pair]
            log = logged_by(engine, load, [port for _, port in pair])
            if re.search(f"{TABLE}|{REFUSED}", "".join(log)):
                break
        return log
    finally:
        idle.put(pair)


def logged_by(engine, load, ports):
    command = [engine / "llama-server", "--port", "0", "--fit", "on", "--verbosity", "5", "--no-warmup"]
    server = started([*command, *flags(load, ports)], stdout=subprocess.PIPE, text=True, errors="replace")
    log, begun = [], False
    for line in server.stdout:
        log.append(line)
        is_table = TABLE in line
        if begun and not is_table:
            break
        begun = begun or is_table
        if "while trying to fit params" in line:
            break
    end(server)
    return log


def started(command, **options):
    # GPUs of this machine have no part in it.
    environment = {**os.environ, "GGML_VK_VISIBLE_DEVICES": "", "GGML_NO_BACKTRACE": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=environment, **options
    )


def end(server):
    server.kill()
    server.wait()
    if server.stdout:
        server.stdout.close()


def runs(engine, load, idle):
    """Returns whether the engine gets as far as reading a model."""
    return any("llama_model_load" in line for line in measured(engine, load, idle))


# What it logs


def parsed(log):
    """Returns the MiB of each part by device, and of all caches and states; nothing where it logs none."""
    table = [line for line in log if TABLE in line]
    names = dict(re.search(r"- (RPC\d+) +\((\S+)\)", line).groups()[::-1] for line in table if "RPC" in line)
    devices = {}
    for line in table:
        row = re.search(r"\|   - (\S+).*= +(\d+) \+ +(\d+) \+ +(\d+)", line)
        if row:
            # Weights that are laid out anew for the CPU are a row of their own.
            device = devices.setdefault(row[1] if row[1] in names.values() else "CPU", {"model": [], "context": 0})
            device["model"].append(int(row[2]))
            device["context"] += int(row[3])
    found = {"devices": devices, "kv_bytes": [], "rs_bytes": []}
    for line in log:
        if buffer := re.search(r"sched_reserve: +(\S+) compute buffer size = +([\d.]+) MiB", line):
            device = re.sub(r".*\[(.*)\]", lambda lent: names.get(lent[1], lent[1]), buffer[1])
            devices.setdefault(device, {"model": [0], "context": 0})["compute"] = float(buffer[2])
        elif buffer := re.search(r"output buffer size = +([\d.]+) MiB", line):
            found["output"] = float(buffer[1])
        elif cache := re.search(r"llama_kv_cache\w*: size = +([\d.]+) MiB", line):
            found["kv_bytes"].append(float(cache[1]))
        elif state := re.search(r"llama_memory_recurrent: size = +([\d.]+) MiB", line):
            found["rs_bytes"].append(float(state[1]))
    return found if devices else None


def compared(logged, bill):
    """Yields each figure with what llama.cpp logs, what is billed, and whether they agree in all that is logged."""
    for device in sorted(set(logged["devices"]) | set(bill)):
        truth, ours = logged["devices"].get(device, {}), bill.get(device, {})
        in_mib = lambda *parts: sum(ours.get(part, 0) for part in parts) / MIB
        # Whole MiB, each buffer's rest left out.
        parts = truth.get("model", [0])
        model, context = in_mib("model_bytes"), in_mib("kv_bytes", "rs_bytes")
        yield f"weights on {device}", sum(parts), model, sum(parts) <= model < sum(parts) + max(len(parts), 1)
        whole = truth.get("context", 0)
        yield f"cache on {device}", whole, context, whole <= context < whole + 1
        yield hundredths(f"compute buffer on {device}", [truth.get("compute", 0)], in_mib("compute_bytes"))
    yield hundredths("output buffer", [logged.get("output", 0)], bill["CPU"]["output_bytes"] / MIB)
    for part, name in (("kv_bytes", "KV cache"), ("rs_bytes", "recurrent state")):
        yield hundredths(f"{name} in all", logged[part], sum(device[part] for device in bill.values()) / MIB)


def hundredths(what, parts, ours):
    """Compares with parts that are each rounded to hundredths of a MiB."""
    return what, sum(parts), ours, abs(sum(parts) - ours) <= 0.005 * max(len(parts), 1) + 1e-9


# What fitwatch makes of it


def billed(fitwatch, loads, build):
    lines = []
    for load in loads:
        gpus = [{"name": f"RPC{device}", "memory_bytes": 2**34} for device in range(load["gpus"])]
        # llama-server has a row of logits a slot, or a row a token where embeddings are asked for.
        rows = 0 if load["embeddings"] else load["n_parallel"]
        case = {**load, "gpus": gpus, "backend": "rpc" if gpus else "none", "n_outputs_max": rows, "build": build}
        lines.append(json.dumps(case) + "\n")
    command = [fitwatch, "estimate", "--cases", "-"]
    run = subprocess.run(command, input="".join(lines), capture_output=True, text=True)
    bills = [json.loads(line) for line in run.stdout.splitlines()]
    if len(bills) != len(loads):
        sys.exit(f"fitwatch bills {len(bills)} of {len(loads)} loads: {run.stderr}")
    return bills


if __name__ == "__main__":
    arguments, build = sys.argv[1:], BUILD
    if "--build" in arguments:
        place = arguments.index("--build")
        build = int(arguments[place + 1])
        del arguments[place : place + 2]
    sys.exit(main(*arguments, build=build))
