//! What follows a model where embeddings are asked for: pooling, the head of a reranker, dense
//! projections (`build_pooling` and `build_dense_out` in `llama-graph.cpp`).

use super::feed_forward::Norm;
use super::model::Builder;
use super::tensor::{F32, I32, Id, Op};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// How the embeddings of a sequence's tokens become one, llama.cpp's `llama_pooling_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    /// They stay as they are.
    None,
    /// Their mean.
    Mean,
    /// One token's: the first or the last.
    One,
    /// A score, by a head over one of the others.
    Rank,
}

impl Builder<'_> {
    /// Adds pooling and projections to a finished graph where embeddings are put out.
    pub(super) fn pool(&mut self) {
        if !self.plan.settings.embeddings || self.embedding == Id::NONE {
            return;
        }
        self.enter(None);
        let pooled = self.pooled();
        self.expand(pooled);
        let projected = self.projected(pooled);
        self.set_output(projected);
    }

    fn pooling(&self) -> Pooling {
        match self.number(Hyper::PoolingType) {
            1 => Pooling::Mean,
            2 | 3 => Pooling::One,
            4 => Pooling::Rank,
            _ => Pooling::None,
        }
    }

    fn pooled(&mut self) -> Id {
        let tokens = self.embedding;
        match self.pooling() {
            Pooling::None => tokens,
            Pooling::Mean => self.mean(tokens),
            Pooling::One => self.one_token(tokens),
            Pooling::Rank => {
                // ModernBERT's head takes the mean unless the file says otherwise.
                let modern = self.architecture() == "modern-bert";
                let pooled = match self.number(Hyper::ClassifierPooling) {
                    1 => self.mean(tokens),
                    0 if modern => self.mean(tokens),
                    _ => self.one_token(tokens),
                };
                self.score(pooled)
            }
        }
    }

    /// The mean of each sequence's tokens.
    fn mean(&mut self, tokens: Id) -> Id {
        let shape = [self.tokens(), self.slots(), 1, 1];
        let shares = self.input(F32, shape);
        let turned = self.transpose(tokens);
        let turned = self.cont(turned);
        self.mul_mat(turned, shares)
    }

    /// One token of each sequence.
    fn one_token(&mut self, tokens: Id) -> Id {
        let slots = self.slots();
        let rows = self.input(I32, [slots, 1, 1, 1]);
        self.get_rows(tokens, rows)
    }

    /// The classification head of a reranker, each part where the file has it.
    fn score(&mut self, mut x: Id) -> Id {
        let head = self.output_weight(Role::Cls, Suffix::Weight);
        if head != Id::NONE {
            x = self.mul_mat(head, x);
            let bias = self.output_weight(Role::Cls, Suffix::Bias);
            x = self.add_if(x, bias);
            x = self.unary(Op::Unary, x);
            let norm = self.output_weight(Role::ClsNorm, Suffix::Weight);
            if norm != Id::NONE {
                x = self.norm_with(Norm::Layer, x, norm, Id::NONE);
            }
        }
        let out = self.output_weight(Role::ClsOutput, Suffix::Weight);
        if out != Id::NONE {
            x = self.mul_mat(out, x);
            let bias = self.output_weight(Role::ClsOutput, Suffix::Bias);
            x = self.add_if(x, bias);
        }
        match self.architecture() {
            "qwen3" | "qwen3vl" => self.soft_max(x, Id::NONE, Id::NONE),
            _ => x,
        }
    }

    /// The dense projections that some sentence transformers have after pooling.
    fn projected(&mut self, mut x: Id) -> Id {
        for role in [Role::Dense2, Role::Dense3] {
            let matrix = self.output_weight(role, Suffix::Weight);
            if matrix != Id::NONE {
                x = self.mul_mat(matrix, x);
            }
            let bias = if role == Role::Dense2 { self.output_weight(role, Suffix::Bias) } else { Id::NONE };
            x = self.add_if(x, bias);
        }
        self.expand(x);
        x
    }
}
