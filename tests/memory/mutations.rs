//! Headers of real models, spoilt: tensors missing, twice or of absurd shapes, keys missing, absurd
//! or of another architecture.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fitwatch::gguf::{Header, TensorType, Value};
use fitwatch::memory::{Backend, CacheType, Devices, FlashAttention, Gpu, GpuLayers, Settings};
use fitwatch::units::Bytes;
use proptest::prelude::*;

use super::truth::headers;

/// The headers of the sample.
pub(crate) static HEADERS: LazyLock<Vec<Header>> = LazyLock::new(|| headers().into_values().collect());

/// Returns a real header.
pub(crate) fn real() -> impl Strategy<Value = &'static Header> {
    (0..HEADERS.len()).prop_map(|index| &HEADERS[index])
}

/// One way of spoiling a header. Places are shares of what there is, so that each fits any header.
#[derive(Clone, Debug)]
enum Mutation {
    Drop(f64),
    /// All tensors whose names end like one of them.
    DropRole(f64),
    Double(f64),
    Resize(f64, usize, u64),
    Retype(f64, u32),
    Rename(f64, f64),
    Forget(f64),
    Set(f64, Value),
    /// A key of any architecture, under this one's name.
    Add(f64, f64, Value),
    Blocks(u64),
    Experts(u64),
    /// The keys and tensors stay, the graph is another's.
    Architecture(f64),
}

/// Returns real headers, spoilt in up to a dozen places.
pub(crate) fn spoilt() -> impl Strategy<Value = Header> {
    (real(), prop::collection::vec(mutation(), 1..12)).prop_map(|(header, mutations)| {
        let mut header = header.clone();
        for mutation in mutations {
            mutation.apply(&mut header);
        }
        header
    })
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || 0.0..1.0;
    prop_oneof![
        2 => at().prop_map(Mutation::Drop),
        2 => at().prop_map(Mutation::DropRole),
        1 => at().prop_map(Mutation::Double),
        3 => (at(), 0usize..4, absurd()).prop_map(|(at, dim, size)| Mutation::Resize(at, dim, size)),
        1 => (at(), 0u32..45).prop_map(|(at, kind)| Mutation::Retype(at, kind)),
        1 => (at(), at()).prop_map(|(at, like)| Mutation::Rename(at, like)),
        2 => at().prop_map(Mutation::Forget),
        4 => (at(), value()).prop_map(|(at, value)| Mutation::Set(at, value)),
        2 => (at(), at(), value()).prop_map(|(header, key, value)| Mutation::Add(header, key, value)),
        1 => absurd().prop_map(Mutation::Blocks),
        1 => absurd().prop_map(Mutation::Experts),
        2 => at().prop_map(Mutation::Architecture),
    ]
}

fn absurd() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..300,
        2 => prop::sample::select(vec![0, 1, 31, 33, 255, 257, 4_095, 4_096, 65_537, 1 << 24]),
        1 => prop::sample::select(vec![u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX, i64::MAX as u64]),
        1 => any::<u64>(),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![absurd().prop_map(|number| number as f64), any::<f64>()];
    prop_oneof![
        6 => absurd().prop_map(Value::Unsigned),
        1 => any::<i64>().prop_map(Value::Signed),
        1 => number().prop_map(Value::Float),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "[a-z]{0,8}".prop_map(|text| Value::Text(text.into())),
        2 => prop::collection::vec(number(), 0..70).prop_map(Value::Numbers),
        1 => absurd().prop_map(Value::Skipped),
    ]
}

/// Returns the index that a share points at.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares lie within 0 and 1")]
fn index(share: f64, length: usize) -> usize {
    ((share * length as f64) as usize).min(length.saturating_sub(1))
}

impl Mutation {
    fn apply(self, header: &mut Header) {
        let tensors = header.tensors.len();
        let keys = header.metadata.0.len();
        let key = |header: &Header, at: f64| header.metadata.0.keys().nth(index(at, keys)).cloned();
        match self {
            Mutation::Set(at, value) => {
                let Some(key) = key(header, at) else { return };
                header.metadata.0.insert(key, value);
            }
            Mutation::Forget(at) => {
                let Some(key) = key(header, at) else { return };
                header.metadata.0.remove(&key);
            }
            Mutation::Add(other, at, value) => {
                let other = &HEADERS[index(other, HEADERS.len())].metadata.0;
                let name = other.keys().nth(index(at, other.len())).and_then(|key| key.split_once('.'));
                let architecture = header.architecture().unwrap_or("llama").to_owned();
                if let Some((_, name)) = name {
                    header.metadata.0.insert(format!("{architecture}.{name}").into(), value);
                }
            }
            Mutation::Blocks(count) => set(header, "block_count", count),
            Mutation::Experts(count) => set(header, "expert_count", count),
            Mutation::Architecture(other) => {
                let name = HEADERS[index(other, HEADERS.len())].architecture().unwrap_or("llama").to_owned();
                rename(header, &name);
            }
            _ if tensors == 0 => {}
            Mutation::Drop(at) => drop(header.tensors.remove(index(at, tensors))),
            Mutation::DropRole(at) => {
                let name = header.tensors[index(at, tensors)].name.clone();
                let role = name.rsplit('.').nth(1).unwrap_or(&name).to_owned();
                header.tensors.retain(|tensor| tensor.name.rsplit('.').nth(1) != Some(&role));
            }
            Mutation::Double(at) => header.tensors.push(header.tensors[index(at, tensors)].clone()),
            Mutation::Resize(at, dim, size) => header.tensors[index(at, tensors)].dims[dim] = size,
            Mutation::Retype(at, kind) => header.tensors[index(at, tensors)].kind = TensorType(kind),
            Mutation::Rename(at, like) => {
                let name = header.tensors[index(like, tensors)].name.clone();
                header.tensors[index(at, tensors)].name = name;
            }
        }
    }
}

fn set(header: &mut Header, key: &str, number: u64) {
    let architecture = header.architecture().unwrap_or("llama").to_owned();
    header.metadata.0.insert(format!("{architecture}.{key}").into(), Value::Unsigned(number));
}

/// Gives a header another architecture, with the keys that go by its name.
fn rename(header: &mut Header, name: &str) {
    let before = format!("{}.", header.architecture().unwrap_or("llama"));
    let renamed = std::mem::take(&mut header.metadata.0).into_iter().map(|(key, value)| {
        let rest = key.strip_prefix(before.as_str()).map(|rest| format!("{name}.{rest}").into());
        (rest.unwrap_or(key), value)
    });
    header.metadata.0 = renamed.collect::<BTreeMap<Box<str>, Value>>();
    header.metadata.0.insert("general.architecture".into(), Value::Text(name.into()));
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => prop::sample::select(vec![1u32, 64, 100, 512, 2_048, 4_096, 10_000, 32_768, 131_072]),
        1 => prop::sample::select(vec![0, u32::MAX, u32::MAX - 255]),
        1 => any::<u32>(),
    ]
}

prop_compose! {
    /// Any settings, sensible or not.
    pub(crate) fn settings()(
        sizes in (size(), size(), size()),
        parallel in prop_oneof![4 => 1u32..9, 1 => any::<u32>(), 1 => 200u32..300],
        types in (prop::sample::select(CacheType::ALL.to_vec()), prop::sample::select(CacheType::ALL.to_vec())),
        flash in prop::sample::select(vec![FlashAttention::On, FlashAttention::Off, FlashAttention::Auto]),
        layers in prop_oneof![Just(GpuLayers::All), (0u32..70).prop_map(GpuLayers::Count), any::<u32>().prop_map(GpuLayers::Count)],
        cpu_moe in prop_oneof![2 => Just(0), 2 => 0u32..70, 1 => any::<u32>()],
        flags in prop::array::uniform6(any::<bool>()),
    ) -> Settings {
        Settings {
            context: sizes.0,
            batch: sizes.1,
            ubatch: sizes.2,
            parallel,
            unified_kv: flags[0],
            cache_type_k: types.0,
            cache_type_v: types.1,
            flash_attention: flash,
            gpu_layers: layers,
            cpu_moe,
            offload_kv: flags[1],
            swa_full: flags[2],
            mmap: flags[3],
            embeddings: flags[4],
            mtp: flags[5],
        }
    }
}

/// Any devices, sensible or not.
pub(crate) fn devices() -> impl Strategy<Value = Devices> {
    let kinds = vec![Backend::None, Backend::Cuda, Backend::Cuda, Backend::Rocm, Backend::Vulkan, Backend::Metal];
    let memory = prop_oneof![4 => (1u64..80).prop_map(|gib| gib << 30), 1 => any::<u64>(), 1 => Just(0)];
    (prop::sample::select(kinds), prop::collection::vec(memory, 0..4)).prop_map(|(backend, memory)| Devices {
        backend,
        gpus: memory
            .into_iter()
            .map(|bytes| Gpu { name: "GPU".into(), memory: Bytes(bytes), overhead: None })
            .collect(),
    })
}
