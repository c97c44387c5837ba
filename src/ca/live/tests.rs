use super::*;
use crate::ca::testing::{Root, mk_intermediate, mk_root, write_cacerts};

struct Files {
    dir: tempfile::TempDir,
    root: Root,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap(), root: mk_root("root") };
        files.write("first", &[]);
        files
    }

    /// A new intermediate of the root, with the root and further ones in the bundle.
    fn write(&self, name: &str, more: &[&Root]) {
        let intermediate = mk_intermediate(&self.root, name, time::Duration::days(1));
        let roots: Vec<&Root> = std::iter::once(&self.root).chain(more.iter().copied()).collect();
        write_cacerts(self.dir.path(), &intermediate, &roots);
    }

    fn open(&self) -> (Live, watch::Receiver<Arc<Authority>>) {
        Live::open(Source::CaCerts(self.dir.path().to_owned())).unwrap()
    }
}

fn signer(receiver: &watch::Receiver<Arc<Authority>>) -> String {
    receiver.borrow().signer().subject.clone()
}

fn roots(receiver: &watch::Receiver<Arc<Authority>>) -> Vec<String> {
    receiver.borrow().roots().iter().map(|root| root.subject.clone()).collect()
}

#[test]
fn a_new_intermediate_is_taken_over_and_the_same_files_wake_nobody() {
    let files = Files::new();
    let (live, mut receiver) = files.open();
    assert!(!live.reload().unwrap());
    assert!(!receiver.has_changed().unwrap());
    files.write("second", &[]);
    assert!(live.reload().unwrap());
    receiver.mark_unchanged();
    assert_eq!(signer(&receiver), "O=mesh, CN=second");
    assert!(!live.reload().unwrap());
    assert!(!receiver.has_changed().unwrap());
}

#[test]
fn broken_files_change_nothing() {
    let files = Files::new();
    let (live, receiver) = files.open();
    let next = mk_intermediate(&files.root, "second", time::Duration::days(1));
    std::fs::write(files.dir.path().join("ca-cert.pem"), next.cert.to_pem()).unwrap();
    let error = live.reload().unwrap_err().to_string();
    assert!(error.contains("does not belong"), "{error}");
    assert_eq!(signer(&receiver), "O=mesh, CN=first");
    std::fs::remove_file(files.dir.path().join("root-cert.pem")).unwrap();
    assert!(live.reload().unwrap_err().to_string().contains("root-cert.pem missing"));
    assert_eq!(signer(&receiver), "O=mesh, CN=first");
}

#[test]
fn a_foreign_root_is_refused_with_both_fingerprints() {
    let files = Files::new();
    let (live, receiver) = files.open();
    let foreign = mk_root("foreign");
    let ca = mk_intermediate(&foreign, "foreign ca", time::Duration::days(1));
    write_cacerts(files.dir.path(), &ca, &[&foreign]);
    let error = live.reload().unwrap_err().to_string();
    for part in [files.root.cert.fingerprint(), foreign.cert.fingerprint(), "in use".into(), "new:".into()] {
        assert!(error.contains(&part), "{part} not in {error}");
    }
    assert_eq!(signer(&receiver), "O=mesh, CN=first");
}

#[test]
fn a_root_is_changed_in_two_steps() {
    let files = Files::new();
    let (live, receiver) = files.open();
    let next = mk_root("next");
    // Both are trusted, the old one signs.
    files.write("first", &[&next]);
    assert!(live.reload().unwrap());
    assert_eq!(roots(&receiver), ["O=mesh, CN=root", "O=mesh, CN=next"]);
    // The new one signs; the old one is taken out, which is what the operator says.
    let ca = mk_intermediate(&next, "second", time::Duration::days(1));
    write_cacerts(files.dir.path(), &ca, &[&next]);
    assert!(live.reload().unwrap());
    assert_eq!(roots(&receiver), ["O=mesh, CN=next"]);
    assert_eq!(signer(&receiver), "O=mesh, CN=second");
}

#[test]
fn when_roots_come_and_go_at_once_the_old_ones_stay_for_the_transition() {
    let files = Files::new();
    let (second, third) = (mk_root("second"), mk_root("third"));
    files.write("first", &[&second]);
    let (live, receiver) = files.open();
    let ca = mk_intermediate(&second, "ca", time::Duration::days(1));
    write_cacerts(files.dir.path(), &ca, &[&second, &third]);
    assert!(live.reload().unwrap());
    assert_eq!(roots(&receiver), ["O=mesh, CN=second", "O=mesh, CN=third", "O=mesh, CN=root"]);
    // The same files again: nothing is new, and now they say what is meant.
    assert!(live.reload().unwrap());
    assert_eq!(roots(&receiver), ["O=mesh, CN=second", "O=mesh, CN=third"]);
}

#[tokio::test]
async fn a_running_watch_takes_over_as_kubernetes_mounts_files() {
    let dir = tempfile::tempdir().unwrap();
    let root = mk_root("root");
    let mount = |name: &str| {
        let data = dir.path().join(format!("..{name}"));
        std::fs::create_dir(&data).unwrap();
        write_cacerts(&data, &mk_intermediate(&root, name, time::Duration::days(1)), &[&root]);
        std::os::unix::fs::symlink(&data, dir.path().join("..data_tmp")).unwrap();
        std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    mount("first");
    for name in ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
    }
    let (live, mut receiver) = Live::open(Source::CaCerts(dir.path().to_owned())).unwrap();
    let story = async {
        assert_eq!(signer(&receiver), "O=mesh, CN=first");
        tokio::task::yield_now().await;
        mount("second");
        // Well below the poll, so that it is the event that did it.
        tokio::time::timeout(POLL / 2, receiver.changed()).await.expect("no event").unwrap();
        assert_eq!(signer(&receiver), "O=mesh, CN=second");
    };
    tokio::select! {
        () = live.run(|_| ()) => unreachable!("the watch never ends"),
        () = story => {}
    }
}

#[test]
fn a_self_signed_root_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let choose = || Source::choose(Some(Path::new("/nonexistent/cacerts")), &state, "cluster.local");
    let fingerprints: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Live::open(choose()).unwrap().1.borrow().signer().fingerprint()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]), "{fingerprints:?}");
    assert!(!self_signed::is_exposed(&state));
    let (_, receiver) = Live::open(choose()).unwrap();
    assert!(receiver.borrow().intermediates().is_empty(), "a root is never presented");
    assert_eq!(receiver.borrow().roots().len(), 1);
}

#[test]
fn a_self_signed_root_near_its_end_is_renewed_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let load = |now| self_signed::load_or_create(dir.path(), "cluster.local", now);
    let now = OffsetDateTime::now_utc();
    let first = load(now).unwrap();
    let later = load(now + time::Duration::days(3300)).unwrap();
    assert_ne!(first.signer().der, later.signer().der);
    assert_eq!(first.signer().public_key_info, later.signer().public_key_info);
    assert!(succeed(&first, later).is_ok());
}

#[test]
fn half_a_cacerts_directory_is_an_error_and_no_reason_for_another_root() {
    let files = Files::new();
    std::fs::remove_file(files.dir.path().join("ca-key.pem")).unwrap();
    let state = tempfile::tempdir().unwrap();
    let source = Source::choose(Some(files.dir.path()), state.path(), "cluster.local");
    assert!(Live::open(source).unwrap_err().to_string().contains("ca-key.pem missing"));
}

fn given(files: &Files) -> Given {
    let read = |name: &str| zeroize::Zeroizing::new(std::fs::read(files.dir.path().join(name)).unwrap());
    let names = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"];
    let all = names.iter().map(|name| ((*name).to_owned(), read(name))).collect();
    Given::CaCerts(Material::new("east/istio-system/Secret/cacerts", all))
}

#[tokio::test]
async fn a_secret_is_taken_over_and_garbage_in_it_is_named_at_its_key() {
    let files = Files::new();
    let (sender, secret) = watch::channel(given(&files));
    let (live, mut receiver) = Live::open(Source::Secret(secret)).unwrap();
    assert_eq!(receiver.borrow().origin(), "east/istio-system/Secret/cacerts");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<Option<CaError>>();
    let story = async {
        files.write("second", &[]);
        sender.send_replace(given(&files));
        assert!(told.recv().await.unwrap().is_none());
        assert!(receiver.has_changed().unwrap());
        receiver.mark_unchanged();
        std::fs::write(files.dir.path().join("ca-key.pem"), "hush").unwrap();
        sender.send_replace(given(&files));
        let error = told.recv().await.unwrap().unwrap();
        let error = error.to_string();
        assert!(error.starts_with("east/istio-system/Secret/cacerts/ca-key.pem: no private key"), "{error}");
        assert!(!error.contains("hush") && !receiver.has_changed().unwrap());
        assert_eq!(signer(&receiver), "O=mesh, CN=second");
    };
    tokio::select! {
        () = live.run(move |error| drop(tell.send(error))) => unreachable!("the watch never ends"),
        () = story => {}
    }
}

#[test]
fn istiods_own_secret_is_its_own_root_and_is_renewed_with_its_key() {
    let (key, cert) = self_signed::make("cluster.local").unwrap();
    // istiod writes these three as well, two of them empty.
    let files =
        [("ca-key.pem", key.as_str()), ("ca-cert.pem", &cert), ("cert-chain.pem", ""), ("key.pem", "")];
    let all = files.map(|(name, text)| (name.to_owned(), zeroize::Zeroizing::new(text.as_bytes().to_vec())));
    let material = Material::new("east/istio-system/Secret/istio-ca-secret", all.into());
    let now = OffsetDateTime::now_utc();
    let authority = material.self_signed(now).unwrap();
    assert!(authority.intermediates().is_empty() && authority.roots().len() == 1);
    assert!(self_signed::renewed(&authority, now).unwrap().is_none());
    let next = self_signed::renewed(&authority, now + time::Duration::days(3300)).unwrap().unwrap();
    assert!(is_same_root(&next, authority.signer()) && next.not_after > authority.not_after());
    assert_eq!(next.subject, authority.signer().subject);
    // With an empty chain the layout of `cacerts` means the same.
    let mut all: std::collections::BTreeMap<_, _> =
        files.map(|(name, text)| (name.to_owned(), zeroize::Zeroizing::new(text.as_bytes().to_vec()))).into();
    all.insert("root-cert.pem".into(), zeroize::Zeroizing::new(cert.as_bytes().to_vec()));
    assert!(Material::new("x", all.clone()).authority(now).is_ok());
    all.remove("ca-cert.pem");
    assert!(
        Material::new("x", all).self_signed(now).unwrap_err().to_string().contains("ca-cert.pem missing")
    );
}
