//! Sliding windows: how long they are and which blocks have one.

use super::Header;

/// The windows of a model.
#[derive(Debug, Default)]
pub(in crate::memory) struct Windows {
    /// Tokens of the window, 0 where the model has none.
    pub(in crate::memory) tokens: u32,
    /// Which blocks are limited to it.
    pub(in crate::memory) blocks: Vec<bool>,
}

/// Which blocks are windowed.
enum Which {
    /// All but each `period`-th: the last of a period is global, or the first (`set_swa_pattern`).
    /// A pattern in the file goes first (`load_swa_pattern`).
    Period(u32, Global),
    /// As the file lists them.
    Listed,
    /// Every block that is not recurrent.
    Attention,
    /// Every block.
    Every,
}

/// Which block of a period is global.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Global {
    Last,
    First,
}

/// How long the window is.
enum Length {
    /// As the file says; without it there is no window.
    File,
    /// As the file says, else this.
    Default(u32),
    /// This, unless the file says 0.
    Fixed(u32),
    /// This, where the file has a window at all.
    FixedIfAny(u32),
}

/// Returns the rule of an architecture, nothing for one without windows. phi3 and phimoe have a
/// window in the file that llama.cpp ignores.
fn rule(header: &Header) -> Option<(Which, Length)> {
    use Global::{First, Last};
    Some(match header.architecture {
        "gemma2" => (Which::Period(2, Last), Length::Default(4_096)),
        "gemma3" | "gemma-embedding" => (Which::Period(6, Last), Length::File),
        "gemma3n" => (Which::Period(5, Last), Length::File),
        "gpt-oss" => (Which::Period(2, Last), Length::File),
        "afmoe" | "cohere2" | "mellum" | "muse-glimmer" | "olmo2" => (Which::Period(4, Last), Length::File),
        "cohere2moe" | "laguna" => (Which::Period(4, First), Length::File),
        "plamo3" => (Which::Period(8, Last), Length::File),
        "modern-bert" => (Which::Period(3, First), Length::File),
        "exaone-moe" => (Which::Period(4, Last), Length::Default(128)),
        // Only the 32B model, which llama.cpp tells by its depth, has windows.
        "exaone4" if header.trunk == 64 => (Which::Period(4, Last), Length::Default(4_096)),
        // Chunks of 8192 tokens, whatever the file says.
        "llama4" => (Which::Period(4, Last), Length::Fixed(8_192)),
        "smallthinker" => (Which::Period(4, First), Length::FixedIfAny(4_096)),
        "gemma4" | "gemma4-assistant" | "granite_swa" | "maple" | "mimo2" | "spark2_5" | "step35" | "dots3note" => {
            (Which::Listed, Length::File)
        }
        "deepseek4" => (Which::Every, Length::File),
        // DeepSeek V4's drafter, told by its hyper-connections, is a window all through.
        "dflash" if header.keys.number("hyper_connection.count").unwrap_or(0) > 0 => (Which::Every, Length::File),
        "dflash" => (Which::Listed, Length::File),
        "lfm2" => (Which::Attention, Length::File),
        _ => return None,
    })
}

/// Returns the windows of a model.
pub(in crate::memory) fn windows(header: &Header) -> Windows {
    let Some((which, length)) = rule(header) else {
        return Windows { tokens: 0, blocks: vec![false; header.blocks] };
    };
    let file = header.keys.number("attention.sliding_window");
    let tokens = match (length, file) {
        (Length::File, file) => file.unwrap_or(0),
        (Length::Default(tokens), file) => file.unwrap_or(tokens),
        (Length::Fixed(_), Some(0)) | (Length::FixedIfAny(_), None | Some(0)) => 0,
        (Length::Fixed(tokens) | Length::FixedIfAny(tokens), _) => tokens,
    };
    if tokens == 0 {
        return Windows { tokens: 0, blocks: vec![false; header.blocks] };
    }
    let listed = || {
        let mut list = header.keys.array("attention.sliding_window_pattern")?;
        list.resize(header.blocks, 0);
        Some(list.into_iter().map(|flag| flag != 0).collect::<Vec<bool>>())
    };
    let mut blocks = match which {
        Which::Period(period, global) => listed().unwrap_or_else(|| {
            let period = header.keys.number("attention.sliding_window_pattern").unwrap_or(period);
            (0..header.blocks).map(|block| block < header.trunk && in_window(block, period, global)).collect()
        }),
        Which::Listed => listed().unwrap_or_else(|| vec![false; header.blocks]),
        Which::Every => vec![true; header.blocks],
        Which::Attention => header.heads_kv.iter().map(|&heads| heads != 0).collect(),
    };
    if header.architecture == "modern-bert" {
        // The blocks of a decision head see everything.
        let decision = header.keys.number("decision.block_count").unwrap_or(0) as usize;
        blocks[header.blocks.saturating_sub(decision)..].fill(false);
    }
    Windows { tokens, blocks }
}

/// Returns whether a block is windowed; a period of 0 means all are.
fn in_window(block: usize, period: u32, global: Global) -> bool {
    let Some(place) = block.checked_rem(period as usize) else {
        return true;
    };
    match global {
        Global::First => place != 0,
        Global::Last => place + 1 < period as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_global_block_is_the_last_or_the_first_of_its_period() {
        let last: Vec<bool> = (0..6).map(|block| in_window(block, 3, Global::Last)).collect();
        assert_eq!(last, [true, true, false, true, true, false]);
        let first: Vec<bool> = (0..4).map(|block| in_window(block, 2, Global::First)).collect();
        assert_eq!(first, [false, true, false, true]);
        assert!(in_window(7, 0, Global::Last), "no period: every block");
        assert!(!in_window(7, 1, Global::Last), "a period of one: no block");
    }
}
