//! Any input is survived, and any history ends where a fresh read begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    super::reader::{Look, Reader},
    *,
};

#[derive(Clone, Debug)]
enum Edit {
    /// A whole file, or only its first half.
    Write {
        file: usize,
        text: usize,
        cut: bool,
    },
    Remove(usize),
    Move(usize, usize),
    /// The root is elsewhere during the next look.
    Unmount,
    /// A look with the names of changed files, or without any, as when events are lost.
    Look {
        told: bool,
    },
}

const FILES: &[&str] =
    &["a.yaml", "b.yml", "c.json", "sub/d.yaml", "sub/deep/e.yaml", ".hidden.yaml", "f.txt"];

fn texts() -> Vec<String> {
    let mut texts = vec![String::new(), "# nothing\n".into(), "kind: [\n---\n".into()];
    for names in [&["a"][..], &["b"], &["a", "b"], &["c", "d", "e"], &["b", "c", "f", "g"]] {
        for v in ["1", "2"] {
            texts.push(names.iter().map(|name| namespace(name, v)).collect());
        }
    }
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: None, ports: [{{port: {port}}}]}}\n---\n"
        )
    };
    texts.extend([service("80"), service("81"), service("70000")]);
    texts.push(service("70000") + &namespace("a", "3"));
    texts.push(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n".repeat(2) + &namespace("b", "3"),
    );
    texts
}

fn edit() -> impl Strategy<Value = Edit> {
    let file = 0..FILES.len();
    prop_oneof![
        6 => (file.clone(), 0..texts().len(), prop::bool::weighted(0.2))
            .prop_map(|(file, text, cut)| Edit::Write { file, text, cut }),
        2 => file.clone().prop_map(Edit::Remove),
        1 => (file.clone(), file).prop_map(|(from, to)| Edit::Move(from, to)),
        1 => Just(Edit::Unmount),
        4 => any::<bool>().prop_map(|told| Edit::Look { told }),
    ]
}

/// A reader and the objects as its changes tell them.
struct Told {
    reader: Reader,
    status: SourceStatus,
    objects: BTreeMap<ObjectKey, Object>,
    /// The last look asked for another one at everything.
    whole: bool,
}

impl Told {
    fn new(root: &Path) -> Self {
        let mut source = FileSource::new("east".into(), root);
        source.timing.settle = Duration::from_millis(1);
        source.timing.empty_grace = Duration::ZERO;
        let status = SourceStatus::new("east".into());
        let reader = Reader::new(source, status.clone());
        Self { reader, status, objects: BTreeMap::new(), whole: false }
    }

    /// Looks, at the touched files alone where that is enough; whether nothing is open any more.
    fn look(&mut self, touched: &BTreeSet<std::path::PathBuf>) -> bool {
        let touched = touched.iter().cloned().chain(self.reader.settled()).collect();
        let quick = if self.whole { None } else { self.reader.look_at(&touched) };
        let look = quick.unwrap_or_else(|| self.reader.look(&touched, &BTreeSet::new()));
        self.take(look)
    }

    fn take(&mut self, look: Look) -> bool {
        self.reader.tell();
        for change in look.changes {
            match change {
                Change::Upsert(key, object) => {
                    let before = self.objects.insert(key.clone(), object.clone());
                    assert_ne!(before, Some(object), "{key} was sent twice");
                }
                Change::Remove(key) => assert!(self.objects.remove(&key).is_some(), "{key} was not there"),
                Change::Cluster(..) => {}
                Change::Forget(_) => panic!("sources do not forget"),
            }
        }
        self.whole = look.again.is_some();
        !self.whole && self.reader.settles().is_none()
    }

    fn settle(&mut self) {
        // As without an event, for nobody has named the last edits.
        let whole = self.reader.look(&BTreeSet::new(), &BTreeSet::new());
        self.take(whole);
        while !self.look(&BTreeSet::new()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn run(edits: &[Edit]) {
    let dir = tempfile::tempdir().unwrap();
    let (root, away, texts) = (dir.path().join("root"), dir.path().join("away"), texts());
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    let mut told = Told::new(&root);
    let mut touched = BTreeSet::new();
    let mut unmounted = false;
    for edit in edits {
        match edit {
            Edit::Write { file, text, cut } => {
                let text = &texts[*text];
                let text = if *cut { &text[..text.len() / 2] } else { text };
                fs::write(root.join(FILES[*file]), text).unwrap();
                touched.insert(root.join(FILES[*file]));
            }
            // The file may not be there: then nothing happens.
            Edit::Remove(file) => drop(fs::remove_file(root.join(FILES[*file]))),
            Edit::Move(from, to) => drop(fs::rename(root.join(FILES[*from]), root.join(FILES[*to]))),
            Edit::Unmount => unmounted = true,
            Edit::Look { told: with_names } => {
                let names = if *with_names { std::mem::take(&mut touched) } else { BTreeSet::new() };
                if std::mem::take(&mut unmounted) {
                    fs::rename(&root, &away).unwrap();
                    let before = told.objects.clone();
                    told.look(&names);
                    assert_eq!(told.objects, before, "a missing root changed something");
                    fs::rename(&away, &root).unwrap();
                } else {
                    told.look(&names);
                }
            }
        }
    }
    // What is broken in the end keeps a past that a fresh read cannot know.
    for file in FILES {
        let path = root.join(file);
        let broken = |bytes: Vec<u8>| {
            let parsed = parse(&bytes);
            parsed.opaque || !parsed.broken.is_empty()
        };
        if fs::read(&path).is_ok_and(broken) {
            fs::write(&path, namespace("mended", "1")).unwrap();
        }
    }
    told.settle();
    let mut fresh = Told::new(&root);
    fresh.settle();
    assert_eq!(told.objects, fresh.objects);
    let said = |told: &Told| {
        let report = told.status.report();
        (report.objects, report.not_read, report.problems)
    };
    assert_eq!(said(&told), said(&fresh));
}

fn any_object() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("kind"),
        Just("apiVersion"),
        Just("metadata"),
        Just("spec"),
        Just("DestinationRule"),
        Just("networking.istio.io/v1"),
        Just("ports"),
        Just("- "),
        Just(": "),
        Just("\n"),
        Just("\n  "),
        Just("---\n"),
        Just("&a "),
        Just("*a"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("'"),
        Just("|\n"),
        Just("-1"),
        Just("é"),
        Just("\t"),
        Just("!!binary "),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

const SEEDS: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, labels: {a: b}}\nspec:\n  \
    host: a\n  trafficPolicy:\n    loadBalancer: {simple: RANDOM, warmupDurationSecs: 30}\n    outlierDetection:\n      \
    interval: 10s\n  subsets:\n  - name: v1\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  \
    - port: 80\n    targetPort: web\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
    data:\n  mesh: |\n    trustDomain: a\n    localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}\n---\n\
    apiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1\n  kind: PeerAuthentication\n  \
    metadata: {name: p}\n  spec: {portLevelMtls: {8080: {mode: STRICT}}}\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 96 } else { 512 }))]

    #[test]
    fn any_history_ends_as_a_fresh_read(edits in prop::collection::vec(edit(), 0..24)) {
        run(&edits);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parse(&bytes);
    }

    #[test]
    fn any_text_is_survived(text in any_object()) {
        parse(text.as_bytes());
    }

    #[test]
    fn mutated_objects_are_survived(edits in prop::collection::vec((0..SEEDS.len(), any_object()), 1..4), keep in 0..60usize) {
        let mut bytes = SEEDS.as_bytes().to_vec();
        for (at, text) in edits {
            let at = at.min(bytes.len());
            let end = (at + keep).min(bytes.len());
            bytes.splice(at..end, text.bytes());
        }
        let parsed = parse(&bytes);
        let lines = bytes.iter().filter(|b| **b == b'\n').count() + 2;
        prop_assert!(parsed.notes.iter().all(|n| (1..=lines).contains(&n.line)), "{:?}", parsed.notes);
    }
}
