//! Writes GGUF headers, good ones and broken ones.

pub(crate) const U32: u32 = 4;
pub(crate) const TEXT: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

/// A header in the making. Every field can be made a lie before `bytes` is called.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) entry_count: u64,
    pub(crate) tensor_count: u64,
    pub(crate) entries: Vec<u8>,
    pub(crate) tensors: Vec<u8>,
    pub(crate) alignment: usize,
}

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer {
            magic: *b"GGUF",
            version: 3,
            entry_count: 0,
            tensor_count: 0,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        }
    }

    /// Adds a metadata entry of the given value type.
    pub(crate) fn entry(mut self, key: impl AsRef<[u8]>, kind: u32, value: impl AsRef<[u8]>) -> Writer {
        self.entry_count += 1;
        self.entries.extend(text(key));
        self.entries.extend(kind.to_le_bytes());
        self.entries.extend(value.as_ref());
        self
    }

    /// Adds a tensor.
    pub(crate) fn tensor(mut self, name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Writer {
        self.tensor_count += 1;
        self.tensors.extend(text(name));
        self.tensors.extend(u32::try_from(dims.len()).expect("few dimensions").to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self
    }

    /// Returns the header, padded to where the tensor data begins.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.entry_count.to_le_bytes());
        bytes.extend(&self.entries);
        bytes.extend(&self.tensors);
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes
    }
}

/// Returns a string as the format stores it.
pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// Returns an array of elements that are stored already.
pub(crate) fn array(kind: u32, count: u64, elements: impl AsRef<[u8]>) -> Vec<u8> {
    [&kind.to_le_bytes(), count.to_le_bytes().as_slice(), elements.as_ref()].concat()
}
