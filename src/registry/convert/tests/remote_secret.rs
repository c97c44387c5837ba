use super::*;
use crate::model::remote_secret::RemoteSecret;

const HEAD: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: west, namespace: istio-system, \
    creationTimestamp: '2026-08-01T00:00:10Z', labels: {istio/multiCluster: 'true'}}\n";

fn secret(text: &str) -> Arc<RemoteSecret> {
    match object(&format!("{HEAD}{text}")) {
        (_, Object::RemoteSecret(secret), _) => secret,
        other => panic!("{other:?}"),
    }
}

#[test]
fn remote_secrets_name_clusters_in_both_forms_and_show_nothing() {
    let read = secret("data: {west: aHVzaA==}\nstringData: {north: hush}");
    assert_eq!(read.created, 1_785_542_410);
    let configs: Vec<_> = read.kubeconfigs.iter().map(|(id, c)| (id.to_string(), c.expose())).collect();
    assert_eq!(configs, [("north".to_owned(), &b"hush"[..]), ("west".to_owned(), b"hush")]);
    let shown = format!("{read:?}");
    assert!(shown.contains("Kubeconfig(4 bytes)") && !shown.contains("hush"), "{shown}");
    assert!(secret("").kubeconfigs.is_empty());
}

#[test]
fn other_secrets_are_nothing_and_garbage_is_told_without_being_quoted() {
    let other =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: istio-system}\ndata: {a: aHVzaA==}";
    assert_eq!(read(other), Outcome::NotRead("v1/Secret".into()));
    match read(&HEAD.replace("istio-system", "default")) {
        Outcome::Skipped(_, warnings) => assert!(say(&warnings[0]).contains("make it in istio-system")),
        other => panic!("{other:?}"),
    }
    for (text, words) in [
        ("data: hush", ["data: is no map", "kubeconfig"]),
        ("data: {west: {token: hush}}", ["data.west: is no text", "kubeconfig"]),
        ("data: {west: hush!}", ["data.west: is not base64", "stringData"]),
    ] {
        let said = refused(&format!("{HEAD}{text}"));
        assert!(words.iter().all(|word| said.contains(word)) && !said.contains("hush"), "{said}");
    }
}
