//! DeepSeek-OCR: a SAM tower that shrinks the image, then a second tower over what is left.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Qkv, Vit};
use crate::gguf::TensorType;
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F16, F32, I32, Id, Tensor, row_bytes};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "deepseekocr" => first,
        "deepseekocr2" => second,
        _ => return None,
    })
}

/// The first: a CLIP tower, and SAM's result beside its own.
fn first(g: &mut Clip) {
    let (width, embedding) = (g.sizes().width, g.sizes().embedding);
    let raw = g.raw(3);
    // A row of tiles, one of them here, is laid out as several images.
    let raw = g.reshape(raw, [width.saturating_mul(width), 1, 3, 1]);
    let raw = g.cont_permuted(raw, [0, 2, 1, 3]);
    let raw = g.reshape(raw, [width, width, 3, 1]);
    let sam = sam(g, raw);
    let [columns, rows, channels, images] = g.get(sam).ne;
    let patches = columns.saturating_mul(rows);
    let x = g.reshape(sam, [patches, channels, images, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);

    let table = g.need("v.position_embd.weight");
    let Tensor { kind, ne: [wide, count, ..], .. } = *g.get(table);
    let (side, stored) = (patches.isqrt(), count.saturating_sub(1).isqrt());
    let (mut learned, mut positions) = (table, count);
    if side != stored {
        let row = row_bytes(kind, wide);
        let old = g.view_2d(table, [wide, stored.saturating_mul(stored)], row, 0);
        let class = g.view_2d(table, [wide, 1], row, stored.saturating_mul(stored));
        let new = g.interpolate(old, [side, side, wide, 1]);
        let new = g.reshape(new, [embedding, side.saturating_mul(side), 1, 1]);
        learned = g.concat(new, class, 1);
        positions = side.saturating_mul(side) + 1;
    }
    let class = g.need("v.class_embd");
    let class = g.repeat(class, [embedding, 1, 1, 1]);
    let x = g.concat(class, x, 1);
    let ids = numbered(g, positions);
    let learned = g.get_rows(learned, ids);
    let clip = g.transform(x, positions, &mut Vit { positions: learned, ..Vit::new(Norm::Layer) });
    g.expand(clip);

    let sam = g.cont_permuted(sam, [1, 2, 0, 3]);
    let channels = g.get(sam).ne[0];
    let sam = g.reshape(sam, [channels, patches, 1, 1]);
    let nb = g.get(clip).nb;
    let clip = g.view_3d(clip, [embedding, patches, 1], [nb[1], nb[2]], nb[1]);
    let x = g.concat(clip, sam, 0);
    let matrix = g.needed("mm.model.fc");
    let x = g.mul_mat(matrix.weight, x);
    let x = g.add_if(x, matrix.bias);
    let width = g.get(x).ne[0];
    let x = g.reshape(x, [width.saturating_mul(side), side, 1, 1]);
    let x = g.cont_permuted(x, [0, 2, 1, 3]);
    let x = g.reshape(x, [width, side, side, 1]);
    let end = g.need("v.image_newline");
    let end = g.repeat(end, [width, 1, side, 1]);
    let x = g.concat(x, end, 1);
    let x = g.reshape(x, [width, (side + 1).saturating_mul(side), 1, 1]);
    g.expand(x);
}

/// The second: a language model's tower that looks at SAM's result with learned queries.
fn second(g: &mut Clip) {
    let raw = g.raw(3);
    let sam = sam(g, raw);
    let [columns, rows, channels, images] = g.get(sam).ne;
    let patches = columns.saturating_mul(rows);
    let x = g.reshape(sam, [patches, channels, images, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let (name, queries) = if patches == 144 { (768, 144) } else { (1_024, 256) };
    let query = g.need(&format!("v.resample_query_{name}.weight"));
    let query = g.cast(query, F32);
    let wide = g.get(query).ne[0];
    let query = g.repeat(query, [wide, queries, 1, 1]);
    let x = g.concat(x, query, 1);
    let positions = g.get(x).ne[1];
    let mask = g.square_mask(positions);
    let ids = numbered(g, positions);
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, ids, Id::NONE);
    let mut vit = Vit { turn: Some(&mut turn), mask: &|_| mask, ..Vit::new(Norm::Rms) };
    let x = g.transform(x, positions, &mut vit);
    let Tensor { ne, nb, .. } = *g.get(x);
    let from = nb[1].saturating_mul(positions.saturating_sub(queries));
    let x = g.view_3d(x, [ne[0], queries, ne[2]], [nb[1], nb[2]], from);
    let x = g.cont(x);
    g.expand(x);
    let matrix = g.needed("mm.model.fc");
    let x = g.mul_mat(matrix.weight, x);
    let x = g.add_if(x, matrix.bias);
    g.expand(x);
}

/// Returns the numbers from 0 on, made by the graph itself.
fn numbered(g: &mut Clip, count: u64) -> Id {
    let numbers = g.arange(count);
    g.cast(numbers, I32)
}

/// Blocks of SAM that look at the whole image; the others look at windows.
const WHOLE: [u64; 4] = [2, 5, 8, 11];

/// SAM's tower, with the convolutions that shrink its result (`build_sam`).
fn sam(g: &mut Clip, raw: Id) -> Id {
    let (width, blocks) = (g.encoder.number("sam.embedding_length"), g.encoder.number("sam.block_count"));
    let (heads, window) = (g.encoder.number("sam.head_count").max(1), g.encoder.number("window_size").max(1));
    let patch = g.needed("v.sam.patch_embd");
    let stride = g.get(patch.weight).ne[0];
    let x = convolved(g, patch.weight, raw, Steps::of(stride));
    let bias = g.need("v.sam.patch_embd.bias");
    let bias = g.reshape(bias, [1, 1, width, 1]);
    let x = g.add(x, bias);
    let x = g.cont_permuted(x, [1, 2, 0, 3]);
    let local = g.input(I32, [window, window, 1, 1]);
    let [_, columns, rows, _] = g.get(x).ne;
    let global = g.input(I32, [columns, rows, 1, 1]);
    let table = g.need("v.sam.pos_embd.weight");
    let mut x = if g.get(table).ne[1] == columns {
        g.add(x, table)
    } else {
        let old = g.cont_permuted(table, [2, 0, 1, 3]);
        let new = g.interpolate(old, [columns, columns, width, 1]);
        let new = g.cont_permuted(new, [1, 2, 0, 3]);
        g.add(x, new)
    };
    for block in 0..blocks.min(64) {
        let at = format!("v.sam.blk.{block}");
        let norm = g.needed(&format!("{at}.pre_ln"));
        let mut attended = g.norm(Norm::Layer, x, norm);
        let [_, columns, rows, _] = g.get(attended).ne;
        let whole = WHOLE.contains(&block);
        if !whole {
            attended = cut(g, attended, window);
        }
        attended = attend(g, &at, attended, (width, heads), if whole { global } else { local });
        if !whole {
            attended = uncut(g, attended, (columns, rows), window);
        }
        x = g.add(attended, x);
        let norm = g.needed(&format!("{at}.post_ln"));
        let normed = g.norm(Norm::Layer, x, norm);
        let mlp = Mlp {
            up: g.needed(&format!("{at}.mlp.lin1")),
            gate: Pair::NONE,
            down: g.needed(&format!("{at}.mlp.lin2")),
        };
        let fed = g.feed(normed, mlp, Act::Smooth);
        x = g.add(fed, x);
    }
    let mut x = g.cont_permuted(x, [2, 0, 1, 3]);
    for (kernel, norm, padding) in [(0, 1, 0), (2, 3, 1)] {
        let kernel = g.need(&format!("v.sam.neck.{kernel}.weight"));
        x = convolved(g, kernel, x, Steps::of(1).padded(padding));
        x = g.cont_permuted(x, [1, 2, 0, 3]);
        let norm = g.needed(&format!("v.sam.neck.{norm}"));
        x = g.norm(Norm::Layer, x, norm);
        x = g.cont_permuted(x, [2, 0, 1, 3]);
    }
    for kernel in ["v.sam.net_2.weight", "v.sam.net_3.weight"] {
        let kernel = g.need(kernel);
        x = convolved(g, kernel, x, Steps::of(2).padded(1));
    }
    g.expand(x);
    x
}

/// A convolution that unfolds to f32 unless the kernel is f16 (`conv_2d_f32`).
fn convolved(g: &mut Clip, kernel: Id, x: Id, steps: Steps) -> Id {
    let kind = if g.get(kernel).kind == TensorType::F16 { F16 } else { F32 };
    g.conv_2d_over(kernel, x, steps, kind)
}

/// Attention with learned distances of rows and columns, which become the mask.
fn attend(g: &mut Clip, at: &str, x: Id, (width, heads): (u64, u64), distances: Id) -> Id {
    let [_, columns, rows, images] = g.get(x).ne;
    let (places, head, many) = (columns.saturating_mul(rows), width / heads, heads.saturating_mul(images));
    let fused = g.needed(&format!("{at}.attn.qkv"));
    let x = g.mul_mat(fused.weight, x);
    let x = g.add_if(x, fused.bias);
    let x = g.reshape(x, [width, 3, places, images]);
    let nb = g.get(x).nb;
    let [q, k, v] = [0, 1, 2].map(|part| {
        let part = g.view_3d(x, [width, places, images], [nb[2], nb[3]], nb[1].saturating_mul(part));
        let part = g.cont(part);
        g.reshape(part, [head, heads, places, images])
    });
    let [across, down] = [("pos_w", columns), ("pos_h", rows)].map(|(name, side)| {
        let table = g.need(&format!("{at}.attn.{name}.weight"));
        relative(g, table, distances, side)
    });
    let asked = g.cont_permuted(q, [0, 2, 1, 3]);
    let asked = g.reshape(asked, [head, columns, rows, many]);
    let turned = g.cont_permuted(asked, [0, 2, 1, 3]);
    let across = g.mul_mat(across, turned);
    let across = g.cont_permuted(across, [0, 2, 1, 3]);
    let across = g.reshape(across, [columns, 1, places, many]);
    let across = g.repeat(across, [columns, rows, places, many]);
    let down = g.mul_mat(down, asked);
    let down = g.reshape(down, [1, rows, places, many]);
    let mask = g.add(across, down);
    let mask = g.reshape(mask, [places, places, heads, images]);
    let mask = g.for_flash(mask);
    let output = g.needed(&format!("{at}.attn.out"));
    let attended = g.attend(output, Qkv { q, k, v }, mask);
    let attended = g.cont(attended);
    g.reshape(attended, [width, columns, rows, images])
}

/// Returns the learned distances of each pair of places along one side (`get_rel_pos`).
fn relative(g: &mut Clip, table: Id, distances: Id, side: u64) -> Id {
    let [channels, length, more, most] = g.get(table).ne;
    let needed = side.saturating_mul(2).saturating_sub(1);
    let mut table = table;
    if needed != length {
        let all = channels.saturating_mul(more).saturating_mul(most);
        let x = g.cont_permuted(table, [1, 0, 2, 3]);
        let x = g.reshape(x, [length, 1, all, 1]);
        let x = g.interpolate(x, [needed, 1, all, 1]);
        let x = g.reshape(x, [needed, channels, more, most]);
        table = g.cont_permuted(x, [1, 0, 2, 3]);
    }
    let ids = g.reshape(distances, [side.saturating_mul(side), 1, 1, 1]);
    let rows = g.get_rows(table, ids);
    g.reshape(rows, [channels, side, side, 1])
}

/// Cuts an image into windows, padded to whole ones (`window_partition`).
fn cut(g: &mut Clip, x: Id, window: u64) -> Id {
    let [channels, columns, rows, images] = g.get(x).ne;
    let (across, down) = (columns.div_ceil(window), rows.div_ceil(window));
    let by = [0, across.saturating_mul(window) - columns, down.saturating_mul(window) - rows, 0];
    let x = if by == [0; 4] { x } else { g.pad(x, by) };
    let x = g.reshape(x, [channels.saturating_mul(window), across, window, down.saturating_mul(images)]);
    let x = g.cont_permuted(x, [0, 2, 1, 3]);
    g.reshape(x, [channels, window, window, across.saturating_mul(down).saturating_mul(images)])
}

/// Puts windows together again (`window_unpartition`).
fn uncut(g: &mut Clip, x: Id, (columns, rows): (u64, u64), window: u64) -> Id {
    let [channels, .., windows] = g.get(x).ne;
    let (across, down) = (columns.div_ceil(window), rows.div_ceil(window));
    let images = windows / across.saturating_mul(down).max(1);
    let x = g.reshape(x, [channels.saturating_mul(window), window, across, down.saturating_mul(images)]);
    let x = g.cont_permuted(x, [0, 2, 1, 3]);
    let x = g.reshape(x, [channels, across.saturating_mul(window), down.saturating_mul(window), images]);
    let nb = g.get(x).nb;
    let x = g.view(x, [channels, columns, rows, images], [nb[1], nb[2], nb[3]], 0);
    g.cont(x)
}
