//! Aligned tables for terminals.

use std::fmt;

/// Never narrower than this: a last column of single words helps nobody.
const MIN_LAST_COLUMN: usize = 24;

/// Rows under a header. The last column may be long text: it is broken at words if there is a width to keep.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    width: Option<usize>,
}

impl Table {
    /// A table for standard output, as wide as the terminal if it is one.
    pub fn new(header: &[&str]) -> Self {
        let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into());
        Self { header: header.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new(), width }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| {
            if cell.is_empty() { "-".to_owned() } else { cell.replace(['\n', '\r', '\t'], " ") }
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = self.header.len().checked_sub(1) else { return Ok(()) };
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> = (0..last)
            .map(|i| lines().filter_map(|line| line.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
            .collect();
        let indent: usize = widths.iter().map(|w| w + GAP.len()).sum();
        let room = self.width.map(|width| width.saturating_sub(indent).max(MIN_LAST_COLUMN));
        for line in lines() {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "{cell:width$}{GAP}")?;
            }
            let text = line.get(last).map(String::as_str).unwrap_or_default();
            for (i, part) in broken(text, room).into_iter().enumerate() {
                let indent = if i == 0 { 0 } else { indent };
                writeln!(f, "{:indent$}{part}", "")?;
            }
        }
        Ok(())
    }
}

const GAP: &str = "   ";

/// Text in lines of at most `room` characters, except for words that are longer.
fn broken(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room.filter(|room| text.chars().count() > *room) else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a last line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Text of at most `limit` characters, with `…` where it was cut.
pub fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit.saturating_sub(1)) {
        Some((at, c)) if at + c.len_utf8() < text.len() => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

/// `59s`, `5m`, `3h`, `9d`: as kubectl shows ages.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: Option<usize>) -> Table {
        let mut table = Table { width, ..Table::new(&["NAME", "STATE", "WHY"]) };
        table.row(["web-1.production".to_owned(), "OK".to_owned(), String::new()]);
        table.row([
            "ä".to_owned(),
            "NACK".to_owned(),
            "the quick brown fox\njumps over the lazy dog".to_owned(),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let text = table(None).to_string();
        assert_eq!(
            text,
            "NAME               STATE   WHY\n\
             web-1.production   OK      -\n\
             ä                  NACK    the quick brown fox jumps over the lazy dog\n"
        );
    }

    #[test]
    fn a_long_last_column_is_broken_at_words_below_itself() {
        let text = table(Some(53)).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[3], format!("{:27}over the lazy dog", ""));
        assert!(lines.iter().all(|l| l.chars().count() <= 53), "{text}");
    }

    #[test]
    fn cuts_are_marked() {
        assert_eq!(
            (shorten("abcdef", 4), shorten("abcd", 4), shorten("äöüä", 3)),
            ("abc…".into(), "abcd".into(), "äö…".into())
        );
    }
}
