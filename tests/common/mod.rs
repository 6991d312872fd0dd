//! A home of its own for the real program, and small models to put into it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

#[path = "../gguf/writer.rs"]
mod writer;

use writer::{ARRAY, TEXT, U32, Writer, array, text};

const F16: u32 = 1;

/// A home folder of its own, so that nobody's models, config or daemon are met.
pub(crate) struct Home(pub(crate) TempDir);

impl Home {
    pub(crate) fn new() -> Home {
        let home = Home(TempDir::new().unwrap());
        // Without it the program would look where the user's own session keeps its sockets.
        fs::create_dir(home.0.path().join("run")).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and the folders above it, and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a small model of two blocks and returns its path.
    pub(crate) fn model(&self, name: &str) -> String {
        self.sparse(name, &Llama::tiny().header())
    }

    /// Writes a projector for images and returns its path.
    pub(crate) fn projector(&self, name: &str) -> String {
        self.sparse(name, &projector())
    }

    /// Writes a header with a hole in the place of its weights and returns its path.
    pub(crate) fn sparse(&self, name: &str, header: &Sparse) -> String {
        let path = self.write(name, &header.bytes);
        let whole = header.bytes.len() as u64 + header.weights;
        File::options().write(true).open(&path).unwrap().set_len(whole).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fitwatch"));
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.env("HOME", self.0.path()).env("XDG_RUNTIME_DIR", self.0.path().join("run"));
        command
    }

    /// Returns exit code, stdout and stderr.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).stderr(Stdio::piped()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    /// Returns stdout as JSON, and the exit code.
    pub(crate) fn json(&self, arguments: &[&str]) -> (Value, i32) {
        let (code, output, error) = self.run(arguments);
        (serde_json::from_str(&output).unwrap_or_else(|_| panic!("{output}{error}")), code)
    }
}

/// The header of a file, and how many bytes of weights follow it.
pub(crate) struct Sparse {
    pub(crate) bytes: Vec<u8>,
    pub(crate) weights: u64,
}

/// A llama of any size, its weights in F16.
pub(crate) struct Llama {
    pub(crate) blocks: u32,
    pub(crate) width: u64,
    /// The shard it is and how many there are; the first one holds everything but the weights of the last.
    pub(crate) shard: Option<(u32, u32)>,
}

impl Llama {
    /// Returns a llama of a few megabytes.
    pub(crate) fn tiny() -> Llama {
        Llama { blocks: 2, width: 256, shard: None }
    }

    pub(crate) fn header(&self) -> Sparse {
        const WORDS: u64 = 1_000;
        let number = |number: u64| u32::try_from(number).unwrap().to_le_bytes();
        let words: Vec<u8> = (0..WORDS).flat_map(|word| text(format!("w{word}"))).collect();
        let mut writer = Writer::new();
        if let Some((position, count)) = self.shard {
            writer = writer.entry("split.no", U32, number((position - 1).into()));
            writer = writer.entry("split.count", U32, number(count.into()));
        }
        if self.shard.is_none_or(|(position, _)| position == 1) {
            writer = writer
                .entry("general.architecture", TEXT, text("llama"))
                .entry("general.file_type", U32, number(1))
                .entry("llama.block_count", U32, number(self.blocks.into()))
                .entry("llama.context_length", U32, number(8_192))
                .entry("llama.embedding_length", U32, number(self.width))
                .entry("llama.feed_forward_length", U32, number(2 * self.width))
                .entry("llama.attention.head_count", U32, number(4))
                .entry("llama.attention.head_count_kv", U32, number(2))
                .entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, WORDS, words));
        }
        with_tensors(writer, &self.tensors(WORDS))
    }

    /// Returns the tensors of the shard it is, or all.
    fn tensors(&self, words: u64) -> Vec<(String, [u64; 2])> {
        let (width, feed) = (self.width, 2 * self.width);
        let mut tensors =
            vec![("token_embd.weight".to_owned(), [width, words]), ("output.weight".to_owned(), [width, words])];
        for block in 0..self.blocks {
            for (name, dims) in [
                ("attn_q", [width, width]),
                ("attn_k", [width, width / 2]),
                ("attn_v", [width, width / 2]),
                ("attn_output", [width, width]),
                ("ffn_gate", [width, feed]),
                ("ffn_up", [width, feed]),
                ("ffn_down", [feed, width]),
            ] {
                tensors.push((format!("blk.{block}.{name}.weight"), dims));
            }
        }
        match self.shard {
            None => tensors,
            Some((position, count)) => {
                let each = tensors.len().div_ceil(count as usize);
                tensors.chunks(each).nth(position as usize - 1).unwrap().to_vec()
            }
        }
    }
}

fn projector() -> Sparse {
    let number = |number: u32| number.to_le_bytes();
    let writer = Writer::new()
        .entry("general.architecture", TEXT, text("clip"))
        .entry("clip.projector_type", TEXT, text("gemma3"))
        .entry("clip.vision.embedding_length", U32, number(64))
        .entry("clip.vision.feed_forward_length", U32, number(128))
        .entry("clip.vision.block_count", U32, number(1))
        .entry("clip.vision.image_size", U32, number(224))
        .entry("clip.vision.patch_size", U32, number(14));
    with_tensors(writer, &[("v.blk.0.attn_q.weight".to_owned(), [64, 64]), ("mm.0.weight".to_owned(), [64, 256])])
}

fn with_tensors(mut writer: Writer, tensors: &[(String, [u64; 2])]) -> Sparse {
    let mut weights = 0;
    for (name, dims) in tensors {
        writer = writer.tensor(name, dims, F16, weights);
        weights += dims[0] * dims[1] * 2;
    }
    Sparse { bytes: writer.bytes(), weights }
}
