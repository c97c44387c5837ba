//! YAML (and JSON, which is YAML) from people's files: documents one by one, within bounds, with line numbers.

use serde_json::Value;
use serde_saphyr::{Error, Options};

/// Deepest nesting of a document. Kubernetes objects stay below 20.
const MAX_DEPTH: usize = 64;
/// Values in one document, aliases replayed: an alias bomb ends here.
const MAX_NODES: usize = 1_000_000;

/// Values that aliases may expand to in one document. People repeat a few labels with them.
pub const MAX_REPLAYED: usize = 100_000;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Line of the file on which `text` starts, from 1.
    pub line: usize,
    /// Its text, with the `---` line that opens it.
    pub text: &'a str,
}

/// A document that is no YAML.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line within the document's text, from 1.
    pub line: usize,
    /// Why. Never quotes values: the document may be a Secret.
    pub reason: String,
}

/// Splits a file at its document markers. YAML forbids a line that starts with `---` or `...` inside any scalar, so
/// the text alone decides, and a broken document cannot hide the ones after it. Documents without content are left
/// out.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    let mut push = |from: usize, to: usize, line: usize| {
        let text = &text[from..to];
        if text.lines().any(has_content) {
            found.push(Document { line, text });
        }
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") {
            push(start, offset, start_line);
            (start, start_line) = (offset, index + 1);
        } else if is_marker(line, "...") {
            push(start, offset, start_line);
            (start, start_line) = (offset + line.len(), index + 2);
        }
        offset += line.len();
    }
    push(start, offset, start_line);
    found
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = if is_marker(line, "---") { &line[3..] } else { line };
    let line = line.trim();
    !(line.is_empty() || line.starts_with('#') || line.starts_with('%'))
}

/// Parses one document. Nulls are dropped: to Kubernetes, null and absent are the same.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    parse_within(text, MAX_REPLAYED)
}

/// As above, with aliases that expand to at most `replayed` values: many documents share a file's bound.
pub fn parse_within(text: &str, replayed: usize) -> Result<Value, SyntaxError> {
    let mut value: Value =
        serde_saphyr::from_str_with_options(text, options(replayed)).map_err(|error| syntax_error(&error))?;
    drop_nulls(&mut value);
    Ok(value)
}

fn options(replayed: usize) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_events: 2 * MAX_NODES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: replayed },
        // Label values such as 007 or 1_000 are text to everybody but YAML.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        // Who writes a node's name as n means n. Fields that are booleans know YAML 1.1's spellings themselves.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn syntax_error(error: &Error) -> SyntaxError {
    let error = error.without_snippet();
    let line = error.location().map_or(1, |at| usize::try_from(at.line()).unwrap_or(1)).max(1);
    let reason = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is there twice"),
        Error::UnknownAnchor { .. } => "it refers to an anchor that does not exist".into(),
        Error::Eof { .. } => "it ends in the middle".into(),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "its aliases expand to too much".into(),
        Error::Budget { .. } => format!("it is too large: at most {MAX_DEPTH} levels and {MAX_NODES} values"),
        // The scanner's own words ("mapping values are not allowed in this context") name no values.
        Error::ExternalMessage { msg, .. } => msg.lines().next().unwrap_or_default().to_owned(),
        _ => "it is no valid YAML".into(),
    };
    SyntaxError { line, reason }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The line (from 1) within a document's text that holds the field at `path` (`spec.ports[1].port`), or that of its
/// closest parent that can be found. Reads block style by columns; in flow style and JSON it takes the first line
/// with the key after its parent.
pub fn line_of(text: &str, path: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let Some(first) = lines.iter().position(|line| has_content(line)) else { return 1 };
    let mut at = Cursor { line: first, children: first, column: 0 };
    for step in steps(path) {
        let next = match step {
            Step::Key(key) => find_key(&lines, at, &key),
            Step::Index(index) => find_item(&lines, at, index),
        };
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    at.line + 1
}

/// What was found last.
#[derive(Clone, Copy)]
struct Cursor {
    /// Its own line, from 0.
    line: usize,
    /// The line on which its children begin.
    children: usize,
    /// The leftmost column that its children may have.
    column: usize,
}

enum Step {
    Key(String),
    Index(usize),
}

/// `a.b[2].c` cut into steps.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        if let Some(key) = pieces.next().filter(|key| !key.is_empty()) {
            steps.push(Step::Key(key.to_owned()));
        }
        for index in pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok()) {
            steps.push(Step::Index(index));
        }
    }
    steps
}

fn column(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The key of a line and its column, seen through the dashes of list items.
fn key_of(line: &str) -> (usize, &str) {
    let mut rest = line.trim_start_matches(' ');
    while let Some(inner) = rest.strip_prefix("- ") {
        rest = inner.trim_start_matches(' ');
    }
    let column = line.len() - rest.len();
    let key = rest.split(':').next().unwrap_or_default().trim_matches(['"', '\'', ' ']);
    (column, key)
}

fn find_key(lines: &[&str], at: Cursor, key: &str) -> Option<Cursor> {
    let mut siblings = None;
    for (index, line) in lines.iter().enumerate().skip(at.children).filter(|(_, line)| has_content(line)) {
        let (column, found) = key_of(line);
        if column < at.column {
            break;
        }
        if column == *siblings.get_or_insert(column) && found == key && line.contains(':') {
            return Some(Cursor { line: index, children: index + 1, column: column + 1 });
        }
    }
    let quoted = format!("\"{key}\"");
    let line = (at.children..lines.len()).find(|&i| lines[i].contains(&quoted))?;
    Some(Cursor { line, children: line, column: 0 })
}

fn find_item(lines: &[&str], at: Cursor, index: usize) -> Option<Cursor> {
    let is_item = |line: &str| line.trim_start().starts_with("- ") || line.trim() == "-";
    let first = (at.children..lines.len()).find(|&i| has_content(lines[i]))?;
    // A list may stand at its key's own column.
    let level = column(lines[first]);
    if !is_item(lines[first]) || level + 1 < at.column {
        return None;
    }
    let line = (first..lines.len())
        .take_while(|&i| !has_content(lines[i]) || column(lines[i]) >= level)
        .filter(|&i| is_item(lines[i]) && column(lines[i]) == level)
        .nth(index)?;
    Some(Cursor { line, children: line, column: level + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_lines() {
        let text = "# note\n---\na: 1\n---\n# empty\n--- # third\nb: |\n  ---\nc: 2\n...\n---\n%x\n---\nd: 1";
        let found: Vec<_> = documents(text).iter().map(|d| (d.line, d.text.trim_end())).collect();
        let expected = [(2, "---\na: 1"), (6, "--- # third\nb: |\n  ---\nc: 2"), (13, "---\nd: 1")];
        assert_eq!(found, expected);
        assert_eq!(documents("\u{feff}a: 1\r\n---\r\nb: 2\r\n").len(), 2);
        assert_eq!(documents("").len() + documents("---\n---\n").len() + documents("{}").len(), 1);
    }

    #[test]
    fn json_with_tabs_and_numbers_that_are_text() {
        let value = parse("{\n\t\"a\": [1, null, {\"b\": null}],\n\t\"u\": \"\\u00e9\"\n}").unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, null, {}], "u": "é"}));
        let value = parse("a: 007\nb: 1_000\nf: n\ng: on\nc: 0x1F\n6000: d\ne: ~\n").unwrap();
        assert_eq!(
            value,
            serde_json::json!({"a": "007", "b": "1_000", "f": "n", "g": "on", "c": 31, "6000": "d"})
        );
        let value = parse("a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\n").unwrap();
        assert_eq!(value["c"], serde_json::json!({"k": 1, "l": 2}));
    }

    #[test]
    fn syntax_errors_name_the_line_and_no_values() {
        for (text, line) in [
            ("a: 1\nb: [s3cret, 2\n", 2),
            ("a: 1\nb: 2\n c: s3cret\n", 3),
            ("a: 1\na: s3cret\n", 2),
            ("a: *s3cret\n", 1),
            ("a: \"s3cret\n", 1),
            ("a: s3cret: b\n", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.line >= line && error.line <= line + 1, "{text:?}: {error:?}");
            assert!(!error.reason.contains("s3cret") && error.reason.len() > 10, "{error:?}");
        }
    }

    #[test]
    fn syntax_errors_say_what_is_wrong() {
        for (text, reason) in [
            ("a: 1\n c: 2\n", "mapping values are not allowed in this context"),
            ("a: [\n", "unclosed bracket '['"),
            ("a: \"x\n", "unclosed quote"),
            ("a: 1\na: 2\n", "the key \"a\" is there twice"),
            ("a: *x\n", "it refers to an anchor that does not exist"),
        ] {
            assert_eq!(parse(text).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let start = std::time::Instant::now();
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let prior = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{prior}]\n"));
        }
        for text in
            [bomb, "[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "a:\n".repeat(3)]
        {
            assert!(parse(&text).is_err());
        }
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }

    #[test]
    fn fields_are_found_by_path() {
        let text = "---\n# note\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - name: x\n    port: 1\n  \
                    - name: y\n    nested:\n      port: 3\n    port: 2\n  list:\n    - - 1\nstatus: {a: {b: 1}}\n";
        for (path, line) in [
            ("", 3),
            ("spec", 6),
            ("spec.ports", 7),
            ("spec.ports[0].port", 9),
            ("spec.ports[1]", 10),
            ("spec.ports[1].name", 10),
            ("spec.ports[1].port", 13),
            ("spec.ports[1].missing", 10),
            ("spec.ports[7].port", 7),
            ("spec.name", 6),
            ("metadata.name", 5),
            ("nothing", 3),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        let json = "{\n  \"a\": {\n    \"b\": [\n      {\"c\": 1}\n    ]\n  }\n}";
        assert_eq!(line_of(json, "a.b"), 3);
    }
}
