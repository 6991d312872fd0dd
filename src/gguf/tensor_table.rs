//! The tensor table: names, types, shapes and places, each checked against the file.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Seek};

use super::cursor::Cursor;
use super::reader::Held;
use super::{HeaderError, HeaderProblem, Tensor, TensorType};
use crate::units::Bytes;

/// llama.cpp refuses longer names.
const MAX_NAME_BYTES: u16 = 63;
/// Fewest bytes of an entry: the name's length, the number of dimensions, type and offset.
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 4 + 8;
/// Unknown types named one by one in the notes; a hostile file has more.
const MAX_NOTED_TYPES: usize = 8;

/// Memory of an entry beside its name: its row, and its slot in the set of names.
const ENTRY_OVERHEAD: usize = size_of::<Tensor>() + 40;
/// Memory of a name beside its text.
const NAME_OVERHEAD: usize = 16;

const READING: &str = "the tensor table";

/// The tensor table and what follows from it.
pub(super) struct TensorTable {
    pub(super) tensors: Vec<Tensor>,
    pub(super) data_offset: u64,
    pub(super) notes: Vec<String>,
}

/// Reads `count` tensors and checks that the file holds their data.
pub(super) fn read_tensors<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    count: u64,
    alignment: u32,
    file_bytes: u64,
    held: &mut Held,
) -> Result<TensorTable, HeaderError> {
    cursor.expect_room(count.saturating_mul(MIN_ENTRY_BYTES), READING)?;
    let expected = usize::try_from(count).unwrap_or(usize::MAX);
    held.hold(expected.saturating_mul(ENTRY_OVERHEAD)).map_err(|problem| cursor.error(problem))?;
    let mut tensors = Vec::with_capacity(expected);
    let mut names = HashSet::with_capacity(expected);
    let mut layout = Layout::new(alignment);
    for _ in 0..count {
        let offset = cursor.offset();
        let at = |problem| HeaderError { offset, problem };
        let tensor = read_tensor(cursor)?;
        // The name is there twice while the table is read.
        held.hold(2 * (NAME_OVERHEAD + tensor.name.len())).map_err(at)?;
        if !names.insert(tensor.name.clone()) {
            return Err(at(HeaderProblem::DuplicateTensor { name: tensor.name }));
        }
        layout.add(&tensor).map_err(at)?;
        tensors.push(tensor);
    }
    // A header is never close to the end of the range, so that the padding cannot leave it.
    let data_offset = Bytes(cursor.offset()).padded(u64::from(alignment)).0;
    layout.check(data_offset, file_bytes).map_err(|problem| cursor.error(problem))?;
    let notes = notes(&tensors, &layout);
    Ok(TensorTable { tensors, data_offset, notes })
}

fn read_tensor<R: Read + Seek>(cursor: &mut Cursor<R>) -> Result<Tensor, HeaderError> {
    let offset = cursor.offset();
    let at = |problem| HeaderError { offset, problem };
    let name = cursor.text(MAX_NAME_BYTES, "bytes in a tensor name", READING)?;
    let count = cursor.u32(READING)?;
    let mut dims = [1; 4];
    let Some(used) = usize::try_from(count).ok().and_then(|count| dims.get_mut(..count)) else {
        return Err(at(HeaderProblem::Dimensions { name, count }));
    };
    for dim in used {
        *dim = cursor.u64(READING)?;
    }
    let kind = TensorType(cursor.u32(READING)?);
    let bytes = tensor_bytes(&name, kind, dims).map_err(at)?;
    let offset = cursor.u64(READING)?;
    Ok(Tensor { name, kind, dims, offset, bytes })
}

/// Returns the bytes of a tensor's data, zero where the type is unknown.
fn tensor_bytes(name: &str, kind: TensorType, dims: [u64; 4]) -> Result<Bytes, HeaderProblem> {
    let overflow = || HeaderProblem::SizeOverflow { name: name.into() };
    // An empty dimension empties the tensor, but must not hide the size of the others.
    let elements = dims.iter().try_fold(1_u64, |product, dim| product.checked_mul((*dim).max(1)));
    // ggml counts elements in signed numbers.
    elements.filter(|elements| i64::try_from(*elements).is_ok()).ok_or_else(overflow)?;
    let Some((block, _)) = kind.block() else { return Ok(Bytes::ZERO) };
    let [row, rest @ ..] = dims;
    if !row.is_multiple_of(block) {
        return Err(HeaderProblem::Row { name: name.into(), elements: row, block });
    }
    let row_bytes = kind.row_bytes(row).ok_or_else(overflow)?;
    let bytes = rest.iter().try_fold(row_bytes.0, |product, dim| product.checked_mul(*dim));
    bytes.map(Bytes).ok_or_else(overflow)
}

/// Where the tensors lie in the data.
struct Layout {
    alignment: u64,
    /// Bytes of all tensors.
    total: u64,
    /// End of the tensor that reaches furthest.
    end: u64,
    /// Where llama.cpp wants the next tensor, unknown behind a tensor of unknown size.
    next: Option<u64>,
    /// Whether a tensor lies elsewhere than llama.cpp wants it.
    is_scattered: bool,
}

impl Layout {
    fn new(alignment: u32) -> Layout {
        Layout { alignment: u64::from(alignment), total: 0, end: 0, next: Some(0), is_scattered: false }
    }

    fn add(&mut self, tensor: &Tensor) -> Result<(), HeaderProblem> {
        let overflow = || HeaderProblem::SizeOverflow { name: tensor.name.clone() };
        let padded = tensor.bytes.0.checked_next_multiple_of(self.alignment).ok_or_else(overflow)?;
        self.total = self.total.checked_add(tensor.bytes.0).ok_or_else(overflow)?;
        self.end = self.end.max(tensor.offset.checked_add(tensor.bytes.0).ok_or_else(overflow)?);
        if let Some(next) = self.next {
            self.is_scattered |= tensor.offset != next;
            self.next = Some(next.checked_add(padded).ok_or_else(overflow)?);
        }
        if tensor.kind.block().is_none() {
            self.next = None;
        }
        Ok(())
    }

    fn check(&self, data_offset: u64, file_bytes: u64) -> Result<(), HeaderProblem> {
        let needed = data_offset.saturating_add(self.end);
        if self.end > 0 && needed > file_bytes {
            return Err(HeaderProblem::Incomplete { needed, present: file_bytes });
        }
        let present = file_bytes.saturating_sub(data_offset);
        if self.total > present {
            return Err(HeaderProblem::Overlap { total: self.total, present });
        }
        Ok(())
    }
}

fn notes(tensors: &[Tensor], layout: &Layout) -> Vec<String> {
    let mut notes = Vec::new();
    let mut unknown: BTreeMap<TensorType, (u64, &str)> = BTreeMap::new();
    for tensor in tensors.iter().filter(|tensor| tensor.kind.block().is_none()) {
        unknown.entry(tensor.kind).or_insert((0, &tensor.name)).0 += 1;
    }
    for (kind, (count, name)) in unknown.iter().take(MAX_NOTED_TYPES) {
        let others = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        notes.push(format!("unknown tensor type {}, size not counted: {name:?}{others}", kind.0));
    }
    if unknown.len() > MAX_NOTED_TYPES {
        notes.push(format!("{} more unknown tensor types", unknown.len() - MAX_NOTED_TYPES));
    }
    if layout.is_scattered {
        notes.push("tensors do not follow one another; llama.cpp refuses such a file".to_owned());
    }
    notes
}
