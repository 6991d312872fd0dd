//! Which weights a device can use (`weight_buft_supported` in `llama-model-loader.cpp`).
//!
//! Before llama.cpp puts a weight on a device it asks whether that computes what the weight is for.
//! If it does not, the weight stays in host memory.

use super::backend::Backends;
use super::tensor::{BackendId, F32, Graph, I32, Id, Tensor};
use crate::memory::Backend;
use crate::memory::architecture;
use crate::memory::hyper::Hyper;
use crate::memory::structure::Structure;
use crate::memory::tensor::{Role, Suffix, TensorShape};

/// Tokens and sequences of the operation that is asked for.
const TOKENS: u64 = 512;
const SEQUENCES: u64 = 3;

/// Returns whether the GPUs of a kind can use a weight. Asked are those that they refuse at times:
/// convolutions and scans of states by their sizes, products by their element types.
pub(in crate::memory) fn is_usable(structure: &Structure, backend: Backend, tensor: &TensorShape) -> bool {
    let weighs = tensor.suffix == Suffix::Weight;
    match tensor.role {
        Role::SsmConv1d | Role::ShortconvConv | Role::PleConv1d if weighs => asked(backend, tensor, convolution),
        Role::SsmA if architecture::scans_states(&structure.architecture) => {
            asked(backend, tensor, |graph, weight| scan(graph, weight, structure))
        }
        // Factors whose names do not keep them from being quantised.
        Role::PleNormKey | Role::PleNormQuery | Role::PleNormConv | Role::NextnHnorm if weighs => {
            asked(backend, tensor, factor)
        }
        Role::NextnEmbedTokens if weighs => asked(backend, tensor, rows),
        _ if is_ternary(tensor) => asked(backend, tensor, product),
        _ => true,
    }
}

/// Returns whether a weight has one of the ternary types (`TQ1_0` and `TQ2_0`), which few GPUs know.
fn is_ternary(tensor: &TensorShape) -> bool {
    matches!(tensor.kind.0, 34 | 35)
}

/// Asks a GPU for an operation on a weight.
fn asked(backend: Backend, shape: &TensorShape, operation: impl FnOnce(&mut Graph, Id) -> Id) -> bool {
    let mut graph = Graph::default();
    let weight = graph.push(Tensor::new(shape.kind, shape.dims.map(u64::from)));
    let operation = operation(&mut graph, weight);
    Backends::new(backend, 1).supports(BackendId(0), &graph, operation)
}

fn convolution(graph: &mut Graph, weight: Id) -> Id {
    let [taps, channels, ..] = graph.get(weight).ne;
    let columns = taps.saturating_add(TOKENS).saturating_sub(1);
    let window = graph.constant(F32, [columns, channels, SEQUENCES, 1]);
    graph.ssm_conv(window, weight)
}

/// A scan, of Mamba 2 where the weight has one number a head.
fn scan(graph: &mut Graph, weight: Id, structure: &Structure) -> Id {
    let number = |key| u64::from(structure.hyper.number(key));
    let [width, heads, ..] = graph.get(weight).ne;
    let state = if width == 1 { number(Hyper::SsmStateSize) } else { width };
    let head = number(Hyper::SsmInnerSize) / heads.max(1);
    let groups = number(Hyper::SsmGroupCount).max(1);
    let states = graph.constant(F32, [state, head, heads, SEQUENCES]);
    let x = graph.constant(F32, [head, heads, TOKENS, SEQUENCES]);
    let step = graph.constant(F32, [heads, TOKENS, SEQUENCES, 1]);
    let [b, c] = [(); 2].map(|()| graph.constant(F32, [state, groups, TOKENS, SEQUENCES]));
    let ids = graph.constant(I32, [SEQUENCES, 1, 1, 1]);
    graph.ssm_scan([states, x, step, weight, b, c, ids], 1)
}

fn factor(graph: &mut Graph, weight: Id) -> Id {
    let x = graph.constant(F32, graph.get(weight).ne);
    graph.mul(x, weight)
}

fn rows(graph: &mut Graph, weight: Id) -> Id {
    let ids = graph.constant(I32, [TOKENS, 1, 1, 1]);
    graph.get_rows(weight, ids)
}

fn product(graph: &mut Graph, weight: Id) -> Id {
    let [width, _, matrices, more] = graph.get(weight).ne;
    let x = graph.constant(F32, [width, TOKENS, matrices, more]);
    graph.mul_mat(weight, x)
}
