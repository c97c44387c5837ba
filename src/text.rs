//! What strangers wrote, in words for people: it must not fill a log, nor break its lines.

/// So many characters of it are kept.
const LIMIT: usize = 120;

/// The text, or its beginning with `…`. For places that quote it.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The same, with the line breaks and control characters in it as escapes. For places that do not quote it.
pub fn printable(text: &str) -> String {
    shorten(text).chars().flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        for (text, kept) in [("", ""), ("é\n", "é\n"), ("é".repeat(120).as_str(), "é".repeat(120).as_str())]
        {
            assert_eq!(shorten(text), kept);
        }
        let long = "é".repeat(121);
        assert_eq!(shorten(&long), format!("{}…", "é".repeat(120)));
        assert_eq!(printable(&long), shorten(&long));
        assert_eq!(printable("a\nb\u{1b}"), "a\\nb\\u{1b}");
    }
}
