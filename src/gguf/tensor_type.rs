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
        self.layout().map(|(name, _, _)| name)
    }

    /// Returns (elements, bytes) of one block, or nothing for an unknown type.
    pub fn block(self) -> Option<(u64, u64)> {
        self.layout().map(|(_, elements, bytes)| (elements, bytes))
    }

    /// Returns the bytes of one row of `elements`, or nothing where the type is unknown, the
    /// row is no whole number of blocks, or the product leaves the range.
    pub fn row_bytes(self, elements: u64) -> Option<Bytes> {
        let (block_elements, block_bytes) = self.block()?;
        if !elements.is_multiple_of(block_elements) {
            return None;
        }
        (elements / block_elements).checked_mul(block_bytes).map(Bytes)
    }

    /// Returns whether the type is quantised (its blocks hold more than one element).
    pub fn is_quantised(self) -> bool {
        // Most tensors of a graph are of this type.
        self != TensorType::F32 && self.block().is_some_and(|(elements, _)| elements > 1)
    }

    /// Returns name, elements and bytes of one block.
    fn layout(self) -> Option<(&'static str, u64, u64)> {
        // The missing numbers (4, 5, 31 to 33, 36 to 38) were removed from the format.
        let layout = match self.0 {
            0 => ("F32", 1, 4),
            1 => ("F16", 1, 2),
            2 => ("Q4_0", 32, 18),
            3 => ("Q4_1", 32, 20),
            6 => ("Q5_0", 32, 22),
            7 => ("Q5_1", 32, 24),
            8 => ("Q8_0", 32, 34),
            9 => ("Q8_1", 32, 36),
            10 => ("Q2_K", 256, 84),
            11 => ("Q3_K", 256, 110),
            12 => ("Q4_K", 256, 144),
            13 => ("Q5_K", 256, 176),
            14 => ("Q6_K", 256, 210),
            15 => ("Q8_K", 256, 292),
            16 => ("IQ2_XXS", 256, 66),
            17 => ("IQ2_XS", 256, 74),
            18 => ("IQ3_XXS", 256, 98),
            19 => ("IQ1_S", 256, 50),
            20 => ("IQ4_NL", 32, 18),
            21 => ("IQ3_S", 256, 110),
            22 => ("IQ2_S", 256, 82),
            23 => ("IQ4_XS", 256, 136),
            24 => ("I8", 1, 1),
            25 => ("I16", 1, 2),
            26 => ("I32", 1, 4),
            27 => ("I64", 1, 8),
            28 => ("F64", 1, 8),
            29 => ("IQ1_M", 256, 56),
            30 => ("BF16", 1, 2),
            34 => ("TQ1_0", 256, 54),
            35 => ("TQ2_0", 256, 66),
            39 => ("MXFP4", 32, 17),
            40 => ("NVFP4", 64, 36),
            41 => ("Q1_0", 128, 18),
            42 => ("Q2_0", 64, 18),
            _ => return None,
        };
        Some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_whole_blocks_has_its_bytes() {
        assert_eq!(TensorType::F32.row_bytes(4_096), Some(Bytes(16_384)));
        assert_eq!(TensorType(12).row_bytes(4_096), Some(Bytes(16 * 144)));
        assert_eq!(TensorType(39).row_bytes(64), Some(Bytes(34)));
        assert_eq!(TensorType(12).row_bytes(0), Some(Bytes::ZERO));
    }

    #[test]
    fn a_row_that_cuts_a_block_has_no_bytes() {
        assert_eq!(TensorType(12).row_bytes(4_095), None);
        assert_eq!(TensorType(2).row_bytes(16), None);
    }

    #[test]
    fn a_row_beyond_the_range_has_no_bytes() {
        assert_eq!(TensorType::F32.row_bytes(1 << 62), None);
        assert_eq!(TensorType(15).row_bytes(u64::MAX - 255), None);
    }

    #[test]
    fn a_removed_or_future_type_is_unknown() {
        for number in [4, 5, 31, 32, 33, 36, 37, 38, 43, 9_999, u32::MAX] {
            let kind = TensorType(number);
            assert_eq!((kind.name(), kind.block(), kind.row_bytes(256)), (None, None, None), "{number}");
            assert!(!kind.is_quantised());
        }
    }

    #[test]
    fn quantised_types_are_told_from_plain_ones() {
        assert!(TensorType(12).is_quantised());
        assert!(TensorType(41).is_quantised());
        assert!(!TensorType::BF16.is_quantised());
        assert!(!TensorType(27).is_quantised());
    }
}
