//! Small shared pieces of the three command lines.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A usage error: printed with the usage text, exit status 2.
pub type UsageError = String;

/// Parses a decimal option value, with an optional k, m or g suffix (powers of 1000).
pub fn number(name: &str, value: OsString) -> Result<u64, UsageError> {
    let text = value.into_string().map_err(|_| format!("--{name}: not a number"))?;
    let (digits, factor) = match text.char_indices().last() {
        Some((i, 'k')) => (&text[..i], 1_000),
        Some((i, 'm')) => (&text[..i], 1_000_000),
        Some((i, 'g')) => (&text[..i], 1_000_000_000),
        _ => (text.as_str(), 1),
    };
    let n: u64 = digits.parse().map_err(|_| format!("--{name}: '{text}' is not a number"))?;
    n.checked_mul(factor).ok_or_else(|| format!("--{name}: '{text}' is too large"))
}

/// The value that follows an option.
pub fn value(parser: &mut lexopt::Parser) -> Result<OsString, UsageError> {
    parser.value().map_err(|e| e.to_string())
}

/// A path as bytes.
pub fn path(value: OsString) -> Vec<u8> {
    value.into_vec()
}

/// A list separated by commas.
pub fn list(value: OsString) -> Vec<String> {
    value.to_string_lossy().split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_takes_suffixes() {
        assert_eq!(number("ops", "200k".into()), Ok(200_000));
        assert!(number("ops", "x".into()).is_err());
    }
}
