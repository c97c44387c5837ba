use super::{super::parse::MAX_BYTES, *};
use crate::registry::Severity;

#[test]
fn a_broken_document_hurts_only_itself() {
    let text = namespace("a", "1") + "a: [\n---\n" + &namespace("b", "1") + "just words\n---\nkind: Pod\n";
    let parsed = parse(text.as_bytes());
    assert_eq!(parsed.objects.keys().map(|k| &*k.name).collect::<Vec<_>>(), ["a", "b"]);
    assert!(parsed.opaque);
    let lines: Vec<_> = parsed.notes.iter().map(|n| n.line).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines == [7, 15, 17], "{:#?}", parsed.notes);
}

#[test]
fn items_of_lists_have_lines() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n\
        - apiVersion: v1\n  kind: Service\n  metadata:\n    name: s\n  spec:\n    clusterIP: None\n    ports:\n    \
        - port: 0\n- apiVersion: apps/v1\n  kind: Deployment\n";
    let parsed = parse(text.as_bytes());
    assert_eq!(parsed.objects.len(), 1);
    assert_eq!(parsed.broken.len(), 1);
    assert_eq!(parsed.notes[0].line, 14);
    assert_eq!(parsed.not_read, BTreeMap::from([("apps/v1/Deployment".to_owned(), 1)]));
}

#[test]
fn the_same_object_twice_in_a_file() {
    let parsed = parse((namespace("a", "1") + &namespace("a", "1") + &namespace("a", "2")).as_bytes());
    assert_eq!((parsed.objects.len(), parsed.notes.len(), parsed.notes[0].line), (1, 1, 13));
    assert!(parsed.notes[0].finding.reason.contains("on line 1 already"));
}

#[test]
fn nothing_of_a_secret_is_said() {
    for text in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: s3cret}\n",
        "apiVersion: v1\ndata:\n  key: s3cret\n  s3cret: [\nkind: Secret\n",
        "apiVersion: v1\nkind: Secret\nstringData:\n  key: \"s3cret\nmetadata: {name: s}\n",
        "apiVersion: v1\nkind: Secret\nstringData:\n  key: s3cret: x\n",
        "apiVersion: v1\nkind: Secret\nstringData: {key: *s3cret}\n",
        "apiVersion: v1\nkind: Secret\ndata: !!binary s3cret\n",
    ] {
        assert!(!format!("{:?}", parse(text.as_bytes())).contains("s3cret"), "{text}");
    }
}

#[test]
fn bounds() {
    let huge = vec![b'#'; usize::try_from(MAX_BYTES).unwrap() + 1];
    assert!(parse(&huge).notes[0].finding.reason.contains("16 MiB"));
    let many = "a: 1\n---\n".repeat(MAX_DOCUMENTS + 5);
    let parsed = parse(many.as_bytes());
    assert!(parsed.opaque);
    let last = parsed.notes.last().unwrap();
    assert_eq!((last.severity, last.line), (Severity::Error, 2 * MAX_DOCUMENTS));
    let parsed = parse(b"a: 1\n\xff\n");
    assert!(parsed.notes[0].finding.reason.contains("line 2"));
}
