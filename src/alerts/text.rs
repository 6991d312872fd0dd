//! Words that notices and the menu share.
//!
//! Names come from files and drivers: whatever they hold, they stay one line that reads in its
//! own direction and cannot play tricks on the text around it.

use crate::fit::{Judgement, Verdict};
use crate::units::Bytes;

/// Returns a name as one harmless line: no control characters, no marks that turn the direction
/// of the text around it.
pub(crate) fn tidy(name: &str) -> String {
    let line: String = name
        .chars()
        .filter(|character| !is_invisible(*character))
        .map(|character| if character.is_control() || character.is_whitespace() { ' ' } else { character })
        .collect();
    line.trim().to_owned()
}

/// Returns a tidy name of at most `length` characters, its middle left out where it is longer.
///
/// Both ends matter: the family stands first, the quantisation last.
pub(crate) fn elided(name: &str, length: usize) -> String {
    let name = tidy(name);
    let count = name.chars().count();
    let short = if count <= length {
        name
    } else {
        let kept = length.saturating_sub(1);
        let tail = kept / 2;
        let head = kept - tail;
        let start: String = name.chars().take(head).collect();
        let end: String = name.chars().skip(count - tail).collect();
        format!("{start}…{end}")
    };
    // Isolated, so that a name written from right to left leaves the numbers after it in place.
    if short.chars().any(is_right_to_left) { format!("\u{2068}{short}\u{2069}") } else { short }
}

/// Returns a GPU's name without its maker's marks: `RTX 4090`.
pub(crate) fn short_device(name: &str) -> String {
    const MARKS: [&str; 4] = ["(R)", "(TM)", "®", "™"];
    const MAKERS: [&str; 4] = ["NVIDIA GeForce ", "NVIDIA ", "AMD ", "Advanced Micro Devices, Inc. "];

    let plain = MARKS.iter().fold(name.to_owned(), |name, mark| name.replace(mark, ""));
    let plain = tidy(&plain);
    let short = MAKERS.iter().find_map(|maker| plain.strip_prefix(maker)).unwrap_or(&plain);
    elided(short, 40)
}

/// Returns what a judgement comes to, in a few words: `2.1 GB to spare`.
pub(crate) fn outcome(judgement: &Judgement) -> String {
    let pool = short_device(&judgement.binding);
    let spare = Bytes(judgement.spare.unsigned_abs());
    match judgement.verdict {
        Verdict::FullGpu | Verdict::CpuOnly if judgement.spare < 0 => "just fits".into(),
        Verdict::FullGpu => format!("{spare} to spare"),
        Verdict::PartialGpu if judgement.gpu_layers >= judgement.layers && judgement.cpu_moe > 0 => {
            format!("experts of {} in RAM", counted(judgement.cpu_moe as usize, "layer"))
        }
        Verdict::PartialGpu => format!("{} of {} layers on GPU", judgement.gpu_layers, judgement.layers),
        Verdict::CpuOnly => format!("{spare} of RAM to spare"),
        Verdict::TooLarge if judgement.spare < 0 => format!("{spare} short of {pool}"),
        Verdict::TooLarge => "too large".into(),
        Verdict::Unknown => "not known yet".into(),
    }
}

/// Returns a number with its noun: `1 model`, `3 models`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Returns whether a character shows nothing and may change how others are shown.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns whether a character belongs to a script written from right to left.
const fn is_right_to_left(character: char) -> bool {
    matches!(character, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_without_tricks() {
        assert_eq!(tidy("a\nb\tc\u{7}"), "a b c");
        assert_eq!(tidy("gpj\u{202e}.gguf\u{200b}\u{feff}"), "gpj.gguf");
        assert_eq!(tidy("R&D_model <b>"), "R&D_model <b>");
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(elided("Qwen3-Coder-30B-A3B-Instruct-Q4_K_M", 15), "Qwen3-C…-Q4_K_M");
        assert_eq!(elided("short", 15), "short");
        assert_eq!(elided("äöüäöüäöü", 5), "äö…öü");
        assert_eq!(elided("anything", 0), "…");
    }

    #[test]
    fn a_name_from_right_to_left_is_isolated() {
        assert_eq!(elided("שלום", 20), "\u{2068}שלום\u{2069}");
    }

    #[test]
    fn gpu_names_lose_their_makers_marks() {
        assert_eq!(short_device("NVIDIA GeForce RTX 4090"), "RTX 4090");
        assert_eq!(short_device("NVIDIA RTX A6000"), "RTX A6000");
        assert_eq!(short_device("AMD Radeon RX 7900 XTX"), "Radeon RX 7900 XTX");
        assert_eq!(short_device("Intel(R) Arc(TM) A770"), "Intel Arc A770");
        assert_eq!(short_device("RAM"), "RAM");
    }
}
