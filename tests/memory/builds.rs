//! What builds of llama.cpp differ in: compute buffers that real engines of many builds allocated
//! without a GPU, and a few that logs of real cards show.

use std::collections::BTreeMap;

use fitwatch::memory::{
    Backend, Build, CacheType, Devices, Engine, EngineProfile, FlashAttention, Gpu, Part, Pool, Settings, bill,
};
use fitwatch::units::Bytes;
use serde::Deserialize;

use crate::truth::{structure, structures};

/// A load, and the compute buffer of each build's server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    header: String,
    n_ctx: u32,
    flash_attn: String,
    #[serde(default = "one")]
    n_parallel: u32,
    #[serde(default = "unified")]
    kv_unified: bool,
    #[serde(default)]
    cache: Option<String>,
    compute: BTreeMap<u32, u64>,
}

fn one() -> u32 {
    1
}

fn unified() -> bool {
    true
}

fn cache_type(name: Option<&str>) -> CacheType {
    name.map_or(CacheType::F16, |name| CacheType::from_name(name).unwrap())
}

#[test]
fn every_build_reserves_what_it_did_on_a_real_machine() {
    let structures = structures();
    let mut wrong = Vec::new();
    for line in include_str!("../fixtures/truth/builds.jsonl").lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let settings = Settings {
            context: row.n_ctx,
            batch: 2_048,
            ubatch: 512,
            parallel: row.n_parallel,
            unified_kv: row.kv_unified,
            cache_type_k: cache_type(row.cache.as_deref()),
            cache_type_v: cache_type(row.cache.as_deref()),
            flash_attention: if row.flash_attn == "on" { FlashAttention::On } else { FlashAttention::Off },
            ..Settings::default()
        };
        for (&build, &bytes) in &row.compute {
            let mut profile = EngineProfile::of_build(Engine::Server, Build(build));
            profile.cpu_repack = false;
            let ours = bill(&structures[&row.header], None, &settings, &Devices::none(), &profile);
            let ours = ours.part(Part::Compute).0;
            if ours != bytes {
                wrong.push(format!("{line}\n  build {build}: {bytes}, not {ours}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn real_cards_show_what_their_build_reserves() {
    // Model, build, context, slots, cache, and the compute buffer on the GPU in hundredths of a MiB.
    let logs = [
        ("qwen3.5-9b-Q4_K_M", 8_571, 139_264, 2, None, 50_100),
        ("qwen3.5-9b-Q4_K_M", 8_571, 262_144, 2, Some("q8_0"), 80_802),
        ("llama-3.1-8b-Q4_K_M", 8_571, 8_192, 1, None, 25_850),
    ];
    for (name, build, context, parallel, cache, hundredths) in logs {
        let settings = Settings {
            context,
            batch: 2_048,
            ubatch: 512,
            parallel,
            cache_type_k: cache_type(cache),
            cache_type_v: cache_type(cache),
            ..Settings::default()
        };
        let gpu = Gpu { name: "GPU0".into(), memory: Bytes::GIB.saturating_mul(12), overhead: None };
        let devices = Devices { backend: Backend::Cuda, gpus: vec![gpu] };
        let profile = EngineProfile::of_build(Engine::Server, Build(build));
        let bill = bill(&structure(name), None, &settings, &devices, &profile);
        let compute = bill.lines.iter().find(|line| line.part == Part::Compute && line.pool == Pool::Gpu(0)).unwrap();
        assert_eq!((compute.bytes.0 * 100 + (1 << 19)) >> 20, hundredths, "{name}, build {build}, context {context}");
    }
}

#[test]
fn a_lent_device_is_asked_for_what_is_billed() {
    // What llama-server b10434 asked its RPC server for, beside the experts of one block in RAM.
    let settings = Settings { context: 8_192, batch: 2_048, cpu_moe: 1, ..Settings::default() };
    let gpu = Gpu { name: "RPC0".into(), memory: Bytes::GIB.saturating_mul(24), overhead: None };
    let devices = Devices { backend: Backend::Rpc, gpus: vec![gpu] };
    let profile = EngineProfile::of_build(Engine::Server, Build(10_434));
    let bill = bill(&structure("granite-4.0-h-tiny-Q4_K_M"), None, &settings, &devices, &profile);
    let lines = bill.lines.iter().filter(|line| line.pool == Pool::Gpu(0));
    let wanted = [
        (Part::Weights, 4_129_476_864),
        (Part::KvCache, 67_108_864),
        (Part::RecurrentState, 232_243_200),
        (Part::Compute, 63_096_896),
    ];
    assert_eq!(lines.map(|line| (line.part, line.bytes.0)).collect::<Vec<_>>(), wanted);
}

#[test]
fn a_profile_is_named_by_engine_and_build() {
    let named = |name: &str| name.parse::<EngineProfile>().ok();
    assert_eq!(named("server"), Some(EngineProfile::server()));
    assert_eq!(named("library"), Some(EngineProfile::library()));
    for name in ["server@9010", "library@b9010"] {
        let profile = named(name).unwrap();
        assert_eq!(profile.build, Build(9_010));
        assert_eq!(named(&profile.name), Some(profile));
    }
    for name in ["", "vllm", "server@", "server@0", "server@b", "server@9010x", "@9010", "server@9010@1", "Server"] {
        assert_eq!(named(name), None, "{name}");
    }
}
