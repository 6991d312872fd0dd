//! The arguments: what can be typed, in LM Studio's and llama.cpp's words.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit;
use super::sizes::{named_size, size, span};
use crate::fit::Verdict;
use crate::memory::{Backend, CacheType, EngineProfile, FlashAttention, GpuLayers};
use crate::units::{Bytes, Span};

/// Watches the LM Studio models folder and says which models fit this machine now.
///
/// Without a command it runs in the foreground, with its tray icon, until it is asked to quit.
#[derive(Debug, Parser)]
#[command(name = "fitwatch", version, max_term_width = 100, after_help = after_help())]
pub(super) struct Arguments {
    /// What to do; `run` where it is left out.
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Watch in the foreground until asked to quit
    Run(RunArguments),
    /// Say in a few lines how the machine and the library stand
    Status(Format),
    /// List the models with what they need and whether they fit
    #[command(visible_alias = "ls", after_help = LIST_HELP)]
    List(ListArguments),
    /// Show one model's bill line by line
    #[command(after_help = SHOW_HELP)]
    Show(ShowArguments),
    /// Draw up the bill of any GGUF file
    #[command(after_help = ESTIMATE_HELP)]
    Estimate(Box<EstimateArguments>),
    /// Check everything fitwatch depends on and say what to do
    Doctor(Format),
    /// Find, check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Start fitwatch at login from now on
    Install(InstallArguments),
    /// No longer start fitwatch at login
    Uninstall(UninstallArguments),
    /// Unload a loaded model in LM Studio
    #[command(after_help = "`fitwatch status` names what is loaded. Example: fitwatch unload qwen3-8b")]
    Unload {
        /// The instance: its identifier, or a part of its name that only one has
        instance: String,
        #[command(flatten)]
        format: Format,
    },
    /// Silence alerts for a while
    #[command(after_help = "Example: fitwatch pause 1h30m")]
    Pause {
        /// For how long: 45m, 2h, 1h30m
        #[arg(value_parser = span)]
        duration: Span,
    },
    /// End the silence
    Resume,
    /// Scan the folders and sample the machine anew
    Recheck(Format),
    /// End the running fitwatch and wait until it is gone
    Quit,
    /// Print completions for a shell
    #[command(after_help = "Example: fitwatch completions fish > ~/.config/fish/completions/fitwatch.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Format {
    /// Print JSON, with the version of its form under `schema`
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `run`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct RunArguments {
    /// Watch without a tray icon: over ssh, on a server
    #[arg(long)]
    pub(super) no_tray: bool,
}

/// The arguments of `install`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct InstallArguments {
    /// Also start it right away
    #[arg(long)]
    pub(super) now: bool,
    /// Start it without a tray icon, also where nobody sits at the machine (systemd)
    #[arg(long)]
    pub(super) no_tray: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// The arguments of `uninstall`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct UninstallArguments {
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// The arguments of `list`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ListArguments {
    /// Only models whose id, name, architecture or quantisation contains every one of these words
    pub(super) words: Vec<String>,
    /// Only models of this verdict; may be given several times
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub(super) verdict: Vec<VerdictName>,
    #[command(flatten)]
    pub(super) format: Format,
}

/// The arguments of `show`.
#[derive(Clone, Debug, Args)]
pub(super) struct ShowArguments {
    /// The model's id, name or path, or a part that means no other
    pub(super) model: String,
    #[command(flatten)]
    pub(super) format: Format,
}

/// The verdicts as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum VerdictName {
    /// Full GPU offload possible
    Full,
    /// Partial GPU offload possible
    Partial,
    /// Likely fit (CPU only)
    Cpu,
    /// Likely too large
    TooLarge,
    /// Not known yet
    Unknown,
}

/// The commands about the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print where the config file lies
    Path,
    /// Check the config file, or another one
    Check {
        /// The file to check; `-` reads standard input
        file: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Print the settings in force as TOML
    Show(Format),
}

/// The arguments of `estimate`.
#[derive(Clone, Debug, Args)]
pub(super) struct EstimateArguments {
    /// The GGUF file; of shards any one
    #[arg(required_unless_present = "cases")]
    pub(super) file: Option<PathBuf>,
    /// Bill every case of this file, a JSON object a line
    #[arg(long, value_name = "FILE.jsonl", exclusive = true)]
    pub(super) cases: Option<PathBuf>,
    #[command(flatten)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) settings: SettingsArguments,
    #[command(flatten)]
    pub(super) devices: DevicesArguments,
}

/// The settings of a load; what is left out is LM Studio's default.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings (LM Studio's defaults where left out)")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(super) struct SettingsArguments {
    /// Context length in tokens; `max` is the model's own
    #[arg(short, long, visible_alias = "ctx-size", value_name = "TOKENS|max", value_parser = context)]
    pub(super) context: Option<u32>,
    /// Layers on GPUs, the output layer counted as one
    #[arg(long, visible_alias = "n-gpu-layers", value_name = "N|all", value_parser = gpu_layers)]
    pub(super) gpu_layers: Option<GpuLayers>,
    /// Blocks whose experts stay in RAM; without a number all of them
    #[arg(long, visible_alias = "n-cpu-moe", value_name = "N|all", value_parser = cpu_moe,
          num_args = 0..=1, default_missing_value = "all")]
    pub(super) cpu_moe: Option<u32>,
    /// Type of the K cache
    #[arg(long, value_name = "TYPE", value_parser = cache_type())]
    pub(super) cache_type_k: Option<CacheType>,
    /// Type of the V cache
    #[arg(long, value_name = "TYPE", value_parser = cache_type())]
    pub(super) cache_type_v: Option<CacheType>,
    /// Logical batch: LM Studio's evaluation batch size
    #[arg(short, long, visible_alias = "batch-size", value_name = "TOKENS",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) batch: Option<u32>,
    /// Physical batch
    #[arg(short, long, visible_alias = "ubatch-size", value_name = "TOKENS",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) ubatch: Option<u32>,
    /// Slots: LM Studio's max concurrent predictions
    #[arg(long, value_name = "SLOTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) parallel: Option<u32>,
    /// One cache for all slots
    #[arg(long, visible_alias = "kv-unified", overrides_with = "no_unified_kv")]
    pub(super) unified_kv: bool,
    /// A cache of its own for each slot
    #[arg(long, visible_alias = "no-kv-unified", overrides_with = "unified_kv")]
    pub(super) no_unified_kv: bool,
    /// Flash attention
    #[arg(long, visible_alias = "flash-attn", value_name = "on|off|auto", value_parser = flash_attention())]
    pub(super) flash_attention: Option<FlashAttention>,
    /// The cache stays in RAM
    #[arg(long)]
    pub(super) no_kv_offload: bool,
    /// Sliding-window caches as long as the context
    #[arg(long)]
    pub(super) swa_full: bool,
    /// Weights in RAM are read, not mapped
    #[arg(long)]
    pub(super) no_mmap: bool,
    /// Load the MTP blocks for speculative decoding
    #[arg(long)]
    pub(super) mtp: bool,
    /// The projector to load with it
    #[arg(long, value_name = "FILE")]
    pub(super) mmproj: Option<PathBuf>,
    /// server or library, in a build of llama.cpp as in server@9010 [default: what the config says]
    #[arg(long, value_name = "PROFILE")]
    pub(super) engine: Option<EngineProfile>,
}

/// The devices to estimate for; without any, this machine's.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Devices (this machine's where left out)")]
pub(super) struct DevicesArguments {
    /// A GPU and its memory, 24GB or 23.5GiB; once for each
    #[arg(long = "gpu", value_name = "NAME=SIZE", value_parser = named_size)]
    pub(super) gpus: Vec<(String, Bytes)>,
    /// What drives the GPUs [default: cuda]
    #[arg(long, value_name = "BACKEND", value_parser = backend())]
    pub(super) backend: Option<Backend>,
    /// RAM that can be had [default: this machine's]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) ram: Option<Bytes>,
}

impl VerdictName {
    /// Returns the verdict that is meant.
    pub(super) const fn verdict(self) -> Verdict {
        match self {
            VerdictName::Full => Verdict::FullGpu,
            VerdictName::Partial => Verdict::PartialGpu,
            VerdictName::Cpu => Verdict::CpuOnly,
            VerdictName::TooLarge => Verdict::TooLarge,
            VerdictName::Unknown => Verdict::Unknown,
        }
    }
}

fn context(text: &str) -> Result<u32, String> {
    match text {
        "max" => Ok(0),
        number => number.parse().map_err(|_| "a number of tokens is wanted, or `max`".into()),
    }
}

fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    match text {
        "all" | "max" => Ok(GpuLayers::All),
        "off" => Ok(GpuLayers::Count(0)),
        number => match number.parse() {
            Ok(count) => Ok(GpuLayers::Count(count)),
            Err(_) => Err("a number of layers is wanted, or `all`".into()),
        },
    }
}

fn cpu_moe(text: &str) -> Result<u32, String> {
    match text {
        "all" => Ok(u32::MAX),
        number => number.parse().map_err(|_| "a number of blocks is wanted, or `all`".into()),
    }
}

fn cache_type() -> impl clap::builder::TypedValueParser<Value = CacheType> {
    PossibleValuesParser::new(CacheType::ALL.map(CacheType::name))
        .map(|name| CacheType::from_name(&name).expect("only names of cache types are let through"))
}

fn flash_attention() -> impl clap::builder::TypedValueParser<Value = FlashAttention> {
    PossibleValuesParser::new(["on", "off", "auto"]).map(|name| match name.as_str() {
        "on" => FlashAttention::On,
        "off" => FlashAttention::Off,
        _ => FlashAttention::Auto,
    })
}

fn backend() -> impl clap::builder::TypedValueParser<Value = Backend> {
    PossibleValuesParser::new(["cuda", "metal", "vulkan", "rocm", "rpc", "none"]).map(|name| match name.as_str() {
        "cuda" => Backend::Cuda,
        "metal" => Backend::Metal,
        "vulkan" => Backend::Vulkan,
        "rocm" => Backend::Rocm,
        "rpc" => Backend::Rpc,
        _ => Backend::None,
    })
}

fn after_help() -> String {
    format!(
        "\
Examples:
  fitwatch                       run with the tray icon
  fitwatch list --verdict full   the models that fit on the GPU right now
  fitwatch show gemma-3-4b       one model's bill
  fitwatch estimate model.gguf --context 32768 --gpu RTX4090=24GB

{}",
        exit::HELP
    )
}

const LIST_HELP: &str = "\
Examples:
  fitwatch list qwen q4          models with `qwen` and `q4` in their names
  fitwatch list --verdict full --verdict partial
  fitwatch list --json | jq '.models[].id'

Exits with 3 where no model is left to list.";

const SHOW_HELP: &str = "\
Examples:
  fitwatch show gemma-3-4b-it
  fitwatch show --json lmstudio-community/gemma-3-4b-it-GGUF/gemma-3-4b-it-Q4_K_M.gguf

Exits by the verdict: 0 full GPU, 10 partial, 11 CPU only, 12 too large, 13 not known.";

const ESTIMATE_HELP: &str = "\
Examples:
  fitwatch estimate model.gguf
  fitwatch estimate model.gguf --context 32768 --cache-type-k q8_0 --cache-type-v q8_0
  fitwatch estimate model.gguf --gpu RTX4090=24GB --gpu RTX3060=12GB
  fitwatch estimate model.gguf --backend none --ram 32GB

Exits by the verdict: 0 full GPU, 10 partial, 11 CPU only, 12 too large, 13 not known;
3 no such file, 4 the file cannot be read.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn llama_cpp_and_lm_studio_words_mean_the_same() {
        let estimate = |line: &str| {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let Some(Command::Estimate(arguments)) = arguments.command else { panic!("{line}") };
            format!("{:?}", arguments.settings)
        };
        assert_eq!(
            estimate("fitwatch estimate a.gguf --context 9 --gpu-layers 7 --cpu-moe 3 --batch 5 --no-unified-kv"),
            estimate(
                "fitwatch estimate a.gguf --ctx-size 9 --n-gpu-layers 7 --n-cpu-moe 3 --batch-size 5 --no-kv-unified"
            )
        );
    }

    #[test]
    fn the_last_of_two_contrary_flags_counts() {
        let parsed = Arguments::try_parse_from(["fitwatch", "estimate", "a", "--unified-kv", "--no-unified-kv"]);
        let Ok(Arguments { command: Some(Command::Estimate(arguments)) }) = parsed else { panic!("{parsed:?}") };
        assert!(arguments.settings.no_unified_kv && !arguments.settings.unified_kv);
    }

    #[test]
    fn experts_without_a_number_all_stay_in_ram() {
        let parsed = Arguments::try_parse_from(["fitwatch", "estimate", "a", "--cpu-moe"]);
        let Ok(Arguments { command: Some(Command::Estimate(arguments)) }) = parsed else { panic!("{parsed:?}") };
        assert_eq!(arguments.settings.cpu_moe, Some(u32::MAX));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "fitwatch estimate",
            "fitwatch estimate a.gguf --context many",
            "fitwatch estimate a.gguf --batch 0",
            "fitwatch estimate a.gguf --cache-type-k q9",
            "fitwatch estimate a.gguf --gpu 24GB",
            "fitwatch estimate a.gguf --backend directml",
            "fitwatch estimate a.gguf --cases b.jsonl",
            "fitwatch list --verdict good",
            "fitwatch pause forever",
            "fitwatch frobnicate",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
