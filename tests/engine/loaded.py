"""Serves a real model with a real llama.cpp, started with the command line that LM Studio uses, and
looks whether fitwatch finds it: which model, which settings, which process, and that it is gone
when it has ended. Its bill is held against the memory that the process really took.

    loaded.py FITWATCH MODEL
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

RUNTIME = "llama.cpp-linux-x86_64-avx2-2.31.0"
FILE = "lmstudio-community/gemma-3-270m-it-GGUF/gemma-3-270m-it-Q4_K_M.gguf"
SERVE = """
import sys, time, xllamacpp
asked = dict(zip(sys.argv[1:], sys.argv[2:]))
params = xllamacpp.CommonParams()
params.model.path = asked["--model"]
params.n_ctx, params.n_parallel = int(asked["--ctx-size"]), int(asked["--parallel"])
params.n_batch, params.n_ubatch = int(asked["--batch-size"]), int(asked["--ubatch-size"])
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
params.kv_unified, params.cpuparams.n_threads = "--kv-unified" in sys.argv, 2
params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
server = xllamacpp.Server(params)
print("LOADED", flush=True)
time.sleep(600)
"""


def command(engine, script, model):
    """Returns the command line that LM Studio starts its llama-server with."""
    return [
        engine, script, "--model", model, "--host", "127.0.0.1", "--port", "0", "--api-key", "planted-secret",
        "--no-webui", "--jinja", "--ctx-size", "8192", "--n-gpu-layers", "999999", "--main-gpu", "0",
        "--batch-size", "512", "--ubatch-size", "256", "--threads", "2", "--parallel", "2",
        "--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--flash-attn", "auto", "--kv-offload",
        "--kv-unified", "--no-direct-io", "--no-mmap",
    ]


def loaded(fitwatch, home):
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PATH": os.environ["PATH"]}
    run = subprocess.run([fitwatch, "status", "--json"], capture_output=True, text=True, env=environment)
    if "planted-secret" in run.stdout + run.stderr:
        sys.exit("the engine's key was told")
    return json.loads(run.stdout)["loaded"]


def private(pid):
    """Returns the bytes of its own that a process holds: what is not mapped from files."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def main(fitwatch, model):
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        file = home / ".lmstudio/models" / FILE
        file.parent.mkdir(parents=True)
        shutil.copy(model, file)
        runtime = home / ".lmstudio/extensions/backends" / RUNTIME
        runtime.mkdir(parents=True)
        # The engine is Python with llama.cpp in it; its program lies where LM Studio's does.
        engine = runtime / "llama-server"
        shutil.copy(os.path.realpath(sys.executable), engine)
        script = home / "serve.py"
        script.write_text(SERVE)
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path[1:] if path))
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            child = subprocess.Popen(
                command(str(engine), str(script), str(file)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment,
            )
            try:
                followed(fitwatch, home, child, log)
            finally:
                child.kill()
                child.wait()
        after = loaded(fitwatch, home)
        if after:
            sys.exit(f"it has ended and is still shown: {after}")


def followed(fitwatch, home, child, log):
    deadline = time.monotonic() + 120
    while log.seek(0) == 0 and "LOADED" not in log.read():
        if child.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            sys.exit(f"llama.cpp did not load:\n{log.read()[-2000:]}")
        time.sleep(0.2)
    found = loaded(fitwatch, home)
    if [instance["model"] for instance in found] != [FILE]:
        sys.exit(f"the model is not found: {json.dumps(found, indent=1)}")
    (instance,) = found
    settings = instance["settings"]["settings"]
    wanted = {
        "context": 8192, "parallel": 2, "batch": 512, "ubatch": 256, "unified_kv": True, "mmap": False,
        "cache_type_k": "q8_0", "cache_type_v": "q8_0", "offload_kv": True,
    }
    wrong = {key: settings[key] for key, value in wanted.items() if settings[key] != value}
    if wrong or instance["process"] != child.pid or instance["settings"]["basis"] != "command_line":
        sys.exit(f"pid {child.pid}: {wrong}, {json.dumps(instance, indent=1)}")
    billed = sum(pool["bytes"] for pool in instance["needs"])
    measured = private(child.pid)
    print(f"loaded: {instance['id']}, {billed / 1e6:.0f} MB billed, {measured / 1e6:.0f} MB of its own measured")
    # The interpreter, the vocabulary and llama.cpp's own structures come on top; pages never written do not.
    if not 0.6 * measured < billed < 1.2 * measured:
        sys.exit("the bill is far from what the process took")


if __name__ == "__main__":
    main(*sys.argv[1:])
