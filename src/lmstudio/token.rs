//! An API token for LM Studio, which never leaves what it is for: no text, log or value shows it.

use std::fmt;

/// A token that the user gives.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

const PREFIX: &str = "sk-lm-";
const IDENTIFIER: usize = 8;
const PASSKEY: usize = 20;

impl ApiToken {
    /// Reads a token: `sk-lm-`, eight letters or digits, a colon, twenty letters or digits.
    pub fn parse(text: &str) -> Option<ApiToken> {
        let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
        let (identifier, passkey) = text.strip_prefix(PREFIX)?.split_once(':')?;
        let is_part = |part: &str, length| part.len() == length && part.chars().all(|c| c.is_ascii_alphanumeric());
        (is_part(identifier, IDENTIFIER) && is_part(passkey, PASSKEY)).then(|| ApiToken(text.to_owned()))
    }

    /// Returns the value of the `Authorization` header.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Returns the websocket's `clientIdentifier`.
    pub fn identifier(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + IDENTIFIER]
    }

    /// Returns the websocket's `clientPasskey`.
    pub fn passkey(&self) -> &str {
        &self.0[PREFIX.len() + IDENTIFIER + 1..]
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_two_halves_and_is_never_shown() {
        let token = ApiToken::parse("\u{feff} sk-lm-Ab3dEf9h:abcdefghij0123456789\r\n").unwrap();
        assert_eq!((token.identifier(), token.passkey()), ("Ab3dEf9h", "abcdefghij0123456789"));
        assert_eq!(token.bearer(), "Bearer sk-lm-Ab3dEf9h:abcdefghij0123456789");
        assert_eq!(format!("{token:?} {:#?}", Some(&token)).matches("Ab3d").count(), 0);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let wrong = [
            "",
            "sk-lm-",
            "sk-lm-Ab3dEf9h",
            "sk-lm-Ab3dEf9h:abcdefghij012345678",
            "sk-lm-Ab3dEf9h:abcdefghij0123456789x",
            "sk-lm-Ab3dEf9:abcdefghij0123456789",
            "sk-lm-Ab3dEf9\u{e9}:abcdefghij012345678",
            "sk-lm-Ab3d\r\n9h:abcdefghij0123456789",
            "Ab3dEf9h:abcdefghij0123456789",
        ];
        for text in wrong {
            assert_eq!(ApiToken::parse(text), None, "{text:?}");
        }
    }
}
