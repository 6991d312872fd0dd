//! Tensors of a graph as ggml sees them: shape, strides, sources, and where they already lie.

use crate::gguf::TensorType;

/// A tensor's number in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u32);

impl Id {
    /// Stands for no tensor.
    pub(super) const NONE: Id = Id(u32::MAX);

    /// Returns the number as an index.
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the tensor that was added `further` places later.
    pub(super) const fn after(self, further: u32) -> Id {
        Id(self.0.saturating_add(further))
    }

    /// Returns the tensor, if it is one.
    pub(super) fn get(self) -> Option<Id> {
        (self != Id::NONE).then_some(self)
    }
}

/// Most sources that an operation of ours has; ggml allows ten.
pub(super) const SOURCES: usize = 8;

/// The element types that graphs compute in.
pub(super) const F32: TensorType = TensorType(0);
pub(super) const F16: TensorType = TensorType(1);
pub(super) const I32: TensorType = TensorType(26);
pub(super) const I64: TensorType = TensorType(27);

/// ggml's operations, as far as llama.cpp's graphs use them. One that takes part in no rule of the
/// scheduler, the allocator or a back-end shares [`Op::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    None,
    Add,
    AddId,
    Argsort,
    Clamp,
    Concat,
    Cont,
    Conv2d,
    Conv2dDw,
    Cpy,
    Cumsum,
    Div,
    Dsv4HcComb,
    Dsv4HcPost,
    Dsv4HcPre,
    Dup,
    Exp,
    Fill,
    FlashAttnExt,
    GatedDeltaNet,
    GatedLinearAttn,
    GetRows,
    Glu,
    GroupNorm,
    Im2col,
    L2Norm,
    LightningIndexer,
    Mean,
    Mul,
    MulMat,
    MulMatId,
    Norm,
    Other,
    Pad,
    Permute,
    Pool1d,
    Pool2d,
    Repeat,
    Reshape,
    RmsNorm,
    Roll,
    Rope,
    RwkvWkv6,
    RwkvWkv7,
    Scale,
    Set,
    SetRows,
    Sigmoid,
    Silu,
    SoftMax,
    Softplus,
    Sqr,
    Sqrt,
    SsmConv,
    SsmScan,
    Sub,
    SumRows,
    TopK,
    Transpose,
    /// A unary operation other than those that fusion looks for.
    Unary,
    Upscale,
    View,
}

impl Op {
    /// Returns whether the result is a mere view of a source (`ggml_is_view_op`).
    pub(super) const fn is_view(self) -> bool {
        matches!(self, Op::View | Op::Reshape | Op::Permute | Op::Transpose)
    }

    /// Returns whether the result may take the place of a source (`ggml_op_can_inplace`).
    pub(super) const fn is_inplace(self) -> bool {
        self.is_unary()
            || matches!(
                self,
                Op::Fill
                    | Op::Scale
                    | Op::Add
                    | Op::AddId
                    | Op::Sub
                    | Op::Mul
                    | Op::Div
                    | Op::Sqr
                    | Op::Sqrt
                    | Op::Rope
                    | Op::RmsNorm
                    | Op::Clamp
                    | Op::SoftMax
            )
    }

    /// Returns whether ggml calls it `GGML_OP_UNARY`.
    pub(super) const fn is_unary(self) -> bool {
        matches!(self, Op::Unary | Op::Exp | Op::Sigmoid | Op::Silu | Op::Softplus)
    }
}

/// A device, by its place in the scheduler's list: the GPUs in order, the CPU last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackendId(pub(super) u8);

/// Where a tensor lies before the graph is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Nowhere: the graph's allocator has to find room.
    Graph,
    /// With the weights of a back-end.
    Weights(BackendId),
    /// In the KV cache or the recurrent state of a back-end.
    Cache(BackendId),
}

impl Home {
    /// Returns the back-end that has it.
    pub(super) const fn backend(self) -> Option<BackendId> {
        match self {
            Home::Graph => None,
            Home::Weights(backend) | Home::Cache(backend) => Some(backend),
        }
    }
}

/// One tensor.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, kept small")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Tensor {
    pub(super) op: Op,
    pub(super) kind: TensorType,
    /// Elements in each dimension, the row first.
    pub(super) ne: [u64; 4],
    /// Bytes from one element, row, matrix to the next.
    pub(super) nb: [u64; 4],
    /// What it is computed from; those that are absent are left out, so the rest follow each other.
    pub(super) sources: [Id; SOURCES],
    /// How many sources there are.
    count: u8,
    /// The tensor that this one is a view of, never itself a view.
    pub(super) view_of: Id,
    /// Bytes from the beginning of `view_of`.
    pub(super) offset: u64,
    pub(super) home: Home,
    /// What a back-end's rules ask about some operations: the kind of gate of a [`Op::Glu`], the
    /// dimension of a [`Op::Concat`], the snapshots of a [`Op::SsmScan`], whether a
    /// [`Op::FlashAttnExt`] has alibi, what a [`Op::MulMatId`] asks of its input.
    pub(super) detail: u32,
    /// Set from outside before each run (`GGML_TENSOR_FLAG_INPUT`).
    pub(super) is_input: bool,
    /// Read from outside after each run, so never overwritten (`GGML_TENSOR_FLAG_OUTPUT`).
    pub(super) is_output: bool,
    /// How often nodes of the graph read it.
    pub(super) uses: u32,
    /// How often what is computed reads it: nodes, but for those that read a copy instead, and what is
    /// put between them.
    pub(super) readers: u32,
    /// How many nodes are views of it.
    pub(super) views: u32,
    /// Made without gaps, and never given other strides.
    is_dense: bool,
    visited: bool,
}

impl Tensor {
    /// Returns a contiguous tensor without a source.
    #[inline]
    pub(super) fn new(kind: TensorType, ne: [u64; 4]) -> Tensor {
        Tensor { is_dense: true, ..Tensor::strided(kind, ne, dense_strides(kind, ne)) }
    }

    /// Returns a tensor without a source.
    #[inline]
    pub(super) fn strided(kind: TensorType, ne: [u64; 4], nb: [u64; 4]) -> Tensor {
        Tensor { kind, ne, nb, is_dense: false, ..MISSING }
    }

    /// Sets what it is computed from, without those that are absent.
    pub(super) fn set_sources(&mut self, sources: &[Id]) {
        self.count = 0;
        for &source in sources {
            if source != Id::NONE
                && let Some(place) = self.sources.get_mut(usize::from(self.count))
            {
                *place = source;
                self.count += 1;
            }
        }
    }

    /// Returns the bytes from the first to behind the last element (`ggml_nbytes`).
    pub(super) fn bytes(&self) -> u64 {
        if self.is_dense {
            return self.nb[3].saturating_mul(self.ne[3]);
        }
        if self.ne.contains(&0) {
            return 0;
        }
        let rest = |from: usize| {
            let steps = self.ne[from..].iter().zip(&self.nb[from..]);
            steps.fold(0u64, |sum, (&ne, &nb)| sum.saturating_add((ne - 1).saturating_mul(nb)))
        };
        match self.kind.block() {
            Some((block, _)) if block > 1 => (self.ne[0].saturating_mul(self.nb[0]) / block).saturating_add(rest(1)),
            _ => element_bytes(self.kind).saturating_add(rest(0)),
        }
    }

    /// Returns the number of elements.
    pub(super) fn elements(&self) -> u64 {
        self.ne.iter().fold(1, |product, &ne| product.saturating_mul(ne))
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.ne[1..].iter().fold(1, |product, &ne| product.saturating_mul(ne))
    }

    /// Returns whether rows follow each other without a gap, up from dimension `from`: 0 asks for
    /// everything (`ggml_is_contiguous`), 1 lets rows stand apart (`ggml_is_contiguous_1`).
    pub(super) fn is_contiguous_from(&self, from: usize) -> bool {
        let (block, size) = self.kind.block().unwrap_or((1, 1));
        if self.ne[0] != block && self.nb[0] != size {
            return false;
        }
        let mut next = size.saturating_mul(self.ne[0] / block.max(1));
        for dimension in 1..4 {
            if dimension > from {
                if self.ne[dimension] != 1 && self.nb[dimension] != next {
                    return false;
                }
                next = next.saturating_mul(self.ne[dimension]);
            } else {
                next = self.ne[dimension].saturating_mul(self.nb[dimension]);
            }
        }
        true
    }

    /// Returns whether the tensor has no gaps.
    pub(super) fn is_contiguous(&self) -> bool {
        self.is_dense || self.is_contiguous_from(0)
    }

    /// Returns the sources in order.
    pub(super) fn sources(&self) -> &[Id] {
        self.sources.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Returns whether it is a view of another tensor.
    pub(super) fn is_view(&self) -> bool {
        self.view_of != Id::NONE
    }
}

/// Returns the strides of a tensor without gaps.
pub(super) fn dense_strides(kind: TensorType, ne: [u64; 4]) -> [u64; 4] {
    // Most are of this type.
    let (size, row) =
        if kind == F32 { (4, ne[0].saturating_mul(4)) } else { (element_bytes(kind), row_bytes(kind, ne[0])) };
    let matrix = row.saturating_mul(ne[1]);
    [size, row, matrix, matrix.saturating_mul(ne[2])]
}
/// Nested calls for a tensor's sources; real graphs stay far below.
const DEEPEST_CALL: u32 = 256;

/// Returns the bytes of one block of elements, ggml's `nb[0]`.
pub(super) fn element_bytes(kind: TensorType) -> u64 {
    kind.block().map_or(1, |(_, bytes)| bytes)
}

/// Returns the bytes of a row (`ggml_row_size`).
pub(super) fn row_bytes(kind: TensorType, elements: u64) -> u64 {
    super::super::tensor::row_bytes(kind, elements).0
}

/// A graph as llama.cpp builds it: all tensors, and the nodes in the order they are computed.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) tensors: Vec<Tensor>,
    /// What is computed, in order.
    pub(super) nodes: Vec<Id>,
    /// What is only read: weights, caches, inputs.
    pub(super) leafs: Vec<Id>,
    /// Nodes whose back-end llama.cpp sets itself (`ggml_backend_sched_set_tensor_backend`).
    pub(super) pinned: Vec<(Id, BackendId)>,
    /// Operations that must run where their block is, or are switched off for the whole model.
    pub(super) fused: Vec<Fused>,
    /// Each block that was entered, in order, and how many nodes there were.
    pub(super) begun: Vec<(u32, usize)>,
    /// Whether it reads tensors of another model, which are only guessed.
    pub(super) borrows: bool,
}

/// An operation that llama.cpp tries before it uses it (`llm_graph_fused_node`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fused {
    pub(super) what: FusedOp,
    pub(super) tensor: Id,
    /// Where its block is.
    pub(super) block: BackendId,
}

/// The operations that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FusedOp {
    FlashAttention,
    LightningIndexer,
    HyperConnectionsPre,
    HyperConnectionsComb,
    HyperConnectionsPost,
}

/// What stands for a tensor that a file should have and does not: llama.cpp refuses such a file, so
/// any number will do.
const MISSING: Tensor = Tensor {
    op: Op::None,
    kind: F32,
    ne: [1; 4],
    nb: [4; 4],
    sources: [Id::NONE; SOURCES],
    count: 0,
    view_of: Id::NONE,
    offset: 0,
    home: Home::Graph,
    detail: 0,
    uses: 0,
    readers: 0,
    views: 0,
    is_input: false,
    is_output: false,
    is_dense: true,
    visited: false,
};

impl Graph {
    /// Returns a tensor, one of a single element for [`Id::NONE`].
    pub(super) fn get(&self, id: Id) -> &Tensor {
        self.tensors.get(id.index()).unwrap_or(&MISSING)
    }

    /// Changes a tensor.
    pub(super) fn get_mut(&mut self, id: Id) -> &mut Tensor {
        &mut self.tensors[id.index()]
    }

    /// Adds a tensor.
    #[inline]
    pub(super) fn push(&mut self, tensor: Tensor) -> Id {
        let id = Id(u32::try_from(self.tensors.len()).unwrap_or(u32::MAX - 1));
        self.tensors.push(tensor);
        id
    }

    /// Adds what a tensor depends on, and itself, to the nodes (`ggml_build_forward_expand`): what
    /// was visited before stays where it is.
    pub(super) fn expand(&mut self, id: Id) {
        self.expand_within(id, DEEPEST_CALL);
    }

    /// Calls itself for the sources, which is faster than a list, as deep as any thread's stack
    /// allows.
    fn expand_within(&mut self, id: Id, depth: u32) {
        if depth == 0 {
            self.expand_deep(id);
            return;
        }
        let Some(tensor) = self.tensors.get_mut(id.index()) else { return };
        if std::mem::replace(&mut tensor.visited, true) {
            return;
        }
        let Tensor { sources, count, .. } = *tensor;
        for &source in sources.iter().take(usize::from(count)) {
            if self.read(source) {
                self.expand_within(source, depth - 1);
            }
        }
        self.list(id);
    }

    /// Notes that a node reads a tensor, and returns whether that is still to be visited.
    #[inline]
    fn read(&mut self, id: Id) -> bool {
        let tensor = self.get_mut(id);
        tensor.uses += 1;
        tensor.readers += 1;
        !tensor.visited
    }

    /// Adds a tensor to the leafs or the nodes, whose sources are there already.
    #[inline]
    fn list(&mut self, id: Id) {
        let tensor = self.get(id);
        if tensor.op == Op::None {
            self.leafs.push(id);
            return;
        }
        if let Some(of) = tensor.view_of.get() {
            self.get_mut(of).views += 1;
        }
        self.nodes.push(id);
    }

    /// Returns an empty graph with room for as many blocks.
    pub(super) fn with_room(blocks: usize) -> Graph {
        // A usual block has some 50 tensors, 35 of them nodes; beside them there are the inputs.
        Graph {
            tensors: Vec::with_capacity(64 * blocks + 64),
            nodes: Vec::with_capacity(40 * blocks + 32),
            leafs: Vec::with_capacity(16 * blocks + 16),
            ..Graph::default()
        }
    }

    /// As [`Graph::expand`] for graphs that are deeper than a thread's stack, as those of whole
    /// conformers and of absurd headers are: what is under way is kept in a list.
    pub(super) fn expand_deep(&mut self, id: Id) {
        let mut under_way = Vec::new();
        if id != Id::NONE && !std::mem::replace(&mut self.get_mut(id).visited, true) {
            under_way.push((id, 0));
        }
        while let Some((id, next)) = under_way.last_mut() {
            let id = *id;
            if let Some(&source) = self.get(id).sources().get(*next) {
                *next += 1;
                if self.read(source) {
                    self.get_mut(source).visited = true;
                    under_way.push((source, 0));
                }
                continue;
            }
            under_way.pop();
            self.list(id);
        }
    }
}
