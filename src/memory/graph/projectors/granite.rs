//! Granite's encoders, whose projectors look at windows with learned queries.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Qkv};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, I32, Id, Op, Tensor};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "granite4_vision" => vision,
        "granite_speech" => speech,
        _ => return None,
    })
}

/// Granite 4 Vision: several blocks' results, each projected by queries of its own, side by side.
fn vision(g: &mut Clip) {
    let (patch, embedding) = (g.sizes().patch, g.sizes().embedding);
    let side = g.columns();
    let patches = side.saturating_mul(side);
    let raw = g.raw(3);
    let kernel = g.needed("v.patch_embd");
    let x = g.conv_2d(kernel.weight, raw, Steps::of(patch));
    let x = g.reshape(x, [patches, embedding, 1, 1]);
    let x = g.cont_transposed(x);
    let x = g.add_if(x, kernel.bias);
    let table = g.need("v.position_embd.weight");
    let mut x = g.add(x, table);
    let mut results = Vec::new();
    for block in 0..g.sizes().blocks {
        let at = format!("v.blk.{block}");
        let norm = g.pair(&format!("{at}.ln1"));
        let normed = g.norm(Norm::Layer, x, norm);
        let qkv = g.project(&at, normed, Norm::Layer, patches, 1);
        let output = g.needed(&format!("{at}.attn_out"));
        let attended = g.attend(output, qkv, Id::NONE);
        let attended = g.reshape(attended, [embedding, patches, 1, 1]);
        x = g.add(attended, x);
        let norm = g.pair(&format!("{at}.ln2"));
        let normed = g.norm(Norm::Layer, x, norm);
        let mlp = g.mlp(&at);
        let fed = g.feed(normed, mlp, Act::Smooth);
        x = g.add(x, fed);
        results.push(x);
    }
    let layers = g.encoder.list("feature_layer");
    let offsets = g.encoder.list("projector.spatial_offsets");
    let mut all = Id::NONE;
    for ((number, &layer), &offset) in (0u64..).zip(layers).zip(offsets) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let Some(&result) = results.get(layer as usize) else {
            g.lacks = true;
            return;
        };
        let projected = windows(g, number, result, offset >= 0.0);
        all = if all == Id::NONE { projected } else { g.concat(all, projected, 0) };
    }
    g.lacks |= all == Id::NONE;
    if all != Id::NONE {
        g.expand(all);
    }
}

/// One projector: queries from a smaller image look at the windows of the larger one.
fn windows(g: &mut Clip, number: u64, x: Id, gathers: bool) -> Id {
    let at = format!("v.proj_blk.{number}");
    let side = g.columns();
    let (window, query) = (
        g.encoder.number("projector.window_side").clamp(1, side.max(1)),
        g.encoder.number("projector.query_side").clamp(1, side.max(1)),
    );
    let width = g.get(x).ne[0];
    let across = side / window;
    let (count, smaller) = (across.saturating_mul(across), across.saturating_mul(query).max(1));
    let (seen, queries) = (window.saturating_mul(window), query.saturating_mul(query));
    let norm = g.needed(&format!("{at}.norm"));
    let x = g.norm(Norm::Layer, x, norm);
    let windowed = gathered(g, x, side.saturating_mul(side));
    let windowed = g.reshape(windowed, [width, seen, count, 1]);
    let small = if gathers { gathered(g, x, smaller.saturating_mul(smaller)) } else { pooled(g, x, side, smaller) };
    let small = gathered(g, small, smaller.saturating_mul(smaller));
    let small = g.reshape(small, [width, queries, count, 1]);
    let query = g.need(&format!("{at}.query"));
    let asked = g.add(small, query);
    let places = g.need(&format!("{at}.img_pos"));
    let windowed = g.add(windowed, places);
    let norm = g.needed(&format!("{at}.post_norm"));
    let asked = g.norm(Norm::Layer, asked, norm);
    let x = queried(g, &at, asked, windowed, 64);
    let x = g.reshape(x, [width, queries.saturating_mul(count), 1, 1]);
    let x = gathered(g, x, smaller.saturating_mul(smaller));
    let matrix = g.needed(&format!("{at}.linear"));
    g.linear(x, matrix)
}

fn gathered(g: &mut Clip, x: Id, count: u64) -> Id {
    let ids = g.input(I32, [count, 1, 1, 1]);
    g.get_rows(x, ids)
}

fn pooled(g: &mut Clip, x: Id, side: u64, smaller: u64) -> Id {
    let width = g.get(x).ne[0];
    let x = g.reshape(x, [width, side, side, 1]);
    let x = g.cont_permuted(x, [2, 0, 1, 3]);
    let x = g.reshape(x, [side, side, width, 1]);
    let x = g.pool_2d(x, side / smaller, side / smaller);
    let x = g.reshape(x, [smaller, smaller, width, 1]);
    let x = g.cont_permuted(x, [1, 2, 0, 3]);
    g.reshape(x, [width, smaller.saturating_mul(smaller), 1, 1])
}

/// A block of a `QFormer`: queries look at each other, then at the windows, then a network.
fn queried(g: &mut Clip, at: &str, asked: Id, seen: Id, head: u64) -> Id {
    let vision = g.encoder.name == "granite4_vision";
    let mut x = asked;
    for (kind, from) in [("self_attn", None), ("cross_attn", Some(seen))] {
        let Tensor { ne: [width, count, many, _], .. } = *g.get(x);
        let heads = width / head.max(1);
        let [q, k, v] = [("q", None), ("k", from), ("v", from)].map(|(name, from)| {
            let from = from.unwrap_or(x);
            let Tensor { ne: [wide, rows, images, _], .. } = *g.get(from);
            let pair = g.needed(&format!("{at}.{kind}_{name}"));
            // Vision lays all windows one after the other before it multiplies.
            let flat = if vision { g.reshape(from, [wide, rows.saturating_mul(images), 1, 1]) } else { from };
            let projected = g.linear(flat, pair);
            g.reshape(projected, [head, heads, rows, images])
        });
        let output = g.needed(&format!("{at}.{kind}_out"));
        let attended = g.attend(output, Qkv { q, k, v }, Id::NONE);
        let attended = g.reshape(attended, [width, count, many, 1]);
        let sum = g.add(attended, x);
        let norm = g.needed(&format!("{at}.{kind}_norm"));
        x = g.norm(Norm::Layer, sum, norm);
    }
    let Tensor { ne: [width, count, many, _], .. } = *g.get(x);
    let mlp =
        Mlp { up: g.needed(&format!("{at}.ffn_up")), gate: Pair::NONE, down: g.needed(&format!("{at}.ffn_down")) };
    let flat = if vision { g.reshape(x, [width, count.saturating_mul(many), 1, 1]) } else { x };
    let fed = g.feed(flat, mlp, Act::Smooth);
    let fed = if vision { g.reshape(fed, [width, count, many, 1]) } else { fed };
    let sum = g.add(fed, x);
    let norm = g.needed(&format!("{at}.ffn_norm"));
    g.norm(Norm::Layer, sum, norm)
}

/// Granite Speech: a conformer whose attention stays within chunks, then queries over windows.
fn speech(g: &mut Clip) {
    let (frames, width, blocks) = (g.sizes().width, g.sizes().embedding, g.sizes().blocks);
    let chunk = g.encoder.number("chunk_size").clamp(1, 8_192);
    let chunks = frames.div_ceil(chunk);
    let distances = g.positions(chunk.saturating_mul(chunk));
    let mask = if frames.is_multiple_of(chunk) { Id::NONE } else { g.input(F32, [chunk, chunk, 1, chunks]) };
    let raw = g.raw(1);
    let x = g.cont_transposed(raw);
    let input = g.needed("a.input_projection");
    let mut x = g.linear(x, input);
    let concatenates = !g.encoder.list("feature_layer").is_empty();
    let mut kept = if g.encoder.lists("feature_layer", 0) { x } else { Id::NONE };
    for block in 0..blocks {
        let at = format!("a.blk.{block}");
        x = speech_block(g, &at, x, (chunk, chunks), distances, mask);
        if g.encoder.lists("feature_layer", block + 1) {
            kept = if kept == Id::NONE { x } else { g.concat(kept, x, 0) };
        }
        // Half-way a guess at the text is added to the sound.
        if block + 1 == blocks / 2 {
            let (out, back) = (g.needed("a.enc_ctc_out"), g.needed("a.enc_ctc_out_mid"));
            let guess = g.linear(x, out);
            let guess = g.soft_max(guess, Id::NONE, Id::NONE);
            let guess = g.linear(guess, back);
            x = g.add(x, guess);
        }
    }
    if concatenates && kept != Id::NONE {
        x = g.concat(kept, x, 0);
    }
    let window = g.encoder.number("projector.window_size").clamp(1, 8_192);
    let queries = window / g.encoder.number("projector.downsample_rate").max(1);
    let heads = g.encoder.number("projector.head_count").max(1);
    let windows = frames.div_ceil(window);
    let padded = windows.saturating_mul(window);
    if padded > frames {
        x = g.pad(x, [0, padded - frames, 0, 0]);
    }
    let wide = g.get(x).ne[0];
    let seen = g.reshape(x, [wide, window, windows, 1]);
    let query = g.need("a.proj_query");
    let norm = g.needed("a.proj_norm");
    let query = g.norm(Norm::Layer, query, norm);
    let query = g.reshape(query, [width, queries, 1, 1]);
    let mut asked = g.repeat(query, [width, queries, windows, 1]);
    for block in 0..2 {
        asked = queried(g, &format!("a.proj_blk.{block}"), asked, seen, width / heads);
    }
    let x = g.reshape(asked, [width, queries.saturating_mul(windows), 1, 1]);
    let matrix = g.needed("a.proj_linear");
    let x = g.linear(x, matrix);
    g.expand(x);
}

fn speech_block(g: &mut Clip, at: &str, x: Id, chunks: (u64, u64), distances: Id, mask: Id) -> Id {
    let network = |g: &mut Clip, x: Id, which: &str| {
        let norm = g.needed(&format!("{at}.ffn_norm{which}"));
        let normed = g.norm(Norm::Layer, x, norm);
        let [up, down] = ["ffn_up", "ffn_down"].map(|name| g.needed(&format!("{at}.{name}{which}")));
        let fed = g.feed(normed, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
        let fed = g.scale(fed);
        g.add(x, fed)
    };
    let x = network(g, x, "");
    let norm = g.needed(&format!("{at}.ln1"));
    let normed = g.norm(Norm::Layer, x, norm);
    let attended = speech_attention(g, at, normed, chunks, distances, mask);
    let x = g.add(x, attended);
    let norm = g.needed(&format!("{at}.norm_conv"));
    let normed = g.norm(Norm::Layer, x, norm);
    let first = g.needed(&format!("{at}.conv_pw1"));
    let wide = g.linear(normed, first);
    let Tensor { ne, nb, .. } = *g.get(wide);
    let half = ne[0] / 2;
    let gate = g.view_2d(wide, [half, ne[1]], nb[1], half.saturating_mul(nb[0]));
    let gate = g.unary(Op::Sigmoid, gate);
    let signal = g.view_2d(wide, [half, ne[1]], nb[1], 0);
    let gated = g.mul(signal, gate);
    let gated = g.cont_transposed(gated);
    let edge = g.encoder.number("conv_kernel_size") / 2;
    let padded = g.pad(gated, [edge.saturating_mul(2), 0, 0, 0]);
    let kernel = g.need(&format!("{at}.conv_dw.weight"));
    let convolved = g.ssm_conv(padded, kernel);
    let norm = g.needed(&format!("{at}.conv_norm"));
    let normed = g.mul(convolved, norm.weight);
    let normed = g.add_if(normed, norm.bias);
    let normed = g.unary(Op::Silu, normed);
    let second = g.needed(&format!("{at}.conv_pw2"));
    let convolved = g.linear(normed, second);
    let x = g.add(x, convolved);
    let x = network(g, x, "_1");
    let norm = g.needed(&format!("{at}.ln2"));
    g.norm(Norm::Layer, x, norm)
}

fn speech_attention(g: &mut Clip, at: &str, x: Id, (chunk, chunks): (u64, u64), distances: Id, mask: Id) -> Id {
    let (head, heads, width, frames) = (g.sizes().head, g.sizes().heads, g.sizes().embedding, g.sizes().width);
    let padded = chunk.saturating_mul(chunks);
    let x = if frames < padded { g.pad(x, [0, padded - frames, 0, 0]) } else { x };
    let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
        let matrix = g.need(&format!("{at}.{name}.weight"));
        let x = g.product(matrix, x);
        g.reshape(x, [head, heads, chunk, chunks])
    });
    let asked = g.permute(q, [0, 2, 1, 3]);
    let k = g.cont_permuted(k, [0, 2, 1, 3]);
    let by_content = g.mul_mat(k, asked);
    let table = g.need(&format!("{at}.attn_rel_pos_emb"));
    let places = g.get_rows(table, distances);
    let places = g.reshape(places, [head, chunk, chunk, 1]);
    let places = g.reshape(places, [head, chunk, 1, chunk]);
    let by_chunk = g.permute(q, [0, 1, 3, 2]);
    let by_place = g.mul_mat(places, by_chunk);
    let by_place = g.cont_permuted(by_place, [0, 2, 3, 1]);
    let scores = g.add(by_content, by_place);
    let weights = g.soft_max(scores, mask, Id::NONE);
    let v = g.cont_permuted(v, [1, 2, 0, 3]);
    let x = g.mul_mat(v, weights);
    let x = g.permute(x, [0, 2, 1, 3]);
    let mut x = g.cont_as(x, [width, padded, 1, 1]);
    if frames < padded {
        let row = g.get(x).nb[1];
        x = g.view_2d(x, [width, frames], row, 0);
    }
    let output = g.needed(&format!("{at}.attn_out"));
    g.linear(x, output)
}
