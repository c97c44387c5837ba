//! Sizes on the command line, as Kubernetes writes them: `512Mi`, `2Gi`, `1000000`.

/// Reads a size in bytes; for `clap`'s `value_parser`.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let bad = || {
        format!("`{text}` is not a size: write a number of bytes, or one with Ki, Mi or Gi, such as 512Mi")
    };
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: u64 = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(bad()),
    };
    let count: u64 = digits.parse().map_err(|_| bad())?;
    count.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        assert_eq!(parse("1000"), Ok(1000));
        assert_eq!(parse("512Mi"), Ok(512 << 20));
        assert_eq!(parse("2Gi"), Ok(2 << 30));
        for wrong in ["", "0", "Mi", "-1", "5MB", "1.5Gi", "99999999999Gi"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
