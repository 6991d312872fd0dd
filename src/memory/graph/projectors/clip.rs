//! What the graph of an encoder is built from: its tensors, its inputs, and the parts that most of
//! them share (`clip_graph` in `clip.cpp`).

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::ops::Glu;
use crate::memory::graph::tensor::{BackendId, F16, F32, Graph, Home, I32, Id, Op, Tensor, row_bytes};
use crate::memory::projector::{Encoder, Sizes};

/// The graph of an encoder while it is built. Tensors are asked for by the names they have in the
/// file.
pub(super) struct Clip<'a> {
    pub(super) graph: Graph,
    pub(super) encoder: &'a Encoder<'a>,
    /// Whether flash attention is used.
    pub(super) flash: bool,
    /// Whether a matrix's input and output are held between two limits (`Gemma4ClippableLinear`).
    pub(super) clamps: bool,
    /// Whether a tensor is missing that llama.cpp would not load the file without.
    pub(super) lacks: bool,
    /// Where the weights are.
    home: BackendId,
    known: HashMap<String, Id>,
}

/// A matrix with its bias, or a norm's weight with its bias; either may be absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) weight: Id,
    pub(super) bias: Id,
}

impl Pair {
    /// Stands for no pair.
    pub(super) const NONE: Pair = Pair { weight: Id::NONE, bias: Id::NONE };

    /// Returns the pair without its bias.
    pub(super) const fn unbiased(self) -> Pair {
        Pair { bias: Id::NONE, ..self }
    }
}

/// The matrices of a feed-forward network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mlp {
    pub(super) up: Pair,
    pub(super) gate: Pair,
    pub(super) down: Pair,
}

/// The activations of a feed-forward network, as far as memory tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// One operation: gelu in its kinds, silu.
    Smooth,
    /// relu, then the square (`FFN_RELU_SQR`).
    ReluSqr,
}

/// Queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Qkv {
    pub(super) q: Id,
    pub(super) k: Id,
    pub(super) v: Id,
}

/// Turns queries or keys by their positions.
pub(super) type Turn<'t> = &'t mut dyn FnMut(&mut Clip, Id) -> Id;

/// How a vision transformer differs from the usual (`build_vit`).
pub(super) struct Vit<'t> {
    pub(super) norm: Norm,
    /// Added to the input.
    pub(super) positions: Id,
    /// Turns queries and keys.
    pub(super) turn: Option<Turn<'t>>,
    /// The attention mask of each block.
    pub(super) mask: &'t dyn Fn(u64) -> Id,
    /// Leaves the last norm to the caller.
    pub(super) skips_post_norm: bool,
    /// The block after whose attention the sum is kept, and what it was.
    pub(super) keeps: Option<(u64, Id)>,
}

impl Vit<'_> {
    /// Returns a transformer with a norm and nothing else.
    pub(super) fn new(norm: Norm) -> Vit<'static> {
        Vit { norm, positions: Id::NONE, turn: None, mask: &|_| Id::NONE, skips_post_norm: false, keeps: None }
    }
}

impl Deref for Clip<'_> {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        &self.graph
    }
}

impl DerefMut for Clip<'_> {
    fn deref_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }
}

impl<'a> Clip<'a> {
    /// Returns an empty graph whose weights are on a back-end.
    pub(super) fn new(encoder: &'a Encoder<'a>, home: BackendId, flash: bool) -> Clip<'a> {
        Clip { graph: Graph::default(), encoder, flash, clamps: false, lacks: false, home, known: HashMap::new() }
    }

    /// Returns the encoder's sizes.
    pub(super) const fn sizes(&self) -> &'a Sizes {
        &self.encoder.sizes
    }

    /// Returns the patches in a row of the image.
    pub(super) fn columns(&self) -> u64 {
        self.sizes().width / self.sizes().patch.max(1)
    }

    /// Returns the rows of patches.
    pub(super) fn rows_of_patches(&self) -> u64 {
        self.sizes().height / self.sizes().patch.max(1)
    }

    /// Returns the patches of the image.
    pub(super) fn patches(&self) -> u64 {
        self.columns().saturating_mul(self.rows_of_patches())
    }

    /// Returns a tensor, [`Id::NONE`] where the file has none.
    pub(super) fn find(&mut self, name: &str) -> Id {
        if let Some(&id) = self.known.get(name) {
            return id;
        }
        let Some((kind, dims)) = self.encoder.tensor(name) else { return Id::NONE };
        let mut tensor = Tensor::new(kind, dims);
        tensor.home = Home::Weights(self.home);
        let id = self.graph.push(tensor);
        self.known.insert(name.to_owned(), id);
        id
    }

    /// Returns a tensor that has to be there. Where it is not, the graph is worth nothing, but it
    /// can be built to the end.
    pub(super) fn need(&mut self, name: &str) -> Id {
        let found = self.find(name);
        if found != Id::NONE {
            return found;
        }
        self.lacks = true;
        self.graph.constant(F32, [1; 4])
    }

    /// Returns the `.weight` and `.bias` of a name, each where the file has it.
    pub(super) fn pair(&mut self, name: &str) -> Pair {
        Pair { weight: self.find(&format!("{name}.weight")), bias: self.find(&format!("{name}.bias")) }
    }

    /// As [`Clip::pair`] with a weight that has to be there.
    pub(super) fn needed(&mut self, name: &str) -> Pair {
        Pair { weight: self.need(&format!("{name}.weight")), bias: self.find(&format!("{name}.bias")) }
    }

    /// Returns the network of matrices called `ffn_up`, `ffn_gate` and `ffn_down` below a prefix.
    pub(super) fn mlp(&mut self, prefix: &str) -> Mlp {
        let [up, gate, down] = ["ffn_up", "ffn_gate", "ffn_down"].map(|name| self.pair(&format!("{prefix}.{name}")));
        // Older conversions named the two the other way round.
        let narrow = |pair: Pair| pair.weight != Id::NONE && self.get(pair.weight).ne[0] == self.sizes().embedding;
        if !narrow(up) && narrow(down) {
            return Mlp { up: down, gate, down: up };
        }
        Mlp { up, gate, down }
    }

    /// Adds what a tensor depends on, and itself, to the nodes.
    pub(super) fn expand(&mut self, id: Id) {
        // Without attention by `build_attn` a whole conformer is added at once.
        self.graph.expand_deep(id);
    }

    /// Returns an input of the graph.
    pub(super) fn positions(&mut self, count: u64) -> Id {
        self.input(I32, [count, 1, 1, 1])
    }

    /// Returns an attention mask over all pairs of positions.
    pub(super) fn square_mask(&mut self, positions: u64) -> Id {
        self.input(F32, [positions, positions, 1, 1])
    }

    /// Returns a mask as flash attention reads it, where it is used.
    pub(super) fn for_flash(&mut self, mask: Id) -> Id {
        if self.flash { self.cast(mask, F16) } else { mask }
    }

    /// Returns the image, or the spectrum of sound (`build_inp_raw`).
    pub(super) fn raw(&mut self, channels: u64) -> Id {
        let Sizes { width, height, .. } = *self.sizes();
        self.input(F32, [width, height, channels, 1])
    }

    /// Returns the image cut into patches (`build_inp`).
    pub(super) fn patched(&mut self) -> Id {
        let raw = self.raw(3);
        let kernel = self.need("v.patch_embd.weight");
        let (patch, patches, embedding) = (self.sizes().patch, self.patches(), self.sizes().embedding);
        let x = self.conv_2d(kernel, raw, Steps::of(patch));
        let x = self.reshape(x, [patches, embedding, 1, 1]);
        let x = self.cont_transposed(x);
        let bias = self.find("v.patch_embd.bias");
        self.add_if(x, bias)
    }

    /// Returns the learned positions stretched to the image (`resize_position_embeddings`).
    pub(super) fn stretched_positions(&mut self) -> Id {
        let table = self.need("v.position_embd.weight");
        let (columns, rows, embedding) = (self.columns(), self.rows_of_patches(), self.sizes().embedding);
        let side = self.get(table).ne[1].isqrt();
        if columns == side && rows == side {
            return table;
        }
        let x = self.reshape(table, [embedding, side, side, 1]);
        let x = self.permute(x, [2, 0, 1, 3]);
        let x = self.interpolate(x, [columns, rows, embedding, 1]);
        let x = self.permute(x, [1, 2, 0, 3]);
        self.cont_as(x, [embedding, columns.saturating_mul(rows), 1, 1])
    }

    /// Multiplies with a matrix (`build_mm`).
    pub(super) fn product(&mut self, matrix: Id, x: Id) -> Id {
        if !self.clamps {
            return self.mul_mat(matrix, x);
        }
        let x = self.unary(Op::Clamp, x);
        let product = self.mul_mat(matrix, x);
        self.unary(Op::Clamp, product)
    }

    /// Multiplies with a matrix and adds its bias where there is one.
    pub(super) fn linear(&mut self, x: Id, pair: Pair) -> Id {
        let product = self.product(pair.weight, x);
        self.add_if(product, pair.bias)
    }

    /// Adds a tensor if there is one.
    pub(super) fn add_if(&mut self, x: Id, other: Id) -> Id {
        if other == Id::NONE { x } else { self.add(x, other) }
    }

    /// Multiplies with a tensor if there is one.
    pub(super) fn mul_if(&mut self, x: Id, other: Id) -> Id {
        if other == Id::NONE { x } else { self.mul(x, other) }
    }

    /// Norms (`build_norm`).
    pub(super) fn norm(&mut self, norm: Norm, x: Id, pair: Pair) -> Id {
        let normed = self.unary(if norm == Norm::Rms { Op::RmsNorm } else { Op::Norm }, x);
        let normed = self.mul_if(normed, pair.weight);
        self.add_if(normed, pair.bias)
    }

    /// A feed-forward network (`build_ffn`).
    pub(super) fn feed(&mut self, x: Id, mlp: Mlp, act: Act) -> Id {
        let up = if mlp.up.weight == Id::NONE { x } else { self.product(mlp.up.weight, x) };
        let up = self.add_if(up, mlp.up.bias);
        let gated = mlp.gate.weight != Id::NONE;
        let x = if gated { self.linear(x, mlp.gate) } else { up };
        let x = match act {
            Act::ReluSqr => {
                let x = self.unary(Op::Unary, x);
                self.unary(Op::Sqr, x)
            }
            Act::Smooth if gated => {
                let limited = self.encoder.is_positive("swiglu_clamp") && self.encoder.has_flag("use_silu");
                self.glu(if limited { Glu::SwigluClamp } else { Glu::Plain }, x, up)
            }
            Act::Smooth => self.unary(Op::Unary, x),
        };
        let x = if mlp.down.weight == Id::NONE { x } else { self.product(mlp.down.weight, x) };
        self.add_if(x, mlp.down.bias)
    }

    /// Two matrices with an activation between them, as most projectors end.
    pub(super) fn feed_two(&mut self, x: Id, up: &str, down: &str) -> Id {
        let mlp = Mlp { up: self.needed(up), gate: Pair::NONE, down: self.needed(down) };
        self.feed(x, mlp, Act::Smooth)
    }

    /// Attention (`build_attn`): a row of the result is a position, with all its heads.
    pub(super) fn attend(&mut self, output: Pair, qkv: Qkv, mask: Id) -> Id {
        self.attend_with_sinks(output, qkv, mask, Id::NONE)
    }

    /// As [`Clip::attend`] with sinks, one a head.
    pub(super) fn attend_with_sinks(&mut self, output: Pair, qkv: Qkv, mask: Id, sinks: Id) -> Id {
        for id in [qkv.q, qkv.k, qkv.v] {
            self.expand(id);
        }
        let q = self.permute(qkv.q, [0, 2, 1, 3]);
        let k = self.permute(qkv.k, [0, 2, 1, 3]);
        let attended = if self.flash {
            let v = self.permute(qkv.v, [0, 2, 1, 3]);
            let k = self.cast(k, F16);
            let v = self.cast(v, F16);
            let mask = if mask == Id::NONE { mask } else { self.cast(mask, F16) };
            let attended = self.flash_attn(q, k, v, mask, sinks);
            let ne = self.get(attended).ne;
            self.reshape(attended, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1])
        } else {
            let v = self.cont_permuted(qkv.v, [1, 2, 0, 3]);
            let weights = self.mul_mat(k, q);
            let weights = self.soft_max(weights, mask, sinks);
            let attended = self.mul_mat(v, weights);
            let attended = self.permute(attended, [0, 2, 1, 3]);
            let ne = self.get(attended).ne;
            self.cont_as(attended, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1])
        };
        let attended = if output.weight == Id::NONE { attended } else { self.product(output.weight, attended) };
        self.add_if(attended, output.bias)
    }

    /// Returns a part of a product that holds queries, keys and values side by side: `heads` heads
    /// from element `from` of each row on.
    pub(super) fn heads_of(&mut self, x: Id, head: u64, heads: u64, positions: u64, images: u64, from: u64) -> Id {
        let Tensor { kind, nb, .. } = *self.get(x);
        let strides = [row_bytes(kind, head), nb[1], nb[1].saturating_mul(positions)];
        self.view(x, [head, heads, positions, images], strides, row_bytes(kind, from))
    }

    /// Projects to queries, keys and values of `positions` positions, by one matrix or three, with
    /// biases and norms where there are some (`build_vit`).
    pub(super) fn project(&mut self, prefix: &str, x: Id, norm: Norm, positions: u64, images: u64) -> Qkv {
        let Sizes { heads, heads_kv, head, .. } = *self.sizes();
        let [q_norm, k_norm] =
            ["attn_q_norm", "attn_k_norm"].map(|name| self.pair(&format!("{prefix}.{name}")).unbiased());
        let fused = self.pair(&format!("{prefix}.attn_qkv"));
        let normed = |g: &mut Clip, x: Id, pair: Pair| if pair.weight == Id::NONE { x } else { g.norm(norm, x, pair) };
        if fused.weight != Id::NONE {
            let x = self.linear(x, fused);
            let width = heads.saturating_mul(head);
            let part = |g: &mut Clip, n: u64| g.heads_of(x, head, heads, positions, images, width.saturating_mul(n));
            let [q, k, v] = [0, 1, 2].map(|n| part(self, n));
            let q = normed(self, q, q_norm);
            let k = normed(self, k, k_norm);
            return Qkv { q, k, v };
        }
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
            let pair = self.needed(&format!("{prefix}.{name}"));
            self.linear(x, pair)
        });
        // A norm as wide as a head is taken head by head.
        let by_head = q_norm.weight != Id::NONE && self.get(q_norm.weight).ne[0] == head;
        let (mut q, mut k) = (q, k);
        if !by_head {
            q = normed(self, q, q_norm);
            k = normed(self, k, k_norm);
        }
        q = self.reshape(q, [head, heads, positions, images]);
        k = self.reshape(k, [head, heads_kv, positions, images]);
        let v = self.reshape(v, [head, heads_kv, positions, images]);
        if by_head {
            q = normed(self, q, q_norm);
            k = normed(self, k, k_norm);
        }
        Qkv { q, k, v }
    }

    /// A whole transformer over `positions` positions (`build_vit`). The result has one row a
    /// position.
    pub(super) fn transform(&mut self, x: Id, positions: u64, vit: &mut Vit) -> Id {
        let prefix = self.encoder.modality.prefix();
        let embedding = self.sizes().embedding;
        let images = self.get(x).ne[2];
        let mut x = self.add_if(x, vit.positions);
        x = self.reshape(x, [embedding, positions.saturating_mul(images), 1, 1]);
        let pre = self.pair(&format!("{prefix}.pre_ln"));
        if pre.weight != Id::NONE {
            x = self.norm(vit.norm, x, pre);
        }
        for block in 0..self.sizes().blocks {
            x = self.block(&format!("{prefix}.blk.{block}"), block, x, positions, images, vit);
        }
        if matches!(self.encoder.name, "qwen2a" | "voxtral" | "musicflamingo") {
            x = self.cont_transposed(x);
            x = self.pool_1d(x, 2);
            x = self.cont_transposed(x);
        }
        let post = self.post_norm(prefix);
        if post.weight != Id::NONE && !vit.skips_post_norm {
            x = self.norm(vit.norm, x, post);
        }
        let rows = self.get(x).ne[1] / images.max(1);
        self.reshape(x, [embedding, rows, images, 1])
    }

    /// Returns the norm after the last block.
    pub(super) fn post_norm(&mut self, prefix: &str) -> Pair {
        match self.encoder.name {
            "dots_ocr" | "dots3note_v" => {
                let bias = self.find("v.post_ln.bias");
                Pair { weight: self.need("mm.post_norm.weight"), bias }
            }
            _ => self.pair(&format!("{prefix}.post_ln")),
        }
    }

    fn block(&mut self, at: &str, block: u64, x: Id, positions: u64, images: u64, vit: &mut Vit) -> Id {
        let ln_1 = self.pair(&format!("{at}.ln1"));
        let normed = self.norm(vit.norm, x, ln_1);
        let mut qkv = self.project(at, normed, vit.norm, positions, images);
        if let Some(turn) = vit.turn.as_mut() {
            qkv.q = turn(self, qkv.q);
            qkv.k = turn(self, qkv.k);
        }
        if self.encoder.name == "gemma4v" {
            qkv.v = self.unary(Op::RmsNorm, qkv.v);
        }
        let output = self.needed(&format!("{at}.attn_out"));
        let mut attended = self.attend(output, qkv, (vit.mask)(block));
        attended = self.scaled(attended, at, "ls1");
        attended = self.normed_if(attended, vit.norm, at, "attn_post_norm");
        let x = self.add(attended, x);
        if let Some((kept, sum)) = &mut vit.keeps
            && *kept == block
        {
            *sum = x;
        }
        let ln_2 = self.pair(&format!("{at}.ln2"));
        let normed = self.norm(vit.norm, x, ln_2);
        let mut fed = if self.find(&format!("{at}.ffn_gate_exps.weight")) == Id::NONE {
            let mlp = self.mlp(at);
            self.feed(normed, mlp, Act::Smooth)
        } else {
            self.experts(at, normed)
        };
        fed = self.normed_if(fed, vit.norm, at, "ffn_post_norm");
        fed = self.scaled(fed, at, "ls2");
        let x = self.add(x, fed);
        self.scaled(x, at, "out_scale")
    }

    fn scaled(&mut self, x: Id, at: &str, name: &str) -> Id {
        let scale = self.find(&format!("{at}.{name}.weight"));
        self.mul_if(x, scale)
    }

    fn normed_if(&mut self, x: Id, norm: Norm, at: &str, name: &str) -> Id {
        let pair = self.pair(&format!("{at}.{name}")).unbiased();
        if pair.weight == Id::NONE { x } else { self.norm(norm, x, pair) }
    }

    /// A network of experts (`build_moe_ffn`).
    fn experts(&mut self, at: &str, x: Id) -> Id {
        let [router, gates, ups, downs] = ["ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]
            .map(|name| self.need(&format!("{at}.{name}.weight")));
        let experts = self.get(gates).ne[2];
        let used = self.encoder.number("expert_used_count").clamp(1, experts.clamp(1, 64));
        let Tensor { ne: [width, tokens, ..], .. } = *self.get(x);
        let scores = self.product(router, x);
        let scores = self.unary(Op::Sigmoid, scores);
        let bias = self.find(&format!("{at}.exp_probs_b.weight"));
        let biased = self.add_if(scores, bias);
        let chosen = self.top_k(biased, used);
        let scores = self.reshape(scores, [1, experts, tokens, 1]);
        let weights = self.get_rows(scores, chosen);
        let weights = self.reshape(weights, [used, tokens, 1, 1]);
        let sum = self.sum_rows(Op::SumRows, weights);
        let weights = self.binary(Op::Div, weights, sum);
        let weights = self.reshape(weights, [1, used, tokens, 1]);
        let x = self.reshape(x, [width, 1, tokens, 1]);
        let gate = self.mul_mat_id(gates, x, chosen);
        let up = self.mul_mat_id(ups, x, chosen);
        let gate = self.unary(Op::Silu, gate);
        let x = self.mul(gate, up);
        let x = self.mul_mat_id(downs, x, chosen);
        let x = self.mul(x, weights);
        let Tensor { ne, nb, .. } = *self.get(x);
        let mut out = Id::NONE;
        for expert in 0..used {
            let one = self.view_2d(x, [ne[0], tokens], nb[2], nb[1].saturating_mul(expert));
            out = if out == Id::NONE { one } else { self.add(out, one) };
        }
        if used == 1 { self.cont(out) } else { out }
    }

    /// Turns by two positions, one for each half of a head (`build_rope_2d`).
    pub(super) fn rope_2d(&mut self, x: Id, first: Id, second: Id) -> Id {
        let x = self.rope(x, first, Id::NONE);
        self.rope(x, second, Id::NONE)
    }

    /// Stacks frames of sound (`build_stack`).
    pub(super) fn stacked(&mut self, x: Id, factor: u64) -> Id {
        if factor <= 1 {
            return x;
        }
        let row = self.sizes().embedding.saturating_mul(factor);
        let elements = self.get(x).elements();
        let padded = elements.checked_next_multiple_of(row.max(1)).unwrap_or(elements);
        let mut x = x;
        if padded > elements {
            x = self.view_1d(x, elements, 0);
            x = self.pad(x, [padded - elements, 0, 0, 0]);
        }
        let stride = row_bytes(self.get(x).kind, row);
        self.view_2d(x, [row, padded / row.max(1)], stride, 0)
    }

    /// Joins squares of patches to tokens (`build_patch_merge_permute`).
    pub(super) fn merged(&mut self, x: Id, factor: u64) -> Id {
        let width = self.get(x).ne[0];
        let (columns, rows) = (self.columns(), self.rows_of_patches());
        let factor = factor.max(1);
        let up = |count: u64| count.checked_next_multiple_of(factor).unwrap_or(count);
        let mut x = self.reshape(x, [width, columns, rows, 1]);
        if up(columns) != columns || up(rows) != rows {
            x = self.pad(x, [0, up(columns) - columns, up(rows) - rows, 0]);
        }
        let (columns, rows) = (up(columns), up(rows));
        let wide = width.saturating_mul(factor);
        let x = self.reshape(x, [wide, columns / factor, rows, 1]);
        let x = self.permute(x, [0, 2, 1, 3]);
        let wide = wide.saturating_mul(factor);
        let x = self.cont_as(x, [wide, rows / factor, columns / factor, 1]);
        let x = self.permute(x, [0, 2, 1, 3]);
        let ne = self.get(x).ne;
        self.cont_as(x, [ne[0], ne[1].saturating_mul(ne[2]), 1, 1])
    }
}
