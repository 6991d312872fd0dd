//! ggml's element types and their block sizes.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// A ggml tensor type by its number; unknown numbers are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TensorType(pub u32);

impl TensorType {
    /// `F32`, four bytes an element.
    pub const F32: TensorType = TensorType(0);
    /// `F16`, two bytes an element.
    pub const F16: TensorType = TensorType(1);
    /// `BF16`, two bytes an element.
    pub const BF16: TensorType = TensorType(30);

    /// Returns the type's name in llama.cpp's words, or nothing for an unknown number.
    pub fn name(self) -> Option<&'static str> {
        let _ = self;
        todo!()
    }

    /// Returns (elements, bytes) of one block, or nothing for an unknown type.
    pub fn block(self) -> Option<(u64, u64)> {
        let _ = self;
        todo!()
    }

    /// Returns the bytes of one row of `elements`, or nothing where the type is unknown, the
    /// row is no whole number of blocks, or the product leaves the range.
    pub fn row_bytes(self, elements: u64) -> Option<Bytes> {
        let _ = (self, elements);
        todo!()
    }

    /// Returns whether the type is quantised (its blocks hold more than one element).
    pub fn is_quantised(self) -> bool {
        self.block().is_some_and(|(elements, _)| elements > 1)
    }
}
