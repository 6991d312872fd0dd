// What the official JavaScript client sees of the stand-in must be its scenario, word for word.
//
//   node check.mjs STAND-IN-BINARY sdk-1|sdk-2

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const [binary, sdk] = process.argv.slice(2);
const isNew = sdk === "sdk-2";
const { LMStudioClient } = await import(sdk);

const TOKEN = "sk-lm-Ab3dEf7h:0123456789abcdefghij";
const AWAY = "c0ffee0123456789c0ffee0123456789";
let compared = 0;

for (const port of ["internal_port", "user_port"]) {
    await everything(port);
}
await token();
console.log(`sdk: @lmstudio/sdk ${isNew ? "2" : "1"}: ${compared} views agree`);
process.exit(0);

async function everything(port) {
    const standIn = await start("--scenario", "many-loaded");
    const { client, complaints } = connect(`ws://127.0.0.1:${standIn.where[port]}`);
    const scenario = await standIn.ask({ do: "scenario" });
    const models = new Map(scenario.models.map((model) => [model.modelKey, model]));

    for (const [namespace, type] of [[client.llm, "llm"], [client.embedding, "embedding"]]) {
        const loaded = scenario.loaded.filter((instance) => models.get(instance.modelKey).type === type);
        assert.ok(loaded.length > 0);
        const seen = await namespace.listLoaded();
        same(seen.map((model) => model.identifier), loaded.map((instance) => instance.identifier));
        for (const [index, instance] of loaded.entries()) {
            const model = models.get(instance.modelKey);
            same(await seen[index].getModelInfo(), told({ ...row(model), ...ofInstance(instance) }));
            same(await seen[index].getContextLength(), instance.contextLength);
            const config = await seen[index].getLoadConfig();
            if (isNew) {
                sameConfig(config, instance.loadConfig);
                const state = await seen[index].getInstanceProcessingState();
                same(state, { status: instance.status, queued: instance.queued });
            } else {
                same(config, { fields: instance.loadConfig });
            }
        }
    }

    same(await client.system.getLMStudioVersion(), { version: scenario.version, build: scenario.build });
    same(await client.system.listDownloadedModels(), scenario.models.map((model) => told(row(model))));
    if (isNew) {
        const info = { pid: standIn.where.pid, isDaemon: scenario.is_daemon, version: scenario.version };
        same(await client.system.getInfo(), info);
        const link = await client.repository.lmLink.status();
        same([link.deviceIdentifier, link.peers.map((peer) => peer.deviceIdentifier)], [null, [AWAY]]);
        const usage = await client.llm.estimateResourcesUsage("qwen3-8b", { contextLength: 1_000, gpu: { ratio: "off" } });
        const bytes = models.get("qwen3-8b").sizeBytes;
        same(usage, {
            memory: {
                confidence: "high",
                modelVramBytes: 0,
                contextVramBytes: 0,
                totalVramBytes: 0,
                modelBytes: bytes,
                contextBytes: 131_072_000,
                totalBytes: bytes + 131_072_000,
            },
            passesGuardrails: true,
        });
    }

    // What is loaded and unloaded while the client is connected.
    await standIn.ask({ do: "load", instance: { modelKey: "google/gemma-3-12b", contextLength: 4_096 } });
    same((await client.llm.listLoaded()).at(-1).identifier, "google/gemma-3-12b");
    same(await (await client.llm.listLoaded()).at(-1).getContextLength(), 4_096);
    await standIn.ask({ do: "unload", identifier: "google/gemma-3-12b" });
    same(await client.llm.createDynamicHandle("google/gemma-3-12b").getModelInfo(), undefined);

    const before = await client.llm.listLoaded();
    await before.find((model) => model.identifier === "qwen3-8b:2").unload();
    same((await client.llm.listLoaded()).map((model) => model.identifier), before.map((model) => model.identifier).filter((name) => name !== "qwen3-8b:2"));
    await rejects(client.llm.unload("qwen3-8b:2"), /Cannot find a model with identifier "qwen3-8b:2"/);
    await rejects(before[1].getLoadConfig(), /unloaded/i);
    const rest = await (await fetch(`http://127.0.0.1:${standIn.where.user_port}/api/v1/models`)).json();
    same(rest.models.find((model) => model.key === "qwen3-8b").loaded_instances.map((one) => one.id), ["qwen3-8b"]);
    same(complaints, []);

    // Nothing but reading so far, besides the unloads; and the record knows a load when it sees one.
    const heard = (await standIn.ask({ do: "calls" })).calls;
    same(heard.filter((call) => call.nature === "forbidden"), []);
    same(heard.filter((call) => call.nature === "unloads").length, 2);
    await standIn.ask({ do: "forget" });
    await rejects(client.llm.model("google/gemma-3-12b"), /violation/);
    same((await standIn.ask({ do: "calls" })).calls.map((call) => `${call.kind} ${call.name} ${call.nature}`), [
        "CHANNEL llm.getOrLoad forbidden",
    ]);
    standIn.end();
}

async function token() {
    const standIn = await start("--scenario", "everyday", "--token", TOKEN);
    const address = `ws://127.0.0.1:${standIn.where.user_port}`;
    await rejects(connect(address).client.llm.listLoaded(), /Failed to authenticate: An LM Studio API token is required/);
    const [clientIdentifier, clientPasskey] = TOKEN.slice("sk-lm-".length).split(":");
    const own = isNew ? { apiToken: TOKEN } : { clientIdentifier, clientPasskey };
    same((await connect(address, own).client.llm.listLoaded()).map((model) => model.identifier), ["qwen3-8b"]);
    const wrong = { clientIdentifier, clientPasskey: "another" };
    await rejects(connect(address, wrong).client.llm.listLoaded(), /Failed to authenticate: Invalid LM Studio API token/);
    const entered = (await standIn.ask({ do: "calls" })).calls.filter((call) => call.kind === "AUTH");
    same(entered.map((call) => call.authorization), ["absent", "right", "wrong"]);
    standIn.end();
}

async function start(...args) {
    const child = spawn(binary, args, { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async () => JSON.parse((await lines.next()).value);
    const ask = async (order) => {
        child.stdin.write(`${JSON.stringify(order)}\n`);
        const answer = await next();
        assert.equal(answer.error, undefined);
        return answer;
    };
    return { where: await next(), ask, end: () => child.stdin.end() };
}

// The client warns where a frame does not keep to its schemas: nothing may be warned of.
function connect(baseUrl, more = {}) {
    const complaints = [];
    const complain = (...words) => complaints.push(words.map(String).join(" "));
    const logger = { debug() {}, info() {}, warn: complain, error: complain };
    return { client: new LMStudioClient({ baseUrl, logger, ...more }), complaints };
}

function row(model) {
    const { more, ...known } = model;
    return { ...known, indexedModelIdentifier: model.indexedModelIdentifier || model.path };
}

function ofInstance({ identifier, instanceReference, deviceIdentifier, ttlMs, lastUsedTime, contextLength }) {
    return { identifier, instanceReference, deviceIdentifier, ttlMs, lastUsedTime, contextLength };
}

// The older client does not know these, and drops them.
function told(row) {
    if (isNew) return row;
    const { publisher, indexedModelIdentifier, deviceIdentifier, ttlMs, lastUsedTime, variants, selectedVariant, ...old } = row;
    return old;
}

function sameConfig(seen, fields) {
    const whenChecked = (value) => (value.checked ? value.value : false);
    const whenEnabled = (value) => (value.enabled ? value : false);
    const names = {
        "llm.load.contextLength": (value) => same(seen.contextLength, value),
        "llm.load.numParallelSessions": (value) => same(seen.maxParallelPredictions, value),
        "llm.load.useUnifiedKvCache": (value) => same(seen.useUnifiedKvCache, value),
        "llm.load.offloadKVCacheToGpu": (value) => same(seen.offloadKVCacheToGpu, value),
        "llm.load.numExperts": (value) => same(seen.numExperts, value),
        "llm.load.llama.acceleration.offloadRatio": (value) => same(seen.gpu.ratio, value),
        "llm.load.llama.evalBatchSize": (value) => same(seen.evalBatchSize, value),
        "llm.load.llama.physicalBatchSize": (value) => same(seen.physicalBatchSize, value),
        "llm.load.llama.flashAttention": (value) => same(seen.flashAttention, value),
        "llm.load.llama.tryMmap": (value) => same(seen.tryMmap, value),
        "llm.load.llama.keepModelInMemory": (value) => same(seen.keepModelInMemory, value),
        "llm.load.llama.kCacheQuantizationType": (value) => same(seen.llamaKCacheQuantizationType, whenChecked(value)),
        "llm.load.llama.vCacheQuantizationType": (value) => same(seen.llamaVCacheQuantizationType, whenChecked(value)),
        "llm.load.mlx.kvCacheQuantization": (value) => same(seen.mlxKvCacheQuantization, whenEnabled(value)),
        "load.gpuSplitConfig": (value) => {
            same(seen.gpu.splitStrategy, value.strategy);
            same(seen.gpu.disabledGpus, value.disabledGpus);
        },
        "embedding.load.contextLength": (value) => same(seen.contextLength, value),
        // What this client does not show of an embedding model.
        "embedding.load.llama.acceleration.offloadRatio": () => {},
        "embedding.load.llama.evalBatchSize": () => {},
    };
    for (const { key, value } of fields) {
        assert.ok(names[key], `${key} is compared with nothing`);
        names[key](value);
    }
}

function same(seen, wanted) {
    // Keys that are there with nothing in them are as good as absent.
    const plain = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
    assert.deepEqual(plain(seen), plain(wanted));
    compared += 1;
}

async function rejects(promise, words) {
    // The older client draws a box around its errors, and breaks them in lines.
    const plain = (error) => error.message.replaceAll(/[│┌┐└┘─\s]+/g, " ");
    await assert.rejects(promise, (error) => {
        assert.match(plain(error), words);
        return true;
    });
    compared += 1;
}
