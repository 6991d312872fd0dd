//! MiniCPM-V: a resampler that looks at the patches with a few queries, or, from 4.6 on, two mergers.

use super::Family;
use super::clip::{Act, Clip, Qkv, Vit};
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, Op};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "resampler" => resampler,
        "minicpmv4_6" => mergers,
        _ => return None,
    })
}

/// Width of a head of the resampler.
const HEAD: u64 = 128;

/// Up to 4.5: attention of learned queries over the patches.
fn resampler(g: &mut Clip) {
    let patches = g.patches();
    let out = g.need("resampler.proj.weight");
    let width = g.get(out).ne[0];
    let omega = g.input(F32, [width / 4, 1, 1, 1]);
    let (rows, columns) = (g.input(F32, [1, patches, 1, 1]), g.input(F32, [1, patches, 1, 1]));
    let ids = g.positions(patches);
    let table = g.need("v.position_embd.weight");
    let positions = g.get_rows(table, ids);
    let x = g.patched();
    let x = g.transform(x, patches, &mut Vit { positions, ..Vit::new(Norm::Layer) });

    let q = g.need("resampler.query");
    let matrix = g.need("resampler.kv.weight");
    let v = g.product(matrix, x);
    let norm = g.needed("resampler.ln_q");
    let q = g.norm(Norm::Layer, q, norm);
    let norm = g.needed("resampler.ln_kv");
    let v = g.norm(Norm::Layer, v, norm);
    let all = g.repeat(omega, [width / 4, patches, 1, 1]);
    let across = g.mul(all, columns);
    let down = g.mul(all, rows);
    let waves = [across, down].map(|angles| {
        let (sine, cosine) = (g.unary(Op::Other, angles), g.unary(Op::Other, angles));
        g.concat(sine, cosine, 0)
    });
    let places = g.concat(waves[0], waves[1], 0);
    let k = g.add(v, places);
    let queries = queries(g);
    let heads = width / HEAD;
    let [q, k, v] = [(q, "q", queries), (k, "k", patches), (v, "v", patches)].map(|(x, name, count)| {
        let pair = g.needed(&format!("resampler.attn.{name}"));
        let x = g.linear(x, pair);
        g.reshape(x, [HEAD, heads, count, 1])
    });
    let output = g.needed("resampler.attn.out");
    let x = g.attend(output, Qkv { q, k, v }, Id::NONE);
    let norm = g.needed("resampler.ln_post");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.product(out, x);
    g.expand(x);
}

/// Returns the queries of the resampler: 64 from version 3 on, 96 before.
fn queries(g: &Clip) -> u64 {
    let stated = g.encoder.common("minicpmv_query_num").unwrap_or(0);
    match g.encoder.common("minicpmv_version") {
        _ if stated > 0 => stated,
        Some(3..=6 | 100_045) => 64,
        _ => 96,
    }
}

/// From 4.6 on: attention within squares of four patches in the middle of the tower, which joins
/// them, and another joining behind it.
fn mergers(g: &mut Clip) {
    let patches = g.patches();
    let (rows, columns) = (g.rows_of_patches() / 2, g.columns() / 2);
    let joined = rows.saturating_mul(columns);
    let ids = g.positions(patches);
    let table = g.need("v.position_embd.weight");
    let learned = g.get_rows(table, ids);
    // With a merge of 2 there is no merger in the middle.
    let halves = g.sizes().merge != 2;
    let last = if halves { (rows / 2).saturating_mul(columns / 2) } else { joined };
    let x = g.patched();
    let mut x = g.add(x, learned);
    let pre = g.pair("v.pre_ln");
    if pre.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, pre);
    }
    let blocks = g.sizes().blocks;
    if halves {
        let middle = g.encoder.list("wa_layer_indexes").first().copied().unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let middle = (middle as u64).saturating_add(1).min(blocks);
        for block in 0..middle {
            x = plain_block(g, x, block, patches);
        }
        x = window_merger(g, x, patches, joined);
        for block in middle..blocks {
            x = plain_block(g, x, block, joined);
        }
    } else {
        for block in 0..blocks {
            x = plain_block(g, x, block, patches);
        }
    }
    let post = g.pair("v.post_ln");
    if post.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, post);
    }
    let corners = corners(g, x, last);
    let x = side_by_side(g, corners);
    let norm = g.needed("mm.input_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.feed_two(x, "mm.up", "mm.down");
    g.expand(x);
}

fn window_merger(g: &mut Clip, x: Id, patches: u64, joined: u64) -> Id {
    let (into, back) = (g.positions(patches), g.positions(patches));
    let mask = g.square_mask(patches);
    let mask = g.for_flash(mask);
    let norm = g.needed("v.vit_merger.ln1");
    let normed = g.norm(Norm::Layer, x, norm);
    let normed = g.get_rows(normed, into);
    let (head, heads) = (g.sizes().head, g.sizes().heads);
    let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
        let pair = g.needed(&format!("v.vit_merger.{name}"));
        let x = g.linear(normed, pair);
        g.reshape(x, [head, heads, patches, 1])
    });
    let output = g.needed("v.vit_merger.attn_out");
    let attended = g.attend(output, Qkv { q, k, v }, mask);
    let attended = g.get_rows(attended, back);
    let x = g.add(attended, x);
    let corners = corners(g, x, joined);
    let [first, others @ ..] = corners;
    let mut mean = first;
    for corner in others {
        mean = g.add(mean, corner);
    }
    let mean = g.scale(mean);
    let side = side_by_side(g, corners);
    let norm = g.needed("v.vit_merger.ds_ln");
    let normed = g.norm(Norm::Layer, side, norm);
    let fed = g.feed_two(normed, "v.vit_merger.ds_ffn_up", "v.vit_merger.ds_ffn_down");
    g.add(fed, mean)
}

/// Returns the four corners of each square.
fn corners(g: &mut Clip, x: Id, squares: u64) -> [Id; 4] {
    [(); 4].map(|()| {
        let ids = g.positions(squares);
        g.get_rows(x, ids)
    })
}

fn side_by_side(g: &mut Clip, [first, second, third, fourth]: [Id; 4]) -> Id {
    let x = g.concat(first, second, 0);
    let x = g.concat(x, third, 0);
    g.concat(x, fourth, 0)
}

fn plain_block(g: &mut Clip, x: Id, block: u64, positions: u64) -> Id {
    let at = format!("v.blk.{block}");
    let norm = g.pair(&format!("{at}.ln1"));
    let normed = g.norm(Norm::Layer, x, norm);
    let qkv = g.project(&at, normed, Norm::Layer, positions, 1);
    let output = g.needed(&format!("{at}.attn_out"));
    let attended = g.attend(output, qkv, Id::NONE);
    let scale = g.find(&format!("{at}.ls1.weight"));
    let attended = g.mul_if(attended, scale);
    let x = g.add(attended, x);
    let norm = g.pair(&format!("{at}.ln2"));
    let normed = g.norm(Norm::Layer, x, norm);
    let mlp = g.mlp(&at);
    let fed = g.feed(normed, mlp, Act::Smooth);
    let scale = g.find(&format!("{at}.ls2.weight"));
    let fed = g.mul_if(fed, scale);
    g.add(x, fed)
}
