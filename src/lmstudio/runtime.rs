//! Which llama.cpp LM Studio runs: the runtime selected for GGUF files, what it computes on, what is
//! set for it, and the build that its release notes name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::loose::white_listed;
use super::saved::{fields, split_config};
use crate::memory::Build;

/// The list in `hardware-config.json` is looked at so far.
const RUNTIMES: usize = 1_000;

/// A runtime as LM Studio lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    name: String,
    version: String,
}

/// The selected runtime and what is set for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelectedRuntime {
    /// The name of its folder: its name and version.
    pub folder: String,
    /// What it computes on beside the CPU.
    pub accelerator: Accelerator,
    /// Each model has an engine process of its own; nothing where its manifest does not tell.
    pub has_own_process: Option<bool>,
    /// What is set for it in LM Studio.
    pub hardware: HardwareSettings,
}

/// What a runtime computes on beside the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// It is not known.
    #[default]
    Unknown,
    /// Nothing: no layer can be offloaded.
    None,
    /// NVIDIA's CUDA.
    Cuda,
    /// Vulkan.
    Vulkan,
    /// AMD's `ROCm`.
    Rocm,
    /// Apple's Metal.
    Metal,
    /// Something else.
    Other,
}

/// What `hardware-config.json` sets for a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HardwareSettings {
    /// GPUs are ordered, weighted or left out.
    pub own_gpu_split: bool,
    /// The GPUs that are left out, by LM Studio's number.
    pub disabled_gpus: Vec<u32>,
    /// Layers are limited to dedicated GPU memory.
    pub strict_vram_cap: bool,
    /// `llm.load.offloadKVCacheToGpu`.
    pub offload_kv: Option<bool>,
}

/// What a runtime's `backend-manifest.json` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it computes on beside the CPU.
    pub accelerator: Accelerator,
    /// Each model has an engine process of its own.
    pub has_own_process: bool,
}

impl Runtime {
    /// Returns its name without a version, as LM Studio sets hardware for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what its name says that it computes on beside the CPU.
    pub fn accelerator(&self) -> Accelerator {
        accelerator_of(&self.name)
    }

    /// Returns the name of its folder below `extensions/backends`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// Returns what a runtime of this name, or in a folder of this name, computes on beside the CPU. A name
/// of LM Studio's own pattern that does not say is the CPU's.
pub fn accelerator_of(name: &str) -> Accelerator {
    let name = name.to_ascii_lowercase();
    let words = || name.split(['-', '_']);
    let says = |known: &[&str]| words().any(|word| known.iter().any(|known| word.starts_with(known)));
    if says(&["cuda"]) {
        Accelerator::Cuda
    } else if says(&["vulkan"]) {
        Accelerator::Vulkan
    } else if says(&["rocm", "hip"]) {
        Accelerator::Rocm
    } else if says(&["metal"]) {
        Accelerator::Metal
    } else if says(&["nvidia", "amd", "intel", "apple", "sycl", "oneapi", "opencl", "directml", "musa", "cann"]) {
        Accelerator::Other
    } else if name.starts_with("llama.cpp-") && says(&["x86", "x64", "arm64", "aarch64"]) {
        Accelerator::None
    } else {
        Accelerator::Unknown
    }
}

/// Reads `backend-preferences-v1.json`: a list of the runtimes selected, one a model format.
pub fn parse_preferences(text: &str) -> Option<Runtime> {
    let list: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let is_gguf = |entry: &&Value| entry.get("model_format").and_then(Value::as_str) == Some("gguf");
    let entry = list.as_array()?.iter().find(is_gguf)?;
    // They become a folder's name, so nothing in them may lead elsewhere.
    let plain = |key: &str| {
        let text = entry.get(key)?.as_str()?;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '+');
        (!text.is_empty() && text.len() <= 128 && text.chars().all(is_plain)).then(|| text.to_owned())
    };
    Some(Runtime { name: plain("name")?, version: plain("version")? })
}

/// Reads a runtime's `backend-manifest.json`.
pub fn parse_manifest(text: &str) -> Option<Manifest> {
    let values = white_listed(text, &["name", "gpu", "engine_protocol_server"]).ok()?;
    values.get("name")?.as_str()?;
    let accelerator = match values.get("gpu") {
        None | Some(Value::Null | Value::Bool(false)) => Accelerator::None,
        Some(gpu) => {
            let framework = gpu.get("framework").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
            match framework.as_str() {
                "cuda" => Accelerator::Cuda,
                "vulkan" => Accelerator::Vulkan,
                "rocm" | "hip" => Accelerator::Rocm,
                "metal" => Accelerator::Metal,
                _ => Accelerator::Other,
            }
        }
    };
    let server = values.get("engine_protocol_server").and_then(|server| server.get("runtime_kind"));
    Some(Manifest { accelerator, has_own_process: server.and_then(Value::as_str) == Some("llama-server") })
}

/// Reads what `hardware-config.json` sets for a runtime: a map in superjson's form, from the runtime's
/// name to a list of fields.
pub fn parse_hardware(text: &str, runtime: &Runtime) -> Option<HardwareSettings> {
    let values = white_listed(text, &["json"]).ok()?;
    let map = values.get("json")?;
    let set = match map {
        Value::Array(entries) => {
            let own = |entry: &&Value| entry.get(0).and_then(Value::as_str) == Some(&runtime.name);
            // Of two equal keys the last counts, as in a map.
            entries.iter().take(RUNTIMES).rfind(own)?.get(1)?
        }
        other => other.get(&runtime.name)?,
    };
    let load = fields(Some(set))?;
    let mut hardware = HardwareSettings { offload_kv: load.offload_kv_cache_to_gpu, ..HardwareSettings::default() };
    for field in set.get("fields").and_then(Value::as_array)?.iter().take(RUNTIMES) {
        match (field.get("key").and_then(Value::as_str), field.get("value")) {
            (Some("load.gpuSplitConfig"), Some(value)) => {
                (hardware.own_gpu_split, hardware.disabled_gpus) = split_config(value);
            }
            (Some("load.gpuStrictVramCap"), Some(value)) => {
                hardware.strict_vram_cap = super::loose::boolean(value) == Some(true);
            }
            _ => {}
        }
    }
    Some(hardware)
}

/// Reads `display-data.json` of a runtime's folder: release notes by language and version, in which
/// the release of llama.cpp is named.
pub fn parse_build(text: &str, runtime: &Runtime) -> Option<Build> {
    let languages: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let notes = languages.as_array()?.iter().filter_map(|language| language.get(1)?.get("releaseNotes")?.as_array());
    let own = |note: &&Value| note.get("version").and_then(Value::as_str) == Some(&runtime.version);
    notes.flatten().filter(own).find_map(|note| named_build(note.get("releaseNotes")?.as_str()?))
}

/// Returns the build of the first `llama.cpp release b9849` in a text.
fn named_build(text: &str) -> Option<Build> {
    text.split("llama.cpp release").skip(1).find_map(|rest| {
        // The number may be a link's text.
        let rest = rest.trim_start_matches([' ', '[', '`', '*', ':']).strip_prefix('b')?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
        digits.parse().ok().filter(|number| *number > 0).map(Build)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFERENCES: &str = r#"[{"model_format":"safetensors","name":"mlx-llm","version":"1.9.0"},
        {"model_format":"gguf","name":"llama.cpp-linux-x86_64-nvidia-cuda12-avx2","version":"2.31.0"}]"#;

    fn display(version: &str, notes: &str) -> String {
        let language = serde_json::json!({
            "langKey": "en", "displayName": "CUDA 12 llama.cpp",
            "releaseNotes": [{"version": "2.30.1", "releaseNotes": "- llama.cpp release b9010"},
                {"version": version, "releaseNotes": notes}],
        });
        serde_json::json!([["en", language]]).to_string()
    }

    #[test]
    fn the_build_is_that_of_the_selected_runtime() {
        let runtime = parse_preferences(PREFERENCES).expect("a runtime");
        assert_eq!(runtime.folder(), "llama.cpp-linux-x86_64-nvidia-cuda12-avx2-2.31.0");
        for notes in ["- llama.cpp release b9849 (commit 0123abc)", "llama.cpp release [b9849](https://x)"] {
            assert_eq!(parse_build(&display("2.31.0", notes), &runtime), Some(Build(9_849)), "{notes}");
        }
    }

    #[test]
    fn what_names_no_build_is_no_build() {
        let runtime = parse_preferences(PREFERENCES).expect("a runtime");
        let texts = ["", "[]", "[[\"en\"]]", "{}", &display("2.32.0", "llama.cpp release b9849")];
        let silent = ["faster", "llama.cpp release", "llama.cpp release b", "llama.cpp release b99999999999"];
        let silent = silent.map(|notes| display("2.31.0", notes));
        for text in texts.into_iter().chain(silent.iter().map(String::as_str)) {
            assert_eq!(parse_build(text, &runtime), None, "{text}");
        }
    }

    fn named(name: &str) -> Runtime {
        Runtime { name: name.into(), version: "2.31.0".into() }
    }

    #[test]
    fn a_runtimes_name_says_what_it_computes_on() {
        for (name, expected) in [
            ("llama.cpp-linux-x86_64-nvidia-cuda12-avx2", Accelerator::Cuda),
            ("llama.cpp-win-x86_64-nvidia-cuda13-avx2", Accelerator::Cuda),
            ("llama.cpp-linux-x86_64-vulkan-avx2", Accelerator::Vulkan),
            ("llama.cpp-linux-x86_64-amd-rocm-avx2", Accelerator::Rocm),
            ("llama.cpp-mac-arm64-apple-metal-advsimd", Accelerator::Metal),
            ("llama.cpp-win-x86_64-intel-sycl", Accelerator::Other),
            ("llama.cpp-win-x86_64-avx2", Accelerator::None),
            ("llama.cpp-linux-arm64", Accelerator::None),
            ("my-own-engine", Accelerator::Unknown),
        ] {
            assert_eq!(named(name).accelerator(), expected, "{name}");
        }
    }

    #[test]
    fn a_manifest_without_a_gpu_is_the_cpus() {
        let manifest = |more: &str| parse_manifest(&format!("{{\"name\": \"x\", \"engine\": \"llama.cpp\"{more}}}"));
        let cpu = Manifest { accelerator: Accelerator::None, has_own_process: false };
        assert_eq!(manifest(""), Some(cpu));
        assert_eq!(manifest(r#", "gpu": null"#), Some(cpu));
        let cuda = r#", "gpu": {"make": "Nvidia", "framework": "CUDA"},
            "engine_protocol_server": {"runtime_kind": "llama-server"}"#;
        assert_eq!(manifest(cuda), Some(Manifest { accelerator: Accelerator::Cuda, has_own_process: true }));
        assert_eq!(manifest(r#", "gpu": {"framework": 7}"#).unwrap().accelerator, Accelerator::Other);
        for broken in ["", "[]", "{}", "{\"name\": 1}", "{\"name\": \"x\""] {
            assert_eq!(parse_manifest(broken), None, "{broken}");
        }
    }

    #[test]
    fn hardware_is_set_for_a_runtime_by_name() {
        let fields = serde_json::json!([
            { "key": "load.gpuSplitConfig", "value": { "strategy": "evenly", "disabledGpus": [1, "2", -1, "x"] } },
            { "key": "load.gpuStrictVramCap", "value": "true" },
            { "key": "llm.load.offloadKVCacheToGpu", "value": false },
        ]);
        let expected = HardwareSettings {
            own_gpu_split: true,
            disabled_gpus: vec![1, 2],
            strict_vram_cap: true,
            offload_kv: Some(false),
        };
        let list = serde_json::json!({ "json": [["other", { "fields": [] }], ["mine", { "fields": fields }]] });
        let object = serde_json::json!({ "json": { "mine": { "fields": fields } }, "meta": {} });
        for text in [list.to_string(), object.to_string()] {
            assert_eq!(parse_hardware(&text, &named("mine")), Some(expected.clone()));
            assert_eq!(parse_hardware(&text, &named("nobody")), None);
        }
        let even = r#"{"json": [["mine", {"fields": [{"key": "load.gpuSplitConfig", "value":
            {"strategy": "evenly", "disabledGpus": [], "priority": [], "customRatio": []}}]}]], "meta": {"values": ["map"]}}"#;
        assert_eq!(parse_hardware(even, &named("mine")), Some(HardwareSettings::default()));
        for broken in ["", "{}", "[]", "{\"json\": 1}", "{\"json\": [[1], [\"mine\"], [\"mine\", 3]]}"] {
            assert!(
                parse_hardware(broken, &named("mine")).is_none_or(|set| set == HardwareSettings::default()),
                "{broken}"
            );
        }
    }

    #[test]
    fn a_runtime_whose_folder_would_lie_elsewhere_is_none() {
        for name in ["", "../x", "a/b", "a\\\\b", "C:x"] {
            let text = format!(r#"[{{"model_format":"gguf","name":"{name}","version":"1"}}]"#);
            assert_eq!(parse_preferences(&text), None, "{name}");
        }
    }
}
