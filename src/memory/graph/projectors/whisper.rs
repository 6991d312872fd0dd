//! Whisper's encoder of sound and the projectors behind it, and those that begin with convolutions
//! over time and pitch.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Qkv, Vit};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::ops::Glu;
use crate::memory::graph::tensor::{Id, Op, Tensor};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "ultravox" => ultravox,
        "qwen2a" => qwen2_audio,
        "voxtral" | "musicflamingo" => voxtral,
        "meralion" => meralion,
        "glma" => glm_asr,
        "qwen3a" => qwen3_audio,
        "dots3note_a" => dots3note,
        "mimo_audio" => mimo_audio,
        _ => return None,
    })
}

/// Ultravox: stacked frames, norms around a gated matrix.
fn ultravox(g: &mut Clip) {
    let x = tower(g);
    let x = g.stacked(x, factor(g));
    let weight = g.need("mm.a.norm_pre.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let matrix = g.need("mm.a.mlp.1.weight");
    let x = g.product(matrix, x);
    let x = g.glu(Glu::Plain, x, Id::NONE);
    let weight = g.need("mm.a.norm_mid.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let matrix = g.need("mm.a.mlp.2.weight");
    let x = g.product(matrix, x);
    g.expand(x);
}

/// Qwen 2 Audio: one matrix.
fn qwen2_audio(g: &mut Clip) {
    let x = tower(g);
    let matrix = g.needed("mm.a.fc");
    let x = g.linear(x, matrix);
    g.expand(x);
}

/// Voxtral, which stacks frames, and Music Flamingo, which does not.
fn voxtral(g: &mut Clip) {
    let x = tower(g);
    let stacks = g.encoder.name == "voxtral";
    let x = if stacks { g.stacked(x, factor(g)) } else { x };
    let [up, down] = ["mm.a.mlp.1", "mm.a.mlp.2"].map(|name| g.needed(name));
    let (up, down) = if stacks { (up.unbiased(), down.unbiased()) } else { (up, down) };
    let x = g.feed(x, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
    g.expand(x);
}

/// `MERaLiON`: stacked frames, a matrix, then two beside each other that gate.
fn meralion(g: &mut Clip) {
    let x = tower(g);
    let x = g.stacked(x, factor(g));
    let norm = g.needed("mm.a.norm_pre");
    let x = g.norm(Norm::Layer, x, norm);
    let [first, gate, pool, last] = [0, 1, 2, 3].map(|number| g.needed(&format!("mm.a.mlp.{number}")));
    let x = g.linear(x, first);
    let x = g.unary(Op::Silu, x);
    let gate = g.linear(x, gate);
    let gate = g.unary(Op::Silu, gate);
    let pool = g.linear(x, pool);
    let x = g.mul(gate, pool);
    let x = g.linear(x, last);
    g.expand(x);
}

/// GLM-ASR: a norm, stacked frames, a network, tokens before and after.
fn glm_asr(g: &mut Clip) {
    let x = tower(g);
    let norm = g.needed("mm.a.norm_pre");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.stacked(x, factor(g));
    let x = g.feed_two(x, "mm.a.mlp.1", "mm.a.mlp.2");
    super::tokens::framed(g, x);
}

/// Qwen 3 Audio and ASR: the sound in chunks of 100 frames, each with positions of its own.
fn qwen3_audio(g: &mut Clip) {
    const CHUNK: u64 = 100;
    let raw = g.raw(1);
    let [frames, bins, ..] = g.get(raw).ne;
    let chunks = (frames / CHUNK).max(1);
    let (row, chunk) = (frames.saturating_mul(4), CHUNK * 4);
    let x = g.view(raw, [CHUNK, bins, 1, chunks], [row, chunk, chunk], 0);
    let x = g.cont(x);
    let x = convolved(g, x);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1]);
    let matrix = g.need("a.conv_out.weight");
    let x = g.mul_mat(matrix, x);
    let positions = g.get(x).ne[1];
    let table = g.need("a.position_embd.weight");
    let Tensor { ne, nb, .. } = *g.get(table);
    let own = g.view_2d(table, [ne[0], positions / chunks], nb[1], 0);
    let all = g.repeat(own, [ne[0], positions, 1, 1]);
    let x = g.add(x, all);
    let x = g.transform(x, positions, &mut Vit::new(Norm::Layer));
    let x = g.feed_two(x, "mm.a.mlp.1", "mm.a.mlp.2");
    g.expand(x);
}

/// dots3.note: the sound as a whole, half of each head turned.
fn dots3note(g: &mut Clip) {
    let raw = g.raw(1);
    let x = convolved(g, raw);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
    let matrix = g.need("a.conv_out.weight");
    let x = g.mul_mat(matrix, x);
    let count = g.get(x).ne[1];
    let positions = g.positions(count);
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let x = g.transform(x, count, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Rms) });
    let norm = g.needed("mm.a.norm_pre");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.feed_two(x, "mm.a.mlp.1", "mm.a.mlp.3");
    g.expand(x);
}

/// Three convolutions over time and pitch, each halving both, with the pitch laid into the rows.
fn convolved(g: &mut Clip, mut x: Id) -> Id {
    for number in 1..=3 {
        let pair = g.needed(&format!("a.conv2d.{number}"));
        x = g.conv_2d(pair.weight, x, Steps::of(2).padded(1));
        if pair.bias != Id::NONE {
            let channels = g.get(x).ne[2];
            let bias = g.reshape(pair.bias, [1, 1, channels, 1]);
            x = g.add(x, bias);
        }
        x = g.unary(Op::Unary, x);
    }
    g.cont_permuted(x, [2, 0, 1, 3])
}

/// MiMo's audio tokenizer: the tower, codes looked up in several books one after the other, and a
/// small transformer over groups of them.
fn mimo_audio(g: &mut Clip) {
    let embedding = g.sizes().embedding;
    let x = halved(g);
    let count = g.get(x).ne[1];
    let positions = g.positions(count);
    let (whole, windowed) = (g.square_mask(count), g.square_mask(count));
    let modes = g.encoder.list("wa_pattern_mode");
    let mask = |block: u64| {
        let mode = usize::try_from(block).ok().and_then(|block| modes.get(block));
        if mode.is_some_and(|&mode| mode < 0.0) { whole } else { windowed }
    };
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let mut vit = Vit {
        turn: Some(&mut turn),
        mask: &mask,
        skips_post_norm: true,
        keeps: Some((2, Id::NONE)),
        ..Vit::new(Norm::Layer)
    };
    let x = g.transform(x, count, &mut vit);
    let kept = vit.keeps.map_or(Id::NONE, |(_, kept)| kept);
    let x = g.reshape(x, [embedding, count, 1, 1]);
    let x = g.add_if(x, kept);
    let post = g.pair("a.post_ln");
    let x = g.norm(Norm::Layer, x, post);
    let x = g.cont_transposed(x);
    let kernel = g.need("a.downsample.conv.weight");
    let x = g.conv_1d_by(kernel, x, Steps::of(2));
    let x = g.unary(Op::Unary, x);
    let x = g.cont_transposed(x);
    let norm = g.needed("a.downsample.norm");
    let x = g.norm(Norm::Layer, x, norm);
    let sum = coded(g, x);
    let x = grouped(g, sum);
    let [up, down] = ["mm.a.mlp.1", "mm.a.mlp.2"].map(|name| g.needed(name).unbiased());
    let x = g.feed(x, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
    g.expand(x);
}

/// Quantises each position by one book after the other and adds up what the codes stand for.
fn coded(g: &mut Clip, x: Id) -> Id {
    let books = g.need("a.rvq.codebook.weight");
    let sizes = g.encoder.list("rvq.codebook_size");
    let Tensor { ne: [width, most, ..], nb, .. } = *g.get(books);
    let mut rest = x;
    let mut codes = Vec::new();
    for (number, &size) in (0u64..).zip(sizes) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let bins = (size as u64).min(most);
        let book = g.view_2d(books, [width, bins], nb[1], nb[2].saturating_mul(number));
        let book = g.cont(book);
        let squares = g.unary(Op::Sqr, book);
        let lengths = g.sum_rows(Op::SumRows, squares);
        let lengths = g.cont_transposed(lengths);
        let products = g.mul_mat(book, rest);
        let products = g.scale(products);
        let scores = g.binary(Op::Sub, products, lengths);
        let code = g.argmax(scores);
        codes.push(code);
        let meant = g.get_rows(book, code);
        rest = g.binary(Op::Sub, rest, meant);
    }
    let tables = g.need("mm.a.code_embd.weight");
    let Tensor { ne: [width, words, ..], nb, .. } = *g.get(tables);
    let mut sum = Id::NONE;
    for (number, code) in (0u64..).zip(codes) {
        let table = g.view_2d(tables, [width, words], nb[1], nb[2].saturating_mul(number));
        let table = g.cont(table);
        let meant = g.get_rows(table, code);
        sum = if sum == Id::NONE { meant } else { g.add(sum, meant) };
    }
    if sum == Id::NONE { x } else { sum }
}

/// The small transformer, which looks at a group of positions only.
fn grouped(g: &mut Clip, x: Id) -> Id {
    let group = g.encoder.number("local_group_size").max(1);
    let (embedding, head, heads) = (g.sizes().embedding, g.sizes().head, g.sizes().heads);
    let count = g.get(x).ne[1];
    let groups = count.div_ceil(group);
    let padded = groups.saturating_mul(group);
    let mut x = if padded == count { x } else { g.pad(x, [0, padded - count, 0, 0]) };
    let positions = g.positions(padded);
    let mask = g.square_mask(padded);
    for block in 0..g.encoder.number("local_block_count").min(64) {
        let at = format!("mm.a.local_blk.{block}");
        let norm = g.needed(&format!("{at}.ln1")).unbiased();
        let normed = g.norm(Norm::Rms, x, norm);
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
            let pair = g.needed(&format!("{at}.{name}"));
            let x = g.linear(normed, pair);
            g.reshape(x, [head, heads, padded, 1])
        });
        let (q, k) = (g.rope(q, positions, Id::NONE), g.rope(k, positions, Id::NONE));
        let output = g.needed(&format!("{at}.attn_out")).unbiased();
        let attended = g.attend(output, Qkv { q, k, v }, mask);
        x = g.add(x, attended);
        let norm = g.needed(&format!("{at}.ln2")).unbiased();
        let normed = g.norm(Norm::Rms, x, norm);
        let [up, gate, down] =
            ["ffn_up", "ffn_gate", "ffn_down"].map(|name| g.needed(&format!("{at}.{name}")).unbiased());
        let fed = g.feed(normed, Mlp { up, gate, down }, Act::Smooth);
        x = g.add(x, fed);
    }
    let weight = g.need("mm.a.local_norm.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    g.reshape(x, [embedding.saturating_mul(group), groups, 1, 1])
}

/// Whisper's tower: two convolutions over time, the second halving it, and learned positions.
fn tower(g: &mut Clip) -> Id {
    let x = halved(g);
    let count = g.sizes().width / 2;
    let table = g.need("a.position_embd.weight");
    let Tensor { ne, nb, .. } = *g.get(table);
    let positions = g.view_2d(table, [ne[0], count], nb[1], 0);
    g.transform(x, count, &mut Vit { positions, ..Vit::new(Norm::Layer) })
}

fn halved(g: &mut Clip) -> Id {
    let mut x = g.raw(1);
    for (number, stride) in [(1, 1), (2, 2)] {
        let pair = g.needed(&format!("a.conv1d.{number}"));
        x = g.conv_1d_ph(pair.weight, x, stride);
        x = g.add_if(x, pair.bias);
        x = g.unary(Op::Unary, x);
    }
    g.cont_transposed(x)
}

/// Returns the frames that are stacked to one.
fn factor(g: &Clip) -> u64 {
    g.encoder.number("projector.stack_factor").min(1 << 12)
}
