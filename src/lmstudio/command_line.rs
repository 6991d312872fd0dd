//! What an engine's command line asks for.
//!
//! The options are llama-server's, of the builds of both of LM Studio's engine generations and of
//! those before. Only what is listed in [`Asked`] is kept: keys, tokens, prompts, templates and
//! whatever else stands there are passed over here and go no further. As in llama.cpp the last of two
//! equal options counts, `_` in a long option's name is `-`, and an option that takes a value takes
//! the next word, whatever it looks like.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::Asked;
use crate::memory::{CacheType, FlashAttention};

/// Command lines beyond this many words are looked at no further.
const WORDS: usize = 4_096;

/// Longer values are none that an engine would take.
const LONGEST: usize = 32 << 10;

/// Options whose value is a free text, a secret or a file that does not concern us; it may look
/// like an option. Others that are not known take the next word unless it begins with a dash.
const TEXTS: &[&str] = &[
    "--alias",
    "--api-key",
    "--api-key-file",
    "--api-prefix",
    "--binary-file",
    "--chat-template",
    "--chat-template-file",
    "--chat-template-kwargs",
    "--chunk-separator",
    "--cls-separator",
    "--context-file",
    "--cors-headers",
    "--cors-methods",
    "--cors-origins",
    "--docker-repo",
    "--dry-sequence-breaker",
    "--embd-separator",
    "--file",
    "--grammar",
    "--grammar-file",
    "--hf-file",
    "--hf-repo",
    "--hf-repo-draft",
    "--hf-repo-v",
    "--hf-token",
    "--host",
    "--image",
    "--in-file",
    "--in-prefix",
    "--in-suffix",
    "--json-schema",
    "--json-schema-file",
    "--log-file",
    "--log-prompts-dir",
    "--logit-bias",
    "--lora",
    "--lora-scaled",
    "--mcp-servers-config",
    "--mcp-servers-json",
    "--media-path",
    "--mmproj-url",
    "--model-url",
    "--models-dir",
    "--models-preset",
    "--output",
    "--output-file",
    "--override-kv",
    "--path",
    "--prompt",
    "--prompt-cache",
    "--reasoning-budget-message",
    "--reverse-prompt",
    "--rpc",
    "--samplers",
    "--server-base",
    "--slot-save-path",
    "--spec-draft-hf",
    "--ssl-cert-file",
    "--ssl-key-file",
    "--system-prompt",
    "--system-prompt-file",
    "--tags",
    "--tools",
    "--tools-runtime",
    "--ui-config",
    "--ui-config-file",
    "--webui-config",
    "--webui-config-file",
    "-a",
    "-bf",
    "-dr",
    "-f",
    "-hf",
    "-hfd",
    "-hff",
    "-hfr",
    "-hfrd",
    "-hft",
    "-j",
    "-jf",
    "-l",
    "-mmu",
    "-mu",
    "-o",
    "-p",
    "-r",
    "-sys",
    "-sysf",
];

/// Reads a command line, the program's own name included.
pub fn parse_command_line(argv: &[OsString]) -> Asked {
    let mut words = argv.iter().take(WORDS).skip(1 + interpreters_own(argv)).map(OsString::as_os_str).peekable();
    let mut asked = Asked::default();
    let mut spread = Spread::default();
    while let Some(word) = words.next() {
        let Some((name, given)) = option(word) else { continue };
        let name = name.as_str();
        if let Some(switch) = Switch::of(name) {
            switch.set(&mut asked);
            continue;
        }
        let is_flash = matches!(name, "--flash-attn" | "-fa");
        let takes = match &given {
            Some(_) => false,
            // A bare flag in old builds.
            None if is_flash => words.peek().is_some_and(|next| flash(next).is_some()),
            None if TEXTS.contains(&name) || Valued::of(name).is_some() => true,
            None => words.peek().is_some_and(|next| !starts_with_dash(next)),
        };
        let next = if takes { words.next() } else { None };
        let value = given.as_deref().or(next);
        match (Valued::of(name), value) {
            _ if is_flash => asked.flash_attention = Some(value.and_then(flash).unwrap_or(FlashAttention::On)),
            (Some(valued), Some(value)) if value.len() <= LONGEST => valued.set(value, &mut asked, &mut spread),
            _ => {}
        }
    }
    spread.finish(&mut asked);
    asked
}

/// Returns how many words after an interpreter's name belong to itself: its switches and the script.
fn interpreters_own(argv: &[OsString]) -> usize {
    let program = argv.first().map(|word| word.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
    if !name.starts_with("python") && !name.starts_with("pypy") {
        return 0;
    }
    let mut words = argv.iter().enumerate().skip(1);
    while let Some((place, word)) = words.next() {
        match word.to_string_lossy().as_ref() {
            // The module or the code ends what the interpreter itself takes.
            "-m" | "-c" => return place + 1,
            "-W" | "-X" => drop(words.next()),
            word if word.starts_with('-') => {}
            _ => return place,
        }
    }
    0
}

/// Returns the name of an option, and its value where it was given as `--option=value`.
fn option(word: &OsStr) -> Option<(String, Option<OsString>)> {
    let text = word.to_string_lossy();
    if !text.starts_with('-') || text.len() > LONGEST {
        return None;
    }
    let Some(long) = text.strip_prefix("--") else { return Some((text.into_owned(), None)) };
    let (name, value) = match long.split_once('=') {
        Some((name, _)) => (name, Some(after_equals(word)?)),
        None => (long, None),
    };
    Some((format!("--{}", name.replace('_', "-")), value))
}

/// Returns what stands after the first `=`, also where it is no text.
fn after_equals(word: &OsStr) -> Option<OsString> {
    if let Some(text) = word.to_str() {
        return text.split_once('=').map(|(_, value)| value.into());
    }
    let bytes = word.as_encoded_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    // The form of a foreign string is the system's own; where it is not bytes the text must do.
    #[cfg(unix)]
    return Some(std::os::unix::ffi::OsStringExt::from_vec(bytes[at + 1..].to_vec()));
    #[cfg(not(unix))]
    return Some(String::from_utf8_lossy(&bytes[at + 1..]).into_owned().into());
}

fn starts_with_dash(word: &OsStr) -> bool {
    word.as_encoded_bytes().first() == Some(&b'-')
}

/// How layers are spread over GPUs.
#[expect(clippy::struct_excessive_bools, reason = "one for each option, the last of which counts")]
#[derive(Default)]
struct Spread {
    split_mode: bool,
    tensor_split: bool,
    main_gpu: bool,
    devices: bool,
    overrides: bool,
    no_device: bool,
}

impl Spread {
    fn finish(self, asked: &mut Asked) {
        asked.own_split = self.split_mode || self.tensor_split || self.main_gpu || self.devices || self.overrides;
        if self.no_device {
            asked.gpu_layers = Some(0);
        }
    }
}

/// An option without a value.
enum Switch {
    UnifiedKv(bool),
    OffloadKv(bool),
    Mmap(bool),
    Mlock,
    DirectIo,
    SwaFull,
    Embeddings,
    CpuMoe,
}

impl Switch {
    fn of(name: &str) -> Option<Switch> {
        Some(match name {
            "--kv-unified" | "-kvu" => Switch::UnifiedKv(true),
            "--no-kv-unified" | "-no-kvu" => Switch::UnifiedKv(false),
            "--kv-offload" | "-kvo" => Switch::OffloadKv(true),
            "--no-kv-offload" | "-nkvo" => Switch::OffloadKv(false),
            "--mmap" => Switch::Mmap(true),
            "--no-mmap" => Switch::Mmap(false),
            "--mlock" => Switch::Mlock,
            "--direct-io" | "-dio" => Switch::DirectIo,
            "--swa-full" => Switch::SwaFull,
            "--embedding" | "--embeddings" | "--rerank" | "--reranking" => Switch::Embeddings,
            "--cpu-moe" | "-cmoe" => Switch::CpuMoe,
            _ => return None,
        })
    }

    fn set(&self, asked: &mut Asked) {
        match self {
            Switch::UnifiedKv(on) => asked.unified_kv = Some(*on),
            Switch::OffloadKv(on) => asked.offload_kv = Some(*on),
            Switch::Mmap(on) => asked.mmap = Some(*on),
            Switch::Mlock => asked.mlock = Some(true),
            Switch::DirectIo => asked.mmap = Some(false),
            Switch::SwaFull => asked.swa_full = Some(true),
            Switch::Embeddings => asked.embeddings = Some(true),
            Switch::CpuMoe => asked.cpu_moe = Some(u32::MAX),
        }
    }
}

/// An option with a value that counts.
enum Valued {
    Model,
    Projector,
    DraftModel,
    Context,
    Batch,
    Ubatch,
    Parallel,
    GpuLayers,
    CpuMoe,
    CacheTypeK,
    CacheTypeV,
    LoadMode,
    Fit,
    SpecType,
    SplitMode,
    TensorSplit,
    MainGpu,
    Device,
    Override,
}

impl Valued {
    /// The names of llama.cpp, old and new, and those of its Python server.
    fn of(name: &str) -> Option<Valued> {
        Some(match name {
            "--model" | "-m" => Valued::Model,
            "--mmproj" | "-mm" => Valued::Projector,
            "--model-draft" | "-md" | "--spec-draft-model" => Valued::DraftModel,
            "--ctx-size" | "-c" | "--n-ctx" => Valued::Context,
            "--batch-size" | "-b" | "--n-batch" => Valued::Batch,
            "--ubatch-size" | "-ub" | "--n-ubatch" => Valued::Ubatch,
            "--parallel" | "-np" => Valued::Parallel,
            "--n-gpu-layers" | "--gpu-layers" | "-ngl" => Valued::GpuLayers,
            "--n-cpu-moe" | "-ncmoe" => Valued::CpuMoe,
            "--cache-type-k" | "-ctk" => Valued::CacheTypeK,
            "--cache-type-v" | "-ctv" => Valued::CacheTypeV,
            "--load-mode" | "-lm" => Valued::LoadMode,
            "--fit" | "-fit" => Valued::Fit,
            "--spec-type" => Valued::SpecType,
            "--split-mode" | "-sm" => Valued::SplitMode,
            "--tensor-split" | "-ts" => Valued::TensorSplit,
            "--main-gpu" | "-mg" => Valued::MainGpu,
            "--device" | "-dev" => Valued::Device,
            "--override-tensor" | "-ot" | "--n-cpu-ffn" | "-ncffn" => Valued::Override,
            _ => return None,
        })
    }

    fn set(&self, value: &OsStr, asked: &mut Asked, spread: &mut Spread) {
        let text = value.to_string_lossy();
        let text = text.trim();
        match self {
            Valued::Model => asked.model = path(value),
            Valued::Projector => asked.projector = path(value),
            Valued::DraftModel => asked.draft_model = path(value),
            Valued::Context => asked.context = text.parse().ok(),
            Valued::Batch => asked.batch = text.parse().ok(),
            Valued::Ubatch => asked.ubatch = text.parse().ok(),
            // -1 lets the engine choose.
            Valued::Parallel => asked.parallel = text.parse().ok(),
            Valued::GpuLayers => asked.gpu_layers = gpu_layers(text),
            // Both options add to what is kept in RAM.
            Valued::CpuMoe => asked.cpu_moe = text.parse().ok().max(asked.cpu_moe),
            Valued::CacheTypeK => asked.cache_type_k = CacheType::from_name(text),
            Valued::CacheTypeV => asked.cache_type_v = CacheType::from_name(text),
            Valued::LoadMode => (asked.mmap, asked.mlock) = load_mode(text).unwrap_or((asked.mmap, asked.mlock)),
            Valued::Fit => asked.fit = truth(text),
            Valued::SpecType if text.split(',').any(|kind| kind.trim().ends_with("mtp")) => asked.mtp = Some(true),
            Valued::SpecType => {}
            Valued::SplitMode => spread.split_mode = text != "layer",
            Valued::TensorSplit => spread.tensor_split = names_a_share(text),
            Valued::MainGpu => spread.main_gpu = text.parse() != Ok(0),
            Valued::Device => (spread.devices, spread.no_device) = (text != "none", text == "none"),
            Valued::Override => spread.overrides = true,
        }
    }
}

fn path(value: &OsStr) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

/// Returns the layers asked for; nothing where the engine chooses.
fn gpu_layers(text: &str) -> Option<u32> {
    match text {
        "auto" => None,
        "all" => Some(u32::MAX),
        number => match number.parse::<i64>().ok()? {
            -1 => None,
            layers if layers < 0 => Some(u32::MAX),
            layers => u32::try_from(layers).ok(),
        },
    }
}

/// Returns whether the file is mapped and locked.
fn load_mode(text: &str) -> Option<(Option<bool>, Option<bool>)> {
    Some(match text {
        "auto" => (None, None),
        "none" | "dio" => (Some(false), Some(false)),
        "mmap" => (Some(true), Some(false)),
        "mlock" => (Some(false), Some(true)),
        "mmap+mlock" => (Some(true), Some(true)),
        _ => return None,
    })
}

/// Returns whether a list of shares leaves the choice to the engine no more: LM Studio writes 0
/// where it has none.
fn names_a_share(text: &str) -> bool {
    text.split([',', '/']).any(|share| share.trim().parse().is_ok_and(|share: f64| share != 0.0))
}

fn flash(value: &OsStr) -> Option<FlashAttention> {
    match value.to_str()?.trim() {
        "auto" | "-1" => Some(FlashAttention::Auto),
        text => truth(text).map(|on| if on { FlashAttention::On } else { FlashAttention::Off }),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "on" | "enabled" | "true" | "1" => Some(true),
        "off" | "disabled" | "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn asked(line: &str) -> Asked {
        parse_command_line(&argv(line))
    }

    fn argv(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    const ENGINE: &str = "/h/extensions/backends/llama.cpp-linux-x86_64-nvidia-cuda12-avx2-2.31.0/llama-server \
        --model /m/a/b/c.gguf --host 127.0.0.1 --port 39121 --api-key SECRET --no-webui --jinja \
        --chat-template-file /tmp/SECRET.jinja --ctx-size 32768 --n-gpu-layers 999999 --n-cpu-moe 7 --main-gpu 0 \
        --tensor-split 0 --split-mode layer --batch-size 2048 --ubatch-size 512 --threads 8 --parallel 4 \
        --cache-type-k f16 --cache-type-v q8_0 --flash-attn auto --kv-offload --kv-unified --no-direct-io \
        --load-mode mmap+mlock --mmproj /m/a/b/mmproj.gguf --spec-type draft-mtp";

    #[test]
    fn the_command_line_of_lm_studios_engine_is_understood() {
        let expected = Asked {
            model: Some("/m/a/b/c.gguf".into()),
            projector: Some("/m/a/b/mmproj.gguf".into()),
            context: Some(32_768),
            batch: Some(2_048),
            ubatch: Some(512),
            parallel: Some(4),
            unified_kv: Some(true),
            gpu_layers: Some(999_999),
            cpu_moe: Some(7),
            cache_type_k: Some(CacheType::F16),
            cache_type_v: Some(CacheType::Q8_0),
            flash_attention: Some(FlashAttention::Auto),
            offload_kv: Some(true),
            mmap: Some(true),
            mlock: Some(true),
            mtp: Some(true),
            ..Asked::default()
        };
        assert_eq!(asked(ENGINE), expected);
    }

    #[test]
    fn short_forms_underscores_and_equals_signs_are_the_same() {
        let long = asked("s --model m.gguf --ctx-size 512 --n-gpu-layers 33 --no-kv-offload --embeddings");
        for same in [
            "s -m m.gguf -c 512 -ngl 33 -nkvo --embedding",
            "s --model=m.gguf --ctx-size=512 --gpu-layers=33 --no_kv_offload --rerank",
            "s --model m.gguf --ctx_size 512 --n_gpu_layers 33 -nkvo --embedding",
            "python3 -m llama_cpp.server --model m.gguf --n_ctx 512 --n_gpu_layers 33 -nkvo --embedding",
            "python3 -X utf8 -u serve.py -m m.gguf -c 512 -ngl 33 -nkvo --embedding",
            "/opt/py/python3.12 -c SECRET -m m.gguf -c 512 -ngl 33 -nkvo --embedding",
        ] {
            assert_eq!(asked(same), long, "{same}");
        }
    }

    #[test]
    fn the_last_of_two_equal_options_counts() {
        let found = asked("s -m a.gguf -c 512 -ngl 20 --mlock -kvo --model b.gguf --ctx-size 0 -ngl auto -nkvo");
        assert_eq!((found.model, found.context, found.gpu_layers), (Some("b.gguf".into()), Some(0), None));
        assert_eq!((found.offload_kv, found.mlock), (Some(false), Some(true)));
    }

    #[test]
    fn flash_attention_is_a_bare_flag_in_old_builds() {
        for (line, expected) in [
            ("s -fa -c 512", FlashAttention::On),
            ("s --flash-attn", FlashAttention::On),
            ("s -c 512 --flash-attn off", FlashAttention::Off),
            ("s -c 512 -fa 0", FlashAttention::Off),
            ("s -c 512 --flash-attn=auto", FlashAttention::Auto),
            ("s --flash-attn on -c 512", FlashAttention::On),
        ] {
            assert_eq!(asked(line).flash_attention, Some(expected), "{line}");
            assert!(!line.contains("-c") || asked(line).context == Some(512), "{line}");
        }
        assert_eq!(asked("s -c 512").flash_attention, None);
    }

    #[test]
    fn layers_are_a_number_all_or_the_engines_choice() {
        for (value, expected) in [
            ("999999", Some(999_999)),
            ("0", Some(0)),
            ("all", Some(u32::MAX)),
            ("-2", Some(u32::MAX)),
            ("auto", None),
            ("-1", None),
            ("99999999999", None),
            ("many", None),
        ] {
            assert_eq!(asked(&format!("s -ngl {value}")).gpu_layers, expected, "{value}");
        }
        assert_eq!(asked("s -ngl 99 --device none").gpu_layers, Some(0));
        assert!(!asked("s --device none").own_split);
    }

    #[test]
    fn experts_on_the_cpu_add_up() {
        assert_eq!(asked("s --cpu-moe").cpu_moe, Some(u32::MAX));
        assert_eq!(asked("s -ncmoe 4 -cmoe").cpu_moe, Some(u32::MAX));
        assert_eq!(asked("s -cmoe --n-cpu-moe 4").cpu_moe, Some(u32::MAX));
    }

    #[test]
    fn both_styles_of_mapping_and_locking_are_understood() {
        let found = |line: &str| (asked(line).mmap, asked(line).mlock);
        assert_eq!(found("s --no-mmap"), (Some(false), None));
        assert_eq!(found("s --mlock"), (None, Some(true)));
        assert_eq!(found("s --load-mode mmap+mlock"), (Some(true), Some(true)));
        assert_eq!(found("s -lm none"), (Some(false), Some(false)));
        assert_eq!(found("s --load-mode auto"), (None, None));
        assert_eq!(found("s --load-mode new-mode --mlock"), (None, Some(true)));
    }

    #[test]
    fn what_lm_studio_always_writes_is_no_split_of_ones_own() {
        assert!(!asked("s --main-gpu 0 --tensor-split 0 --split-mode layer").own_split);
        assert!(!asked("s --tensor-split 0,0").own_split);
        for own in ["-ts 3,1", "--tensor-split 1", "-sm row", "-mg 1", "-dev CUDA0", "-ot exps=CPU", "-ncffn 3"] {
            assert!(asked(&format!("s {own}")).own_split, "{own}");
        }
    }

    #[test]
    fn the_engine_may_be_left_to_fit_what_was_not_asked() {
        assert_eq!(asked("s --fit on --fit-ctx 4096").fit, Some(true));
        assert_eq!(asked("s -fit off").fit, Some(false));
        assert_eq!(asked("s --fit on --fit-ctx 4096").context, None);
    }

    #[test]
    fn a_windows_path_with_spaces_stays_whole() {
        let path = r"C:\Users\Robin Smith\.lmstudio\models\a b\c d.gguf";
        let argv = [r"C:\x y\llama-server.exe", "--model", path, "-c", "512"].map(OsString::from);
        let found = parse_command_line(&argv);
        assert_eq!((found.model, found.context), (Some(path.into()), Some(512)));
        let argv = ["s".to_owned(), format!("--model={path}")].map(OsString::from);
        assert_eq!(parse_command_line(&argv).model, Some(path.into()));
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_text_is_kept_as_it_is() {
        use std::os::unix::ffi::OsStrExt;
        let argv = [&b"s"[..], b"--model=/m/\xff.gguf"].map(|word| OsStr::from_bytes(word).to_owned());
        let expected = PathBuf::from(OsStr::from_bytes(b"/m/\xff.gguf"));
        assert_eq!(parse_command_line(&argv).model, Some(expected));
    }

    #[test]
    fn a_text_that_looks_like_an_option_is_passed_over() {
        for option in ["-p", "--prompt", "-sys", "--api-key", "--grammar", "--chat-template", "-j", "--alias", "-hft"] {
            let argv = ["s", "-m", "m.gguf", option, "--model", "SECRET", "-c", "512"].map(OsString::from);
            let found = parse_command_line(&argv);
            assert_eq!((found.model, found.context), (Some("m.gguf".into()), Some(512)), "{option}");
        }
    }

    #[test]
    fn options_that_are_not_known_cost_nothing() {
        let found = asked("s --new-flag --model m.gguf --new-option x -c 512 --new=x stray --seed -1 -ngl 5");
        assert_eq!((found.model, found.context, found.gpu_layers), (Some("m.gguf".into()), Some(512), Some(5)));
        for cut in ["", "s", "s --model", "s -c", "s --", "s -", "s --=", "s =", "s --ctx-size x"] {
            assert_eq!(asked(cut), Asked::default(), "{cut}");
        }
    }

    #[test]
    fn no_secret_of_a_command_line_is_kept() {
        let found = asked(&format!(
            "{ENGINE} --api-key-file /SECRET -hft SECRET --hf-token=SECRET -p SECRET --system-prompt SECRET \
             -f SECRET --lora SECRET --ssl-key-file SECRET --api_key SECRET --something SECRET SECRET"
        ));
        assert!(!format!("{found:?}{}", json!(found)).contains("SECRET"));
    }

    /// Words of every kind, the planted secret after an option that takes it.
    fn words() -> impl Strategy<Value = Vec<String>> {
        let known = prop::sample::select(vec![
            "--model",
            "-m",
            "--mmproj",
            "-c",
            "--ctx-size",
            "-ngl",
            "--fit",
            "-fa",
            "--load-mode",
            "-ts",
            "--spec-type",
            "-cmoe",
            "--n-cpu-moe",
            "--no-mmap",
            "-ot",
            "--device",
            "-ctk",
            "--unknown",
            "--",
            "-",
            "=",
            "--model=",
            "on",
            "auto",
            "512",
            "-1",
            "x.gguf",
        ]);
        let word = prop_oneof![known.prop_map(|word| vec![word.to_owned()]), ".{0,12}".prop_map(|word| vec![word])];
        // After these a text follows in a form that llama.cpp takes.
        let secret = prop::sample::select(TEXTS.to_vec()).prop_flat_map(|name| {
            let joined = format!("{name}=s3cr3t");
            let apart = vec![name.to_owned(), "s3cr3t".to_owned()];
            if name.starts_with("--") {
                prop_oneof![Just(vec![joined]), Just(apart)].boxed()
            } else {
                Just(apart).boxed()
            }
        });
        // A word before it would take the option's name for its value.
        let closed = secret.prop_map(|mut words| {
            words.insert(0, "--jinja".into());
            words
        });
        prop::collection::vec(prop_oneof![3 => word, 1 => closed], 0..40)
            .prop_map(|parts| std::iter::once("llama-server".to_owned()).chain(parts.into_iter().flatten()).collect())
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic_or_keeps_a_secret(words in words()) {
            let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
            let found = parse_command_line(&argv);
            let shown = format!("{found:?}{}", json!(found));
            prop_assert!(!shown.contains("s3cr3t"), "{words:?}: {shown}");
        }

        #[cfg(unix)]
        #[test]
        fn no_bytes_make_it_panic(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
            use std::os::unix::ffi::OsStringExt;
            parse_command_line(&words.into_iter().map(OsString::from_vec).collect::<Vec<_>>());
        }
    }
}
