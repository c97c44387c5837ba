//! Durations on the command line: Go's spelling (`1h30m`, `250ms`), as istiod takes it, and days (`730d`).

use std::time::Duration;

/// Reads a duration such as `24h`, `1h30m`, `250ms` or `730d`; for `clap`'s `value_parser`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!("`{text}` is not a duration: write a number and a unit (ms, s, m, h, d), such as 24h or 730d")
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let count: u32 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return Err(bad()),
        };
        rest = &rest[unit_len..];
        total = unit.checked_mul(count).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
    }
    Ok(total)
}

/// [`parse`], refusing zero.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_spelling_and_days() {
        for (text, seconds) in
            [("24h", 86_400.0), ("1h30m", 5400.0), ("730d", 63_072_000.0), ("250ms", 0.25), ("0s", 0.0)]
        {
            assert_eq!(parse(text).map(|d| d.as_secs_f64()), Ok(seconds), "{text}");
        }
        for text in ["", "h", "24", "24 h", "-1h", "1y", "1.5h", "h1", "99999999999999999999h", "24H"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse_positive("0h").is_err());
    }
}
