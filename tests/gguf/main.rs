//! The GGUF reader against good, broken and hostile files.

use std::io::Cursor;

use fitwatch::gguf::{Header, HeaderError, HeaderProblem, Limits, read_header};

mod hostile;
mod kept;
mod llama_cpp_list;
mod mutated;
mod sparse;
mod writer;

fn read(bytes: &[u8]) -> Result<Header, HeaderError> {
    read_with(bytes, &Limits::default())
}

fn read_with(bytes: &[u8], limits: &Limits) -> Result<Header, HeaderError> {
    read_header(Cursor::new(bytes), bytes.len() as u64, limits)
}

/// Reads what must be refused and returns why.
fn problem(bytes: &[u8]) -> HeaderProblem {
    match read(bytes) {
        Ok(header) => panic!("the reader took {header:?}"),
        Err(error) => error.problem,
    }
}

/// Reads what must be refused and returns what is said about it.
fn message(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok(header) => panic!("the reader took {header:?}"),
        Err(error) => error.to_string(),
    }
}

/// Asserts the variant of a problem, and shows the problem where it is another.
macro_rules! assert_problem {
    ($problem:expr, $pattern:pat $(if $guard:expr)?) => {
        match $problem {
            $pattern $(if $guard)? => {}
            other => panic!("expected {}, found {other:?}", stringify!($pattern)),
        }
    };
}
pub(crate) use assert_problem;
