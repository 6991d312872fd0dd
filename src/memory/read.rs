//! From a header to a [`Structure`].

use std::collections::BTreeMap;

use super::architecture::{self, Shown};
use super::hyper::Hyperparameters;
use super::keys::{Keys, MOST_BLOCKS, clamp};
use super::structure::{BlockKind, Dimensions, Kind, Memory, Structure, StructureError};
use super::tensor::{Role, Suffix, TensorShape};
use crate::gguf::{Header, Tensor, TensorType};

/// Takes from a header what the bill needs.
pub(super) fn structure(header: &Header) -> Result<Structure, StructureError> {
    let Some(architecture) = header.architecture() else {
        return Err(StructureError::MissingKey { key: "general.architecture".into() });
    };
    let keys = Keys::new(&header.metadata, architecture);
    let mut notes = header.notes.clone();
    if is_projector(header, architecture) {
        return Ok(projector_alone(header, architecture, notes));
    }
    let blocks = keys.required("block_count", MOST_BLOCKS)?;
    let mtp = keys.number("nextn_predict_layers").unwrap_or(0).min(blocks);
    let tensors = Tensors::sort(header, blocks, &mut notes)?;
    // What a WavTokenizer calls the length of its embeddings is that of what it puts out.
    let width = if architecture == "wavtokenizer-dec" { "features_length" } else { "embedding_length" };
    let embedding = keys.required(width, 1 << 24)?;

    let count = blocks as usize;
    let heads = keys.by_block("attention.head_count", count).unwrap_or_else(|| vec![0; count]);
    let heads_kv = keys.by_block("attention.head_count_kv", count).unwrap_or_else(|| heads.clone());
    let feed_forward = keys.by_block("feed_forward_length", count).unwrap_or_else(|| vec![0; count]);
    let experts_used = keys.by_block("expert_used_count", count).unwrap_or_else(|| vec![0; count]);
    let facts = architecture::Header {
        architecture,
        keys: &keys,
        blocks: count,
        trunk: (blocks - mtp) as usize,
        embedding,
        heads: &heads,
        heads_kv: &heads_kv,
        feed_forward: &feed_forward,
        shows: &tensors.shows,
    };
    let windows = architecture::windows(&facts);
    let remembered = architecture::remembered(&facts);
    notes.extend(remembered.notes.iter().cloned());
    let head = head_sizes(architecture, &keys, embedding, heads.first().copied().unwrap_or(0));

    let (layouts, layout_of) = unique(tensors.blocks);
    let (_, shape_of) = unique(layouts.iter().map(|layout| without_precision(layout)).collect());
    let limits = |key: &str, block: usize| {
        keys.floats(key).is_some_and(|limits| limits.get(block).or(limits.last()).is_some_and(|&limit| limit > 1e-6))
    };
    let stacked = architecture::stacked(&facts);
    // Without limits of their own, the shared experts of DeepSeek V4 and GLM 5 Next take those of the
    // others.
    let own =
        !matches!(architecture, "deepseek4" | "dflash" | "glm5-next") || keys.floats("swiglu_clamp_shexp").is_some();
    let shared_limits = if own { "swiglu_clamp_shexp" } else { "swiglu_clamp_exp" };
    let each = (0..count).map(|block| {
        let windowed = windows.blocks[block];
        let (head_k, head_v) = if windowed { head.windowed } else { head.full };
        BlockKind {
            layout: layout_of[block],
            shape: shape_of[usize::from(layout_of[block])],
            heads: heads[block],
            heads_kv: heads_kv[block],
            head_k,
            head_v,
            experts_used: experts_used[block],
            cached: remembered.cached[block],
            windowed,
            recurrent: remembered.recurrent[block],
            indexed: remembered.indexed[block],
            deepstack: stacked.blocks.get(block).copied().unwrap_or(false),
            nope: architecture::leaves_unturned(&facts, windows.tokens, block),
            compressed: remembered.compressed[block],
            clamps_shared: limits(shared_limits, block),
            clamps_experts: limits("swiglu_clamp_exp", block),
            mtp: block >= facts.trunk && facts.trunk > 0,
        }
    });
    let (kinds, pattern) = unique(each.collect());

    let mut structure = Structure {
        architecture: architecture.to_owned(),
        kind: kind(header, architecture, &keys, blocks == mtp),
        blocks,
        context_train: keys.number("context_length").unwrap_or(0),
        file_bytes: header.file_bytes,
        quantisation: header.metadata.file_type().map(str::to_owned),
        parameters: parameters(header),
        notes,
        dimensions: dimensions(
            header,
            architecture,
            &keys,
            embedding,
            windows.tokens,
            stacked.parts,
            remembered.indexer,
        ),
        memory: Memory {
            any: remembered.any,
            windowed: windows.blocks.contains(&true),
            keys_only: keys_only(&keys),
            state_r: remembered.state.0,
            state_s: remembered.state.1,
            causal: keys.flag("attention.causal").unwrap_or(remembered.any || architecture == "clef"),
        },
        hyper: Hyperparameters::read(&keys),
        globals: tensors.globals,
        layouts,
        kinds,
        pattern,
    };
    complete(&mut structure, &keys);
    Ok(structure)
}

/// Adds what a few architectures have beyond what the header lists.
fn complete(structure: &mut Structure, keys: &Keys) {
    if structure.architecture == "graniteswitch" {
        add_router(structure);
    }
    if let Some(width) = architecture::put_out(structure) {
        structure.dimensions.embedding_out = width;
    }
    if structure.architecture == "nanbeige" {
        unroll(structure, keys.number("num_loops").unwrap_or(1));
    }
}

/// Tensors sorted by block, with what they show.
struct Tensors {
    globals: Vec<TensorShape>,
    blocks: Vec<Vec<TensorShape>>,
    shows: Vec<Shown>,
}

impl Tensors {
    fn sort(header: &Header, blocks: u32, notes: &mut Vec<String>) -> Result<Tensors, StructureError> {
        let mut sorted = Tensors {
            globals: Vec::new(),
            blocks: vec![Vec::new(); blocks as usize],
            shows: vec![Shown::default(); blocks as usize],
        };
        let mut unknown = 0u32;
        let has_head = header.architecture() == Some("clef");
        for (index, tensor) in header.tensors.iter().enumerate() {
            let (block, stem) = split_block(&tensor.name);
            // An encoder's blocks share their numbers with the decoder's, and those of clef's head with
            // the others.
            let stack = match block {
                Some(_) if tensor.name.starts_with("enc.") => "enc.",
                Some(_) if has_head && tensor.name.starts_with("dec.") => "dec.",
                _ => "",
            };
            let (role, suffix) =
                if stack.is_empty() { split_role(stem) } else { split_role(&format!("{stack}{stem}")) };
            if role == Role::CrossAttnRelB {
                continue; // Stored by some t5 conversions, never loaded.
            }
            let shape = if tensor.kind.block().is_some() {
                TensorShape { role, suffix, kind: tensor.kind, dims: dims(tensor)? }
            } else {
                unknown += 1;
                stand_in(header, index, role, suffix)
            };
            match block.and_then(|block| Some((sorted.blocks.get_mut(block)?, sorted.shows.get_mut(block)?))) {
                Some((list, shown)) => {
                    shown.attention |=
                        stem.starts_with("attn_k") || stem.starts_with("attn_v") || role == Role::AttnQkv;
                    shown.recurrent |= ["ssm_", "time_mix_", "shortconv."].iter().any(|start| stem.starts_with(start));
                    list.push(shape);
                }
                None => sorted.globals.push(shape),
            }
        }
        if unknown > 0 {
            notes.push(format!("{unknown} tensors of unknown type are billed by their room in the file"));
        }
        sorted.blocks.iter_mut().for_each(|list| list.sort_unstable());
        sorted.globals.sort_unstable();
        Ok(sorted)
    }
}

/// Returns the block of a name such as `blk.3.attn_q.weight`, and what follows it.
fn split_block(name: &str) -> (Option<usize>, &str) {
    for prefix in ["blk.", "enc.blk.", "dec.blk.", "convnext.", "posnet."] {
        let Some((number, stem)) = name.strip_prefix(prefix).and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        if let Ok(block) = number.parse() {
            return (Some(block), stem);
        }
    }
    (None, name)
}

fn split_role(stem: &str) -> (Role, Suffix) {
    let (name, suffix) = match stem.rsplit_once('.') {
        Some((name, "weight")) => (name, Suffix::Weight),
        Some((name, "bias")) => (name, Suffix::Bias),
        Some((name, "scale") | (name @ "ffn.act", "scales")) => (name, Suffix::Scale),
        Some((name, "input_scale")) => (name, Suffix::Other),
        Some((name, "lora_a")) => (name, Suffix::LoraA),
        Some((name, "lora_b")) => (name, Suffix::LoraB),
        _ => (stem, Suffix::Other),
    };
    (Role::from_name(name), suffix)
}

fn dims(tensor: &Tensor) -> Result<[u32; 4], StructureError> {
    let mut dims = [1; 4];
    for (dim, &found) in dims.iter_mut().zip(&tensor.dims) {
        *dim = u32::try_from(found).map_err(|_| StructureError::OutOfRange {
            key: format!("a dimension of {}", tensor.name),
            value: found.to_string(),
            allowed: format!("at most {}", u32::MAX),
        })?;
    }
    Ok(dims)
}

/// Returns bytes as large as a tensor of unknown type has room in the file.
fn stand_in(header: &Header, index: usize, role: Role, suffix: Suffix) -> TensorShape {
    const BYTE: TensorType = TensorType(24);
    const ROW: u64 = 1 << 16;
    let offset = header.tensors[index].offset;
    let end = header.tensors.iter().map(|tensor| tensor.offset).filter(|&other| other > offset).min();
    let end = end.unwrap_or_else(|| header.file_bytes.0.saturating_sub(header.data_offset));
    let room = end.saturating_sub(offset);
    let row = room.min(ROW);
    let rows = room.div_ceil(row.max(1));
    TensorShape { role, suffix, kind: BYTE, dims: [clamp(row), clamp(rows.max(1)), 1, 1] }
}

/// Returns each different value once, and for each value given the index of its like.
fn unique<T: Ord + Clone>(values: Vec<T>) -> (Vec<T>, Vec<u16>) {
    let mut found = BTreeMap::new();
    let mut list = Vec::new();
    let indices = values.into_iter().map(|value| {
        // No more than MOST_BLOCKS values are ever given, so an index fits.
        *found.entry(value).or_insert_with_key(|value| {
            list.push(value.clone());
            u16::try_from(list.len() - 1).unwrap_or(u16::MAX)
        })
    });
    let indices = indices.collect();
    list.shrink_to_fit();
    (list, indices)
}

/// Returns a layout without what back-ends do not tell apart: quantised matrices are alike. Of those
/// that may be computed together, gates and `up`s of routed and shared experts, it is kept which
/// are of one type.
fn without_precision(layout: &[TensorShape]) -> Vec<TensorShape> {
    const ANY: [TensorType; 4] = [TensorType(2), TensorType(3), TensorType(6), TensorType(7)];
    const TOGETHER: [Role; 4] = [Role::FfnUpExps, Role::FfnGateExps, Role::FfnUpShexp, Role::FfnGateShexp];
    let shares = layout.iter().any(|tensor| tensor.role == Role::FfnUpShexp);
    let is_together = |tensor: &&TensorShape| shares && TOGETHER.contains(&tensor.role) && tensor.kind.is_quantised();
    let alike = |tensor: &TensorShape| {
        let mut kind = tensor.kind;
        if is_together(&tensor) {
            let of_one_type = layout.iter().filter(is_together).position(|other| other.kind == tensor.kind);
            kind = of_one_type.and_then(|first| ANY.get(first)).copied().unwrap_or(kind);
        } else if kind.is_quantised() {
            kind = ANY[0];
        }
        TensorShape { kind, ..*tensor }
    };
    layout.iter().map(alike).collect()
}

/// The widths of a key and a value head, in full and in windowed blocks.
struct HeadSizes {
    full: (u32, u32),
    windowed: (u32, u32),
}

fn head_sizes(architecture: &str, keys: &Keys, embedding: u32, heads: u32) -> HeadSizes {
    let key = keys.number("attention.key_length");
    let value = keys.number("attention.value_length");
    // llama.cpp reads the lengths only where block 0 has heads; plamo2 reads them again.
    let full = match embedding.checked_div(heads) {
        Some(width) => (key.unwrap_or(width), value.unwrap_or(width)),
        None if architecture == "plamo2" => (key.unwrap_or(0), value.unwrap_or(0)),
        None => (0, 0),
    };
    let windowed = (
        keys.number("attention.key_length_swa").unwrap_or(full.0),
        keys.number("attention.value_length_swa").unwrap_or(full.1),
    );
    HeadSizes { full, windowed }
}

/// Returns whether values are a view of the keys: `is_mla` in `llama-hparams.cpp`.
fn keys_only(keys: &Keys) -> bool {
    let has = |key: &str| keys.number(key).is_some_and(|width| width != 0);
    has("attention.key_length_mla") && has("attention.value_length_mla")
}

fn dimensions(
    header: &Header,
    architecture: &str,
    keys: &Keys,
    embedding: u32,
    window: u32,
    deepstack: u32,
    indexer: (u32, u32),
) -> Dimensions {
    let tokens = header.metadata.array_len("tokenizer.ggml.tokens").map(clamp);
    // A ModernBERT with a decision head puts out a score for each type of question.
    let decides =
        architecture == "modern-bert" && keys.number("decision.block_count").is_some_and(|blocks| blocks != 0);
    let rows = header.tensors.iter().find(|tensor| &*tensor.name == "token_embd.weight");
    Dimensions {
        embedding,
        embedding_out: match architecture {
            _ if decides => 3,
            "wavtokenizer-dec" => keys.number("embedding_length").unwrap_or(embedding),
            // All residual streams.
            "deepseek4" | "qwen4exp" => keys.number("hyper_connection.count").unwrap_or(1).saturating_mul(embedding),
            _ => keys.number("embedding_length_out").unwrap_or(embedding),
        },
        vocabulary: tokens
            .or_else(|| keys.number("vocab_size"))
            .or_else(|| rows.map(|tensor| clamp(tensor.dims[1])))
            .unwrap_or(0),
        experts: keys.number("expert_count").unwrap_or(0),
        window,
        per_layer_embedding: keys.number("embedding_length_per_layer_input").unwrap_or(0),
        deepstack,
        indexer: indexer.0,
        indexer_value: indexer.1,
    }
}

fn kind(header: &Header, architecture: &str, keys: &Keys, only_mtp: bool) -> Kind {
    let stated = header.metadata.text("general.type").unwrap_or("model");
    let pools = keys.number("pooling_type").is_some_and(|kind| kind != 0);
    if only_mtp || architecture::is_drafter(architecture) || matches!(stated, "draft" | "drafter" | "mtp") {
        Kind::Drafter
    } else if pools || architecture::is_encoder(architecture) {
        Kind::Embedding
    } else {
        Kind::Language
    }
}

fn is_projector(header: &Header, architecture: &str) -> bool {
    architecture == "clip" || header.metadata.text("general.type") == Some("mmproj")
}

/// Returns the structure of a projector file: what names it, and no tensors, as a
/// [`super::Projector`] is what bills it.
fn projector_alone(header: &Header, architecture: &str, notes: Vec<String>) -> Structure {
    Structure {
        architecture: architecture.to_owned(),
        kind: Kind::Projector,
        blocks: 0,
        context_train: 0,
        file_bytes: header.file_bytes,
        quantisation: header.metadata.file_type().map(str::to_owned),
        parameters: parameters(header),
        notes,
        dimensions: Dimensions::default(),
        memory: Memory::default(),
        hyper: Hyperparameters::default(),
        globals: Vec::new(),
        layouts: Vec::new(),
        kinds: Vec::new(),
        pattern: Vec::new(),
    }
}

fn parameters(header: &Header) -> u64 {
    let elements = |tensor: &Tensor| tensor.dims.iter().fold(1u64, |product, &dim| product.saturating_mul(dim));
    header.tensors.iter().map(elements).fold(0, u64::saturating_add)
}

/// Repeats the blocks of a looped model: each round has caches of its own but shares the weights.
fn unroll(structure: &mut Structure, loops: u32) {
    let rounds = loops.clamp(1, MOST_BLOCKS / structure.blocks.max(1));
    let shared = u16::try_from(structure.layouts.len()).unwrap_or(u16::MAX);
    structure.layouts.push(Vec::new());
    let kinds = structure.kinds.len();
    let weightless: Vec<BlockKind> = structure.kinds.iter().map(|kind| BlockKind { layout: shared, ..*kind }).collect();
    structure.kinds.extend(weightless);
    let round = structure.pattern.clone();
    for _ in 1..rounds {
        structure.pattern.extend(round.iter().map(|&kind| kind + u16::try_from(kinds).unwrap_or(0)));
    }
    structure.blocks = structure.blocks.saturating_mul(rounds);
}

/// Adds the block that remembers which adapter each token asked for: a cache of one head, which
/// llama.cpp counts among the blocks behind the trunk (`router_layer`).
fn add_router(structure: &mut Structure) {
    let Some(&last) = structure.block_kinds().last() else { return };
    let layout = u16::try_from(structure.layouts.len()).unwrap_or(u16::MAX);
    let kind = u16::try_from(structure.kinds.len()).unwrap_or(u16::MAX);
    structure.layouts.push(Vec::new());
    structure.kinds.push(BlockKind { layout, heads: 1, heads_kv: 1, cached: true, mtp: true, ..last });
    structure.pattern.push(kind);
    structure.blocks = structure.blocks.saturating_add(1);
}
