"""What the official Python client sees of the stand-in must be its scenario, word for word.

    python check.py STAND-IN-BINARY
"""

import json
import logging
import subprocess
import sys
import urllib.request

import lmstudio

TOKEN = "sk-lm-Ab3dEf7h:0123456789abcdefghij"
compared = 0


def main() -> None:
    complaints = Complaints()
    logging.getLogger("lmstudio").addHandler(complaints)
    for port in ("internal_port", "user_port"):
        everything(port)
    same(complaints.heard, [])
    token()
    print(f"sdk: lmstudio {lmstudio.__version__} (Python): {compared} views agree")


def everything(port: str) -> None:
    with StandIn("--scenario", "many-loaded") as stand_in, lmstudio.Client(f"127.0.0.1:{stand_in.where[port]}") as client:
        scenario = stand_in.ask(do="scenario")
        models = {model["modelKey"]: model for model in scenario["models"]}
        for session, kind in ((client.llm, "llm"), (client.embedding, "embedding")):
            loaded = [one for one in scenario["loaded"] if models[one["modelKey"]]["type"] == kind]
            assert loaded
            seen = session.list_loaded()
            same([model.identifier for model in seen], [one["identifier"] for one in loaded])
            for handle, instance in zip(seen, loaded, strict=True):
                model = models[instance["modelKey"]]
                same(handle.get_info().to_dict(), info(model, instance))
                same(handle.get_context_length(), instance["contextLength"])
                same_config(handle.get_load_config().to_dict(), instance["loadConfig"])

        downloaded = client.list_downloaded_models()
        same([model.model_key for model in downloaded], list(models))
        for model in downloaded:
            wanted = {key: value for key, value in models[model.model_key].items() if key not in UNKNOWN}
            same(model.info.to_dict(), wanted)

        stand_in.ask(do="load", instance={"modelKey": "google/gemma-3-12b", "contextLength": 4096})
        same(client.llm.list_loaded()[-1].get_context_length(), 4096)
        client.llm.unload("qwen3-8b:2")
        same("qwen3-8b:2" in [model.identifier for model in client.llm.list_loaded()], False)
        refused(lambda: client.llm.unload("qwen3-8b:2"), 'identifier "qwen3-8b:2"')
        refused(lambda: client.llm.get_model_info("nobody"), "No model found that fits the query")

        heard = stand_in.ask(do="calls")["calls"]
        same([call for call in heard if call["nature"] == "forbidden"], [])
        same(len([call for call in heard if call["nature"] == "unloads"]), 2)
        stand_in.ask(do="forget")
        refused(lambda: client.llm.load_new_instance("qwen3-8b"), "violation")
        same([call["nature"] for call in stand_in.ask(do="calls")["calls"]], ["forbidden"])


def token() -> None:
    with StandIn("--scenario", "everyday", "--token", TOKEN) as stand_in:
        user_port = stand_in.where["user_port"]
        with lmstudio.Client(f"127.0.0.1:{user_port}") as client:
            # What it makes of the reason differs from version to version.
            refused(client.llm.list_loaded, "")
        same([call["authorization"] for call in stand_in.ask(do="calls")["calls"] if call["kind"] == "AUTH"], ["absent"])
        # This client knows no tokens; over HTTP they are a header.
        request = urllib.request.Request(f"http://127.0.0.1:{user_port}/api/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            same(len(json.load(answer)["models"]), 5)


# What this client does not know, and drops.
UNKNOWN = {"publisher", "indexedModelIdentifier", "deviceIdentifier", "quantization", "variants", "selectedVariant"}


def info(model: dict, instance: dict) -> dict:
    wanted = {key: value for key, value in model.items() if key not in UNKNOWN}
    for key in ("identifier", "instanceReference", "contextLength"):
        wanted[key] = instance[key]
    return wanted


def same_config(seen: dict, fields: list) -> None:
    plain = {
        "llm.load.contextLength": "contextLength",
        "embedding.load.contextLength": "contextLength",
        "llm.load.offloadKVCacheToGpu": "offloadKVCacheToGpu",
        "llm.load.numExperts": "numExperts",
        "llm.load.llama.evalBatchSize": "evalBatchSize",
        "llm.load.llama.flashAttention": "flashAttention",
        "llm.load.llama.tryMmap": "tryMmap",
        "llm.load.llama.keepModelInMemory": "keepModelInMemory",
    }
    checked = {
        "llm.load.llama.kCacheQuantizationType": "llamaKCacheQuantizationType",
        "llm.load.llama.vCacheQuantizationType": "llamaVCacheQuantizationType",
    }
    # Newer than this client.
    unknown = {
        "llm.load.numParallelSessions",
        "llm.load.useUnifiedKvCache",
        "llm.load.llama.physicalBatchSize",
        "llm.load.mlx.kvCacheQuantization",
        "embedding.load.llama.evalBatchSize",
    }
    for field in fields:
        key, value = field["key"], field["value"]
        if key in plain:
            same(seen[plain[key]], value)
        elif key in checked:
            same(seen[checked[key]], value["value"] if value["checked"] else False)
        elif key.endswith(".acceleration.offloadRatio"):
            same(seen["gpu"]["ratio"], value)
        elif key == "load.gpuSplitConfig":
            same(seen["gpu"]["splitStrategy"], value["strategy"])
            same(seen["gpu"]["disabledGpus"], value["disabledGpus"])
        else:
            assert key in unknown, f"{key} is compared with nothing"


class StandIn:
    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen([sys.argv[1], *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.where = json.loads(self.child.stdout.readline())

    def ask(self, **order) -> dict:
        self.child.stdin.write(json.dumps(order) + "\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *_) -> None:
        self.child.stdin.close()
        self.child.wait(timeout=10)


class Complaints(logging.Handler):
    """What the client warns of: a frame that does not keep to its schemas."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


def same(seen, wanted) -> None:
    global compared
    assert seen == wanted, f"\n{seen!r}\nis not\n{wanted!r}"
    compared += 1


def refused(action, words: str) -> None:
    try:
        action()
    except Exception as error:
        assert words in str(error), f"\n{error}\ndoes not say\n{words}"
    else:
        raise AssertionError(f"nothing was refused: {words}")
    same(True, True)


main()
