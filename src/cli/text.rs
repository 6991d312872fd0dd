//! Text for terminals: what comes from outside made harmless, elided, counted in columns.
//!
//! Names on disk and in headers are chosen by strangers. [`safe`] escapes every character that
//! could move the cursor, colour the screen, break a line or turn the reading direction, so that
//! what is shown is what is there.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Returns the text with control, invisible and direction characters escaped as `\u{…}`.
pub(super) fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Returns a path with its unsafe characters escaped.
pub(super) fn safe_path(path: &std::path::Path) -> String {
    safe(&path.to_string_lossy()).into_owned()
}

/// Returns JSON text in which unsafe characters that JSON allows are written `\uXXXX`.
pub(super) fn safe_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        // JSON text proper holds only ASCII outside of strings, so this changes strings alone.
        if is_unsafe(character) && character != '\n' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Returns whether a character is shown as something other than itself in its place.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'
                ..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Returns how many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Returns the text shortened to `columns` by a `…` in its middle: the ends of a name say most.
pub(super) fn elide(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let room = columns.saturating_sub(1);
    let tail: Vec<char> = fitting(text.chars().rev(), room / 2);
    let tail_width: usize = tail.iter().map(|character| character.width().unwrap_or(0)).sum();
    let mut elided: String = fitting(text.chars(), room - tail_width).into_iter().collect();
    elided.push('…');
    elided.extend(tail.into_iter().rev());
    Cow::Owned(elided)
}

/// Returns the first characters that fit into `columns`.
fn fitting(characters: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut left = columns;
    characters
        .take_while(|character| match left.checked_sub(character.width().unwrap_or(0)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect()
}

/// Returns a number with its thousands apart: `4,920,739,232`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the text wrapped at spaces to `columns`, every line but the first indented.
pub(super) fn wrap(text: &str, columns: Option<usize>, indent: usize) -> String {
    let Some(columns) = columns else {
        return text.to_owned();
    };
    let mut wrapped = String::with_capacity(text.len() + 16);
    let mut used = indent;
    for word in text.split(' ') {
        let needed = width(word);
        if used > indent && used + 1 + needed > columns {
            let _ = write!(wrapped, "\n{:indent$}", "");
            used = indent;
        } else if !wrapped.is_empty() {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += needed;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        assert_eq!(safe("plain ünï 模型.gguf"), "plain ünï 模型.gguf");
        assert_eq!(safe("a\u{1b}[31mred\n\u{7}"), "a\\u{1b}[31mred\\u{a}\\u{7}");
        assert_eq!(safe("gguf\u{202e}fdp"), "gguf\\u{202e}fdp");
        assert_eq!(safe("\u{85}\u{feff}\u{e0041}"), "\\u{85}\\u{feff}\\u{e0041}");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = "x\u{9b}31m\u{202e}\u{e0041}\u{1b}ü";
        let json = serde_json::to_string_pretty(&[value]).unwrap();
        let escaped = safe_json(&json);
        assert!(!escaped.contains(|character| is_unsafe(character) && character != '\n'), "{escaped:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&escaped).unwrap(), [value]);
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(elide("Meta-Llama-3.1-8B-Q4_K_M", 24), "Meta-Llama-3.1-8B-Q4_K_M");
        assert_eq!(elide("Meta-Llama-3.1-8B-Q4_K_M", 13), "Meta-L…Q4_K_M");
        assert_eq!(elide("模型模型模型", 7), "模型…型");
        assert_eq!(elide("abc", 1), "…");
    }

    #[test]
    fn an_elided_name_is_never_wider_than_asked() {
        for columns in 1..20 {
            let elided = elide("a模b型c模d型e模f型g模h型", columns).into_owned();
            assert!(width(&elided) <= columns, "{elided} in {columns}");
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(4_920_739_232), "4,920,739,232");
    }

    #[test]
    fn long_text_wraps_at_spaces() {
        assert_eq!(wrap("one two three", Some(9), 2), "one two\n  three");
        assert_eq!(wrap("one two three", None, 2), "one two three");
        assert_eq!(wrap("unbreakableword", Some(5), 2), "unbreakableword");
    }
}
