//! File names are bytes: how they are held, sent between processes and printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name printed in full; the rest is replaced by its length.
const PRINT_MAX: usize = 96;

/// A path, name or attribute value. Prints escaped, so that a report stays one line.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Bytes {
    fn from(b: &[u8]) -> Self {
        Bytes(b.to_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= PRINT_MAX {
            write!(f, "\"{}\"", escape(&self.0))
        } else {
            write!(f, "\"{}\"…({} bytes)", escape(&self.0[..PRINT_MAX]), self.0.len())
        }
    }
}

/// Printable ASCII stays; backslash, quote, control and high bytes become `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'\\' | b'"' => {
                out.push('\\');
                out.push(b as char);
            }
            b' '..=b'~' => out.push(b as char),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out
}

/// A JSON string literal whose content is [`escape`]d, so that any bytes survive.
pub fn json_string(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for c in escape(bytes).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_keeps_one_line_and_every_byte() {
        assert_eq!(escape(b"a\n\xff\\"), "a\\x0a\\xff\\\\");
        assert_eq!(json_string(b"a\"\n"), "\"a\\\\\\\"\\\\x0a\"");
    }
}
