//! Holds the direction of dependencies between modules: arrows point down only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each module, and the modules that it may name. What is not here may not be named.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("model", &["text"]),
    ("files", &[]),
    ("grpc", &[]),
    ("pem", &["text"]),
    ("workers", &[]),
    ("snapshot", &["model"]),
    ("registry", &["model", "files", "workers"]),
    ("index", &["model"]),
    ("view", &["model", "index"]),
    ("resource", &["model", "index", "view"]),
    ("authn", &["model", "files", "pem", "text"]),
    ("ca", &["model", "files", "pem", "workers", "authn", "grpc", "snapshot", "text"]),
    ("webhook", &["model", "registry", "workers"]),
    ("writers", &["model", "registry", "webhook"]),
    ("pipeline", &["model", "index", "view", "resource", "snapshot"]),
    ("gateways", &["model", "files", "registry", "index", "resource", "pipeline", "ca"]),
    ("xds", &["model", "snapshot", "authn", "grpc", "text"]),
    (
        "admin",
        &["model", "registry", "index", "view", "resource", "snapshot", "pipeline", "gateways", "xds", "ca"],
    ),
    ("cli", &["model", "files", "pem", "registry", "authn", "ca", "admin", "app"]),
    (
        "app",
        &[
            "model", "files", "grpc", "registry", "index", "snapshot", "pipeline", "gateways", "authn", "ca",
            "webhook", "writers", "xds", "admin",
        ],
    ),
    ("args", &["cli", "app"]),
];

/// Crates that only some modules may name.
const OWNERS: &[(&str, &[&str])] = &[
    ("kube::", &["registry", "status", "authn", "webhook"]),
    ("tonic::", &["grpc", "xds", "ca", "authn", "app"]),
    ("axum::", &["admin", "app"]),
    ("notify::", &["registry", "ca", "authn"]),
    ("clap::", &["args", "cli"]),
    ("anyhow::", &["args", "cli", "app"]),
];

#[test]
fn arrows_point_down() {
    let mut wrong = BTreeSet::new();
    let allowed: BTreeMap<_, _> = MAY_NAME.iter().copied().collect();
    for (module, file, text) in sources() {
        let Some(may) = allowed.get(module.as_str()) else {
            wrong.insert(format!("{}: module {module} has no place in MAY_NAME", file.display()));
            continue;
        };
        for named in names_after(&text, "crate::") {
            let known = allowed.contains_key(named.as_str());
            if known && named != module && !may.contains(&named.as_str()) {
                wrong.insert(format!("{}: {module} names {named}", file.display()));
            }
        }
        for (prefix, owners) in OWNERS {
            if text.contains(prefix) && !owners.contains(&module.as_str()) {
                wrong.insert(format!("{}: {module} names {prefix}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "against the direction of ARCHITECTURE.md:\n{}",
        Vec::from_iter(wrong).join("\n")
    );
}

/// Module, file and text (comments left out) of every source file.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&root).expect("below src").to_owned();
            let first =
                relative.components().next().expect("a file has a name").as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            let is_test = path.file_stem().is_some_and(|name| name == "tests")
                || relative
                    .components()
                    .any(|part| part.as_os_str() == "oracle" || part.as_os_str() == "tests");
            if !is_test && !matches!(module.as_str(), "lib" | "main") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                let code: Vec<_> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
                found.push((module, relative, code.join("\n")));
            }
        }
    }
    found
}

/// The identifiers that follow `prefix`, also those in braces directly after it.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && !c.is_whitespace() => {
                    names.insert(identifier(&group[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn groups_are_read() {
    let text = "use crate::{model::{a, b}, index::Index};\nuse crate::view::c;";
    let names: Vec<_> = names_after(text, "crate::").into_iter().collect();
    assert_eq!(names, ["index", "model", "view"]);
}
