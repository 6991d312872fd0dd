//! Which blocks have a KV cache and which a recurrent state.

use super::Header;
use super::names::is_known;

/// What the blocks of a model remember.
#[derive(Debug, Default)]
pub(in crate::memory) struct Remembered {
    /// Whether there is a memory at all.
    pub(in crate::memory) any: bool,
    /// Blocks with a KV cache of their own.
    pub(in crate::memory) cached: Vec<bool>,
    /// Blocks with a recurrent state.
    pub(in crate::memory) recurrent: Vec<bool>,
    /// Blocks with an indexer cache.
    pub(in crate::memory) indexed: Vec<bool>,
    /// Tokens that each block compresses into one cached row, 0 for none.
    pub(in crate::memory) compressed: Vec<u16>,
    /// Width of a cached indexer key, and of the value kept beside it.
    pub(in crate::memory) indexer: (u32, u32),
    /// Elements of the convolution and of the recurrent state, of one block and slot.
    pub(in crate::memory) state: (u64, u64),
    /// What is only assumed, in words for the user.
    pub(in crate::memory) notes: Vec<String>,
}

/// How a family divides its blocks (`create_memory` in `llama-model.cpp`).
enum Rule {
    /// Encoders and diffusion models: nothing.
    Nothing,
    /// A state in every block.
    Recurrent,
    /// A state where `head_count_kv` is 0, a cache elsewhere.
    ByHeads,
    /// Both in every block.
    Both,
    /// A cache in each n-th block unless the file lists the recurrent ones.
    Interval(u32),
    /// A state, a cache, or a feed-forward network alone.
    ByFeedForward,
    /// A cache in the first blocks only, the rest share theirs.
    First(u32),
    /// A cache in all but the last blocks, which share theirs (`shared_kv_layers`).
    Shared,
    /// Caches, but another model's.
    Borrowed,
    /// A cache in every block.
    Attention,
    /// What the tensors show.
    Unknown,
}

fn rule(architecture: &str) -> Rule {
    match architecture {
        "bert" | "jina-bert-v2" | "jina-bert-v3" | "nomic-bert" | "nomic-bert-moe" | "neo-bert" | "eurobert"
        | "wavtokenizer-dec" | "modern-bert" | "gemma-embedding" | "dream" | "llada" | "llada-moe" | "rnd1"
        | "clef" => Rule::Nothing,
        "mamba" | "mamba2" | "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => Rule::Recurrent,
        "jamba" | "plamo2" | "granitehybrid" | "lfm2" | "lfm2moe" | "kimi-linear" | "kimi-k3" | "bailingmoe3"
        | "glm5-next" => Rule::ByHeads,
        "falcon-h1" => Rule::Both,
        "qwen3next" | "qwen35" | "qwen35moe" | "qwen4exp" => Rule::Interval(4),
        "minimax-01" => Rule::Interval(8),
        "nemotron_h" | "nemotron_h_moe" => Rule::ByFeedForward,
        // The count is fixed in `gemma3n.cpp`, whatever `shared_kv_layers` says.
        "gemma3n" => Rule::First(20),
        "gemma4" => Rule::Shared,
        "gemma4-assistant" => Rule::Borrowed,
        name if is_known(name) => Rule::Attention,
        _ => Rule::Unknown,
    }
}

/// Returns what the blocks of a model remember.
pub(in crate::memory) fn remembered(header: &Header) -> Remembered {
    let (blocks, trunk) = (header.blocks, header.trunk);
    let each = |rule: &dyn Fn(usize) -> bool| (0..blocks).map(rule).collect::<Vec<bool>>();
    let rule = rule(header.architecture);
    // Plain caches leave the MTP blocks out, unless the file holds nothing else.
    let in_trunk = |block: usize| trunk == 0 || block < trunk;
    let recurrent = match rule {
        Rule::Nothing | Rule::First(_) | Rule::Shared | Rule::Borrowed | Rule::Attention => vec![false; blocks],
        Rule::Recurrent | Rule::Both => each(&|block| block < trunk),
        Rule::ByHeads => each(&|block| block < trunk && header.heads_kv[block] == 0),
        Rule::Interval(every) => {
            let listed = header.keys.by_block("attention.recurrent_layers", blocks);
            let every = header.keys.number("full_attention_interval").unwrap_or(every).max(1) as usize;
            each(&|block| {
                block < trunk && listed.as_ref().map_or(!(block + 1).is_multiple_of(every), |listed| listed[block] != 0)
            })
        }
        Rule::ByFeedForward => {
            each(&|block| block < trunk && header.heads_kv[block] == 0 && header.feed_forward[block] == 0)
        }
        Rule::Unknown => each(&|block| header.shows[block].recurrent),
    };
    let cached = match rule {
        Rule::Nothing | Rule::Recurrent | Rule::Borrowed => vec![false; blocks],
        Rule::Both | Rule::Attention => each(&in_trunk),
        // A hybrid's filter asks for "not recurrent" alone, so an MTP block keeps its cache there.
        Rule::ByHeads => each(&|block| !recurrent[block] && (header.architecture != "glm5-next" || block < trunk)),
        Rule::Interval(_) => each(&|block| block < trunk && !recurrent[block]),
        Rule::ByFeedForward => each(&|block| !recurrent[block] && header.feed_forward[block] == 0),
        Rule::First(count) => each(&|block| in_trunk(block) && block < count as usize),
        Rule::Shared => {
            let shared = header.keys.number("attention.shared_kv_layers").unwrap_or(0) as usize;
            each(&|block| in_trunk(block) && block < blocks.saturating_sub(shared))
        }
        // Fused or unnamed projections hide attention; a block that shows no state gets a cache.
        Rule::Unknown => each(&|block| header.shows[block].attention || !header.shows[block].recurrent),
    };
    let (indexed, widths) = indexer(header, &recurrent);
    let mut found = Remembered {
        any: !matches!(rule, Rule::Nothing),
        cached,
        recurrent,
        indexed,
        compressed: compressed(header),
        indexer: widths,
        state: state(header),
        notes: Vec::new(),
    };
    assumed(header, &rule, &mut found.notes);
    found
}

/// Returns the elements of one block's states: `n_embd_r` and `n_embd_s` in `llama-hparams.cpp`.
fn state(header: &Header) -> (u64, u64) {
    let number = |key: &str| u64::from(header.keys.number(key).unwrap_or(0));
    let embedding = u64::from(header.embedding);
    let heads = u64::from(header.heads.first().copied().unwrap_or(0));
    let product = |numbers: &[u64]| numbers.iter().fold(1u64, |product, &number| product.saturating_mul(number));
    let wkv = number("wkv.head_size");
    if wkv != 0 {
        let shifts = header.keys.number("token_shift_count").unwrap_or(2);
        return (product(&[u64::from(shifts), embedding]), product(&[embedding, wkv]));
    }
    let shortconv = number("shortconv.l_cache");
    if shortconv != 0 {
        return (product(&[embedding, shortconv - 1]), 0);
    }
    let kernel = number("ssm.conv_kernel");
    let kda = number("kda.head_dim");
    if kda != 0 {
        let taps = if kernel == 0 { 3 } else { kernel - 1 };
        return (product(&[3, taps, heads, kda]), product(&[kda, kda, heads]));
    }
    let (inner, width) = (number("ssm.inner_size"), number("ssm.state_size"));
    let groups = product(&[2, number("ssm.group_count"), width]);
    let convolution = product(&[kernel.saturating_sub(1), inner.saturating_add(groups)]);
    if header.architecture == "minimax-01" {
        let head = number("attention.key_length");
        return (convolution, product(&[head, head, heads]));
    }
    (convolution, product(&[width, inner]))
}

/// Returns which blocks have an indexer cache (sparse attention), and how wide its key and value
/// are: `llama-kv-cache-dsa.cpp`, `-msa.cpp`, `llama-memory-hybrid-idx.cpp`.
fn indexer(header: &Header, recurrent: &[bool]) -> (Vec<bool>, (u32, u32)) {
    let key = header.keys.number("attention.indexer.key_length").unwrap_or(0);
    let none = (vec![false; header.blocks], (0, 0));
    if key == 0 {
        return none;
    }
    let each =
        |rule: &dyn Fn(usize) -> bool| (0..header.blocks).map(|block| block < header.trunk && rule(block)).collect();
    let listed = header.keys.by_block("attention.indexer.types", header.blocks);
    let full = |block: usize| listed.as_ref().is_none_or(|listed| listed[block] != 0);
    match header.architecture {
        "deepseek32" => (each(&|_| true), (key, 0)),
        // Without a number of cells to pick, attention is full and the indexer's keys unused.
        "hy_v4" if header.keys.number("attention.indexer.top_k").unwrap_or(0) == 0 => none,
        "hy_v4" | "dots3note" => (each(&full), (key, 0)),
        // From GLM 5.2 on, told by its context, only blocks 0, 1, 2 and each fourth from there.
        "deepseek4" => (compressed(header).into_iter().map(|ratio| ratio == 4).collect(), (key, 0)),
        "glm-dsa" => {
            let early = header.keys.number("context_length").unwrap_or(0) < 1 << 20;
            let default = |block: usize| early || block < 2 || (block - 2).is_multiple_of(4);
            (each(&|block| listed.as_ref().map_or_else(|| default(block), |listed| listed[block] != 0)), (key, 0))
        }
        // Three rows a token where keys are pooled.
        "glm5-next" => (each(&|block| header.heads_kv[block] != 0 && full(block)), (key.saturating_mul(3), 0)),
        // Two where they are.
        "qwen4exp" => {
            let rows = if compressed(header).iter().any(|&ratio| ratio != 0) { 2 } else { 1 };
            (each(&|block| !recurrent[block]), (key.saturating_mul(rows), 0))
        }
        // Keeps a value beside the key, one head wide.
        "minimax-m3" => {
            let dense = header.keys.number("leading_dense_block_count").unwrap_or(0) as usize;
            let value = header.keys.number("attention.value_length").unwrap_or(key);
            (each(&|block| block >= dense), (key, value))
        }
        _ => none,
    }
}

/// Returns how many tokens each block of DeepSeek V4 compresses into one row: 4, with an indexer over
/// the rows, or 128. In qwen4exp it is the tokens whose indexer keys are pooled.
fn compressed(header: &Header) -> Vec<u16> {
    let pools = header.architecture == "qwen4exp";
    let listed = match header.architecture {
        "deepseek4" | "qwen4exp" => header.keys.by_block("attention.compress_ratios", header.blocks),
        _ => None,
    };
    let ratios = listed.unwrap_or_else(|| vec![0; header.blocks]);
    let known = |ratio: u32| if pools { ratio > 1 } else { matches!(ratio, 4 | 128) };
    let ratios = ratios.into_iter().map(|ratio| if known(ratio) { ratio } else { 0 });
    ratios.map(|ratio| u16::try_from(ratio).unwrap_or(u16::MAX)).collect()
}

/// Says what is only assumed.
fn assumed(header: &Header, rule: &Rule, notes: &mut Vec<String>) {
    if matches!(rule, Rule::Unknown) {
        notes.push(format!(
            "the architecture {} is not known: cache and state are billed by what its tensors show",
            header.architecture
        ));
    }
    if header.architecture == "hrm_text" {
        notes.push(format!("buffers of {} are a guess", header.architecture));
    }
}
