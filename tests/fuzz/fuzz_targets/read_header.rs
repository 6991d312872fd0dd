//! Whatever the bytes: the reader answers, and a header it hands out keeps its promises.
#![no_main]

use std::io::Cursor;

use fitwatch::gguf::{Limits, read_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file_bytes = bytes.len() as u64;
    let Ok(header) = read_header(Cursor::new(bytes), file_bytes, &Limits::default()) else { return };
    assert!(header.alignment.is_power_of_two());
    for tensor in header.tensors.iter().filter(|tensor| tensor.bytes.0 > 0) {
        let end = header.data_offset.checked_add(tensor.offset).and_then(|start| start.checked_add(tensor.bytes.0));
        assert!(end.is_some_and(|end| end <= file_bytes), "{tensor:?}");
    }
});
