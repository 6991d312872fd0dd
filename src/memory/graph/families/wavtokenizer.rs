//! `WavTokenizer`'s decoder: from tokens to a spectrum by convolutions along time, without positions
//! and without a cache.

use crate::memory::graph::feed_forward::{Activation, GateType, Matrices, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{Id, Op};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// The network of a `ConvNeXt` block, which has no gate.
const POINTWISE: Matrices = Matrices { up: Role::ConvPw1, gate: Role::FfnGate, down: Role::ConvPw2 };

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "wavtokenizer-dec").then_some(wavtokenizer)
}

/// Two runs over the blocks, as each number stands for a block of either net.
fn wavtokenizer(g: &mut Builder) {
    let (posnet, convnext) = (g.number(Hyper::PosnetBlocks), g.number(Hyper::ConvnextBlocks));
    let x = g.embeddings();
    let x = turned(g, x);
    let kernel = g.first_weight(Role::Conv1d, Suffix::Weight);
    let bias = g.first_weight(Role::Conv1d, Suffix::Bias);
    let x = g.conv_1d(kernel, x);
    let mut x = g.add(x, bias);
    for &block in g.blocks().iter().filter(|&&block| u64::from(block) < posnet) {
        g.enter(Some(block));
        x = match block {
            0 | 1 | 3 | 4 => residual(g, x),
            2 => attention(g, x),
            _ => first_norm(g, Norm::Group, x, Role::AttnNorm),
        };
    }
    let x = turned(g, x);
    g.enter(Some(0));
    let weight = g.first_weight(Role::TokenEmbdNorm, Suffix::Weight);
    let bias = g.first_weight(Role::TokenEmbdNorm, Suffix::Bias);
    let x = g.norm_with(Norm::Layer, x, weight, bias);
    let mut x = turned(g, x);
    for &block in g.blocks().iter().filter(|&&block| u64::from(block) < convnext) {
        g.enter(Some(block));
        x = convnext_block(g, x);
    }
    let x = turned(g, x);
    let x = g.output_norm(Norm::Layer, x);
    let matrix = g.output_weight(Role::Output, Suffix::Weight);
    let x = g.mul_mat(matrix, x);
    let bias = g.output_weight(Role::Output, Suffix::Bias);
    let x = g.add(x, bias);
    g.finish_embedding(x);
}

/// Swaps time and channels.
fn turned(g: &mut Builder, x: Id) -> Id {
    let turned = g.transpose(x);
    g.cont(turned)
}

/// A norm that counts as the first block's, wherever its weights are (`build_norm` with block 0).
fn first_norm(g: &mut Builder, norm: Norm, x: Id, role: Role) -> Id {
    let (weight, bias) = (g.weight(role), g.bias(role));
    let block = g.block.replace(0);
    let normed = g.norm_with(norm, x, weight, bias);
    g.block = block;
    normed
}

/// A convolution with its bias.
fn convolve(g: &mut Builder, x: Id, role: Role) -> Id {
    let (kernel, bias) = (g.weight(role), g.bias(role));
    let x = g.conv_1d(kernel, x);
    g.add(x, bias)
}

/// Two convolutions beside the stream.
fn residual(g: &mut Builder, stream: Id) -> Id {
    let mut x = stream;
    for (norm, convolution) in [(Role::PosNetNorm1, Role::PosNetConv1), (Role::PosNetNorm2, Role::PosNetConv2)] {
        let normed = first_norm(g, Norm::Group, x, norm);
        let open = g.unary(Op::Sigmoid, normed);
        let active = g.mul(open, normed);
        x = convolve(g, active, convolution);
    }
    g.add(x, stream)
}

/// Attention with one head, its projections written as convolutions.
fn attention(g: &mut Builder, stream: Id) -> Id {
    let normed = first_norm(g, Norm::Group, stream, Role::AttnNorm);
    let [q, k, v] = [Role::AttnQ, Role::AttnK, Role::AttnV].map(|role| convolve(g, normed, role));
    let (q, k) = (turned(g, q), turned(g, k));
    let weights = g.mul_mat(k, q);
    let weights = g.soft_max(weights, Id::NONE, Id::NONE);
    let attended = g.mul_mat(weights, v);
    let attended = convolve(g, attended, Role::AttnOutput);
    g.add(attended, stream)
}

/// A convolution by channel and a network by moment, beside the stream.
fn convnext_block(g: &mut Builder, stream: Id) -> Id {
    let (kernel, bias) = (g.weight(Role::ConvDw), g.bias(Role::ConvDw));
    let x = g.conv_1d_by_channel(kernel, stream);
    let x = g.add(x, bias);
    let x = turned(g, x);
    let x = g.loose_norm_if(Norm::Layer, x, Role::ConvNorm);
    let x = g.feed_forward(x, POINTWISE, Activation::Gelu, GateType::Sequential);
    let scale = g.weight(Role::ConvGamma);
    let x = g.mul(x, scale);
    let x = turned(g, x);
    g.add(x, stream)
}
