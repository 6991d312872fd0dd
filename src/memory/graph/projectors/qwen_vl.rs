//! Qwen VL's towers and those close to them: two convolutions over the image, patches in the order
//! of the tokens they become, four positions for each.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Qkv, Vit};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, I32, Id};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "qwen2vl_merger" | "qwen2.5vl_merger" | "exaone4_5" => qwen2vl,
        "qwen3vl_merger" => qwen3vl,
        "ling3vl" => ling3vl,
        "minimax_m3" => minimax_m3,
        "mimovl" => mimovl,
        "youtuvl" => youtuvl,
        _ => return None,
    })
}

/// The inputs of attention within windows.
#[derive(Clone, Copy)]
struct Windows {
    mask: Id,
    /// The order of windows, and back.
    into: Id,
    back: Id,
}

/// Qwen 2 VL, and 2.5 VL and EXAONE 4.5 whose blocks look at windows but for every n-th.
fn qwen2vl(g: &mut Clip) {
    let exaone = g.encoder.name == "exaone4_5";
    let norm = if g.encoder.name == "qwen2vl_merger" { Norm::Layer } else { Norm::Rms };
    let x = two_convolutions(g);
    let mut x = in_token_order(g, x, 2);
    let patches = g.patches();
    let positions = g.positions(patches.saturating_mul(4));
    let pre = g.pair("v.pre_ln");
    if pre.weight != Id::NONE && !exaone {
        x = g.norm(norm, x, pre);
    }
    let pattern = g.encoder.number("n_wa_pattern");
    let windows = (pattern > 0).then(|| windows(g));
    if let Some(windows) = windows {
        x = reordered(g, x, windows.into);
    }
    for block in 0..g.sizes().blocks {
        let whole = windows.is_none() || (block + 1).is_multiple_of(pattern.max(1));
        let mask = windows.filter(|_| !whole).map_or(Id::NONE, |windows| windows.mask);
        x = turned_block(g, x, norm, block, positions, mask);
    }
    let post = g.pair("v.post_ln");
    if post.weight != Id::NONE || exaone {
        x = g.norm(norm, x, post);
    }
    let mut x = projected(g, x);
    if let Some(windows) = windows {
        let width = g.encoder.number("projection_dim");
        let x_flat = g.reshape(x, [width, patches / 4, 1, 1]);
        let back = g.get_rows(x_flat, windows.back);
        x = g.reshape(back, [width, patches / 4, 1, 1]);
    }
    g.expand(x);
}

/// Qwen 3 VL: learned positions as well, and the results of some blocks projected beside the last.
fn qwen3vl(g: &mut Clip) {
    let x = two_convolutions(g);
    let x = in_token_order(g, x, 2);
    let bias = g.need("v.patch_embd.bias");
    let x = g.add(x, bias);
    let learned = learned_in_token_order(g);
    let mut x = g.add(x, learned);
    let patches = g.patches();
    let positions = g.positions(patches.saturating_mul(4));
    let pre = g.pair("v.pre_ln");
    if pre.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, pre);
    }
    let square = g.sizes().merge.saturating_mul(g.sizes().merge).max(1);
    let wide = g.sizes().embedding.saturating_mul(square);
    let mut deep = Id::NONE;
    for block in 0..g.sizes().blocks {
        x = turned_block(g, x, Norm::Layer, block, positions, Id::NONE);
        let at = format!("v.deepstack.{block}");
        let up = g.pair(&format!("{at}.fc1"));
        if up.weight != Id::NONE {
            let features = g.reshape(x, [wide, patches / square, 1, 1]);
            let norm = g.pair(&format!("{at}.norm"));
            let features = g.norm(Norm::Layer, features, norm);
            let down = g.needed(&format!("{at}.fc2"));
            let features = g.feed(features, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
            deep = if deep == Id::NONE { features } else { g.concat(deep, features, 0) };
        }
    }
    let post = g.pair("v.post_ln");
    if post.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, post);
    }
    let mut x = projected(g, x);
    if deep != Id::NONE {
        x = g.concat(x, deep, 0);
    }
    g.expand(x);
}

/// Ling 3 VL: Qwen 3 VL's tower with the merger's norm before the patches are joined.
fn ling3vl(g: &mut Clip) {
    let x = two_convolutions(g);
    let x = in_token_order(g, x, 2);
    let bias = g.find("v.patch_embd.bias");
    let x = g.add_if(x, bias);
    let learned = learned_in_token_order(g);
    let patches = g.patches();
    let positions = g.positions(patches.saturating_mul(4));
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let mut vit = Vit { positions: learned, turn: Some(&mut turn), ..Vit::new(Norm::Layer) };
    let x = g.transform(x, patches, &mut vit);
    let norm = g.needed("mm.input_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = projected(g, x);
    g.expand(x);
}

/// MiniMax M3: a network for each patch, then one for each token.
fn minimax_m3(g: &mut Clip) {
    let merge = g.sizes().merge.max(1);
    let x = two_convolutions(g);
    let x = in_token_order(g, x, merge);
    let patches = g.patches();
    let (rows, columns) = (g.positions(patches), g.positions(patches));
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, rows, columns);
    let x = g.transform(x, patches, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Layer) });
    let x = g.feed_two(x, "mm.1", "mm.2");
    let square = merge.saturating_mul(merge);
    let width = g.get(x).ne[0].saturating_mul(square);
    let x = g.reshape(x, [width, patches / square, 1, 1]);
    let x = g.feed_two(x, "mm.merger.fc1", "mm.merger.fc2");
    g.expand(x);
}

/// MiMo VL: grouped queries with sinks in windowed blocks, whose tokens go along rows or columns.
fn mimovl(g: &mut Clip) {
    let (heads, heads_kv, embedding) = (g.sizes().heads, g.sizes().heads_kv, g.sizes().embedding);
    let merge = g.sizes().merge.max(1);
    let square = merge.saturating_mul(merge);
    let fused = g.need("v.blk.0.attn_qkv.weight");
    let shares = heads.saturating_add(heads_kv.saturating_mul(2)).max(1);
    let head = g.get(fused).ne[1] / shares;
    let x = two_convolutions(g);
    let mut x = in_token_order(g, x, 2);
    let patches = g.patches();
    let units = patches / square;
    let (rows, columns) = (g.positions(patches.saturating_mul(4)), g.positions(patches.saturating_mul(4)));
    let order = g.input(F32, [units, 1, 1, 1]);
    let into = g.cast(order, I32);
    let back = g.argsort(order);
    let mask = g.square_mask(patches);
    let mask = g.for_flash(mask);
    let reorder = |g: &mut Clip, x: Id, order: Id| {
        let x = g.reshape(x, [embedding.saturating_mul(square), units, 1, 1]);
        let x = g.get_rows(x, order);
        g.reshape(x, [embedding, patches, 1, 1])
    };
    let modes = g.encoder.list("wa_pattern_mode");
    let mut by_column = false;
    for (block, mode) in (0..g.sizes().blocks).zip(modes.iter().copied().chain(std::iter::repeat(-1.0))) {
        let (whole, turns) = (mode < 0.0, mode > 0.0);
        if turns != by_column {
            x = reorder(g, x, if turns { into } else { back });
            by_column = turns;
        }
        let at = format!("v.blk.{block}");
        let norm = g.pair(&format!("{at}.ln1"));
        let normed = g.norm(Norm::Rms, x, norm);
        let fused = g.needed(&format!("{at}.attn_qkv"));
        let qkv = g.linear(normed, fused);
        let wide = heads.saturating_mul(head);
        let narrow = heads_kv.saturating_mul(head);
        let q = g.heads_of(qkv, head, heads, patches, 1, 0);
        let k = g.heads_of(qkv, head, heads_kv, patches, 1, wide);
        let v = g.heads_of(qkv, head, heads_kv, patches, 1, wide.saturating_add(narrow));
        let positions = if turns { columns } else { rows };
        let (q, k) = (g.rope(q, positions, Id::NONE), g.rope(k, positions, Id::NONE));
        let output = g.needed(&format!("{at}.attn_out"));
        let (mask, sinks) = if whole { (Id::NONE, Id::NONE) } else { (mask, g.find(&format!("{at}.attn_sinks"))) };
        let attended = g.attend_with_sinks(output, Qkv { q, k, v }, mask, sinks);
        x = network(g, &at, attended, x, Norm::Rms);
    }
    if by_column {
        x = reorder(g, x, back);
    }
    let post = g.pair("v.post_ln");
    let x = g.norm(Norm::Layer, x, post);
    let x = g.reshape(x, [embedding.saturating_mul(square), units, 1, 1]);
    let [up, down] = ["mm.0", "mm.2"].map(|name| g.needed(name).unbiased());
    let x = g.feed(x, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
    g.expand(x);
}

/// Youtu VL: patches by reordering and one matrix, windows but for the blocks that the file lists.
fn youtuvl(g: &mut Clip) {
    let (patch, embedding, patches) = (g.sizes().patch, g.sizes().embedding, g.patches());
    let (columns, rows) = (g.columns() / 2, g.rows_of_patches() / 2);
    let raw = g.raw(3);
    let both = patch.saturating_mul(2);
    let tokens = columns.saturating_mul(rows);
    let x = g.reshape(raw, [columns.saturating_mul(both), both, rows, 3]);
    let x = g.permute(x, [1, 2, 3, 0]);
    let x = g.cont_as(x, [both.saturating_mul(3), columns, both, rows]);
    let x = g.permute(x, [0, 2, 1, 3]);
    let x = g.cont_as(x, [both.saturating_mul(3), patch, 2, tokens]);
    let x = g.permute(x, [1, 0, 2, 3]);
    let x = g.cont_as(x, [patch, 3, patch, tokens.saturating_mul(4)]);
    let x = g.permute(x, [2, 0, 1, 3]);
    let x = g.cont_as(x, [patch.saturating_mul(patch).saturating_mul(3), tokens.saturating_mul(4), 1, 1]);
    let kernel = g.needed("v.patch_embd");
    let x = g.linear(x, kernel);
    let mut x = g.reshape(x, [embedding, patches, 1, 1]);
    let positions = g.positions(patches.saturating_mul(4));
    let pre = g.pair("v.pre_ln");
    if pre.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, pre);
    }
    let windows = (!g.encoder.list("wa_layer_indexes").is_empty()).then(|| windows(g));
    if let Some(windows) = windows {
        x = reordered(g, x, windows.into);
    }
    for block in 0..g.sizes().blocks {
        let whole = windows.is_none() || g.encoder.lists("wa_layer_indexes", block);
        let mask = windows.filter(|_| !whole).map_or(Id::NONE, |windows| windows.mask);
        x = turned_block(g, x, Norm::Layer, block, positions, mask);
    }
    if let Some(windows) = windows {
        x = reordered(g, x, windows.back);
    }
    let post = g.pair("v.post_ln");
    if post.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, post);
    }
    let weight = g.need("mm.input_norm.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let x = projected(g, x);
    g.expand(x);
}

/// Returns the sum of two convolutions over the image: one for each of two frames
/// (`build_inp_with_temporal_merge`).
fn two_convolutions(g: &mut Clip) -> Id {
    let raw = g.raw(3);
    let [one, other] = ["v.patch_embd.weight", "v.patch_embd.weight.1"].map(|name| g.need(name));
    let steps = Steps::of(g.sizes().patch);
    let one = g.conv_2d(one, raw, steps);
    let other = g.conv_2d(other, raw, steps);
    g.add(one, other)
}

/// Puts patches that become one token next to each other; `x` has its channels last.
fn in_token_order(g: &mut Clip, x: Id, merge: u64) -> Id {
    let x = g.permute(x, [1, 2, 0, 3]);
    joined(g, x, merge)
}

/// Puts the learned positions in the order of [`in_token_order`].
fn learned_in_token_order(g: &mut Clip) -> Id {
    let learned = g.stretched_positions();
    joined(g, learned, 2)
}

fn joined(g: &mut Clip, x: Id, merge: u64) -> Id {
    let (columns, rows, embedding) = (g.columns(), g.rows_of_patches(), g.sizes().embedding);
    let wide = embedding.saturating_mul(merge);
    let x = g.cont_as(x, [wide, columns / merge, rows, 1]);
    let x = g.reshape(x, [wide, columns / merge, merge, rows / merge]);
    let x = g.permute(x, [0, 2, 1, 3]);
    g.cont_as(x, [embedding, columns.saturating_mul(rows), 1, 1])
}

fn windows(g: &mut Clip) -> Windows {
    let patches = g.patches();
    let (into, back) = (g.positions(patches / 4), g.positions(patches / 4));
    let mask = g.square_mask(patches);
    Windows { mask: g.for_flash(mask), into, back }
}

/// Reorders groups of four patches.
fn reordered(g: &mut Clip, x: Id, order: Id) -> Id {
    let (embedding, patches) = (g.sizes().embedding, g.patches());
    let x = g.reshape(x, [embedding.saturating_mul(4), patches / 4, 1, 1]);
    let x = g.get_rows(x, order);
    g.reshape(x, [embedding, patches, 1, 1])
}

/// A block whose queries and keys are turned by four positions.
fn turned_block(g: &mut Clip, x: Id, norm: Norm, block: u64, positions: Id, mask: Id) -> Id {
    let at = format!("v.blk.{block}");
    let (patches, embedding) = (g.patches(), g.sizes().embedding);
    let ln_1 = g.pair(&format!("{at}.ln1"));
    let normed = g.norm(norm, x, ln_1);
    let (head, heads, heads_kv) = (g.sizes().head, g.sizes().heads, g.sizes().heads_kv);
    let fused = g.pair(&format!("{at}.attn_qkv"));
    let mut qkv = if fused.weight == Id::NONE {
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
            let pair = g.needed(&format!("{at}.{name}"));
            g.linear(normed, pair)
        });
        let [q, k, v] = [q, k, v].map(|id| g.reshape(id, [head, heads, patches, 1]));
        Qkv { q, k, v }
    } else {
        let wide = g.linear(normed, fused);
        let after_keys = embedding.saturating_add(head.saturating_mul(heads_kv));
        Qkv {
            q: g.heads_of(wide, head, heads, patches, 1, 0),
            k: g.heads_of(wide, head, heads_kv, patches, 1, embedding),
            v: g.heads_of(wide, head, heads_kv, patches, 1, after_keys),
        }
    };
    qkv.q = g.rope(qkv.q, positions, Id::NONE);
    qkv.k = g.rope(qkv.k, positions, Id::NONE);
    let output = g.needed(&format!("{at}.attn_out"));
    let attended = g.attend(output, qkv, mask);
    network(g, &at, attended, x, norm)
}

/// The second half of a block.
fn network(g: &mut Clip, at: &str, attended: Id, residual: Id, norm: Norm) -> Id {
    let x = g.add(attended, residual);
    let ln_2 = g.pair(&format!("{at}.ln2"));
    let normed = g.norm(norm, x, ln_2);
    let mlp = g.mlp(at);
    let fed = g.feed(normed, mlp, Act::Smooth);
    g.add(x, fed)
}

/// Joins four patches and projects them.
fn projected(g: &mut Clip, x: Id) -> Id {
    let (embedding, patches) = (g.sizes().embedding, g.patches());
    let x = g.reshape(x, [embedding.saturating_mul(4), patches / 4, 1, 1]);
    g.feed_two(x, "mm.0", "mm.2")
}
