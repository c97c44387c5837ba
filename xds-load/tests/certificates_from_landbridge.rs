//! The certificate loads against landbridge's own server, in this process: tokens, client certificates, SDS and a rotation.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use clap::Parser;
use tokio::task::LocalSet;
use xds_load::{
    certificates::{Caller, Credentials, Pace, Pool, Requests, TokenKey, Watchers, check},
    h2::{Connection, Target, Tls, TlsFiles},
    mesh::{Mesh, Spec, directory::Directories},
};

fn landbridge(arguments: &[&str]) {
    let arguments = std::iter::once("landbridge").chain(arguments.iter().copied());
    landbridge::args::Args::try_parse_from(arguments).unwrap().run().unwrap();
}

fn intermediate(dir: &Path, out: &str) {
    let (root, out) = (dir.join("root"), dir.join(out));
    let [root, out] = [&root, &out].map(|path| path.to_str().unwrap());
    landbridge(&["ca", "intermediate", "--root", root, "--cluster", "cluster-0", "--out", out]);
}

/// Ports that are free now.
fn ports<const N: usize>() -> [SocketAddr; N] {
    let sockets = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

/// A server that ends with the process.
fn serve(dir: &Path, files: PathBuf) -> SocketAddr {
    let [grpc, secure, http, monitoring, https] = ports();
    let arguments = format!(
        "serve --cluster-id cluster-0 --files cluster-0={} --state-dir {dir}/state --ca-dir {dir}/ca --dev-token-issuer \
         --grpc-addr {grpc} --secure-grpc-addr {secure} --http-addr {http} --monitoring-addr {monitoring} --https-addr {https} --log-level warn",
        files.display(),
        dir = dir.display(),
    );
    std::thread::spawn(move || landbridge(&arguments.split_whitespace().collect::<Vec<_>>()));
    secure
}

const SERVER: &str = "istiod.istio-system.svc";

async fn connected(target: &Target) {
    for _ in 0..200 {
        if Connection::connect(target).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no server within 10 s");
}

fn requests(target: &Target, pace: Pace) -> Requests {
    Requests {
        target: target.clone(),
        connections: 4,
        new_connection: false,
        pace,
        lasting: Duration::from_millis(400),
        validity: 600,
        keep: 10_000,
    }
}

#[tokio::test]
async fn certificates_are_answered_delivered_and_rotated() {
    // As `main` does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    landbridge(&["ca", "root", "--out", root.to_str().unwrap()]);
    intermediate(dir.path(), "ca");
    let directories = Directories::new(dir.path().join("mesh"));
    directories.write(&Mesh::generate(Spec { services: 2, ..Spec::default() }).unwrap()).unwrap();

    let address = serve(dir.path(), directories.cluster(0));
    let ca = root.join("root-cert.pem");
    let tls = Tls::load(&TlsFiles { roots: Some(ca.clone()), identity: None }, SERVER).unwrap();
    let target = Target { address, authority: SERVER.into(), source: None, tls: Some(tls) };
    connected(&target).await;

    let trust = std::fs::read_to_string(&ca).unwrap();
    let pool = Rc::new(Pool::generate(8).unwrap());
    let key = dir.path().join("state/dev-issuer-key.pem");
    let key = TokenKey::read(&key, "landbridge-development-issuer", "istio-ca", "cluster.local").unwrap();
    let mut credentials = Credentials::minted(&key, 3, "shop", Some("cluster-0")).unwrap();

    // By token, as fast as answers come, and at a rate.
    for (pace, new_connection) in [(Pace::Closed, false), (Pace::Open(50.0), true)] {
        let load = Requests { new_connection, ..requests(&target, pace) };
        let answers = load.run(pool.clone(), &credentials).await;
        assert_eq!(answers.failed, Default::default());
        assert!(answers.kept.len() >= 10, "{}", answers.kept.len());
        if pace == Pace::Open(50.0) {
            assert_eq!(answers.kept.len(), 20);
        }
        let checked = check(&answers.kept, &pool, Some(&trust));
        assert_eq!((checked.answers, checked.wrong), (answers.kept.len(), Default::default()));
        let identities: std::collections::BTreeSet<_> = answers.kept.iter().map(|a| &a.identity).collect();
        assert_eq!(identities.len(), 3);
    }
    // By the certificates that they got.
    for caller in &mut credentials.0 {
        caller.obtain(&target, pool.get(0), (Some(&ca), SERVER)).await.unwrap();
        assert_eq!(caller.metadata, [("clusterid".to_owned(), "cluster-0".to_owned())]);
    }
    let answers = requests(&target, Pace::Closed).run(pool.clone(), &credentials).await;
    assert_eq!(answers.failed, Default::default());
    assert_eq!(check(&answers.kept, &pool, Some(&trust)).wrong, Default::default());

    // Nobody.
    let anonymous = Credentials::anonymous(Some("cluster-0"));
    let answers = requests(&target, Pace::Open(50.0)).run(pool.clone(), &anonymous).await;
    assert_eq!((answers.kept.len(), answers.failed.len()), (0, 1), "{:?}", answers.failed);

    secrets(dir.path(), &target, &key).await;
}

async fn secrets(dir: &Path, target: &Target, key: &TokenKey) {
    let credentials = Credentials::minted(key, 20, "shop", Some("cluster-0")).unwrap();
    let local = LocalSet::new();
    let patience = Duration::from_secs(20);
    let work = async {
        let watchers = Watchers::start(&local, target, &credentials, "cluster-0");
        let first = watchers.delivered(patience).await;
        let failed = watchers.failed();
        assert_eq!((first.delivered, first.wanted), (20, 20), "{failed:?}");
        assert_eq!((first.checked.answers, first.checked.wrong), (20, Default::default()));

        intermediate(dir, "next");
        let copy = async {
            for file in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem"] {
                std::fs::copy(dir.join("next").join(file), dir.join("ca").join(file))?;
            }
            std::io::Result::Ok(())
        };
        watchers.rotate(copy).await.unwrap();
        let rotated = watchers.delivered(patience).await;
        let failed = watchers.failed();
        assert_eq!((rotated.delivered, rotated.latencies.count), (20, 20), "{failed:?}");
        assert!(rotated.seconds > 0.0, "new ones come after the rotation");
        assert_eq!(rotated.checked.wrong, Default::default());
    };
    local.run_until(work).await;
    let foreign = Caller {
        identity: Some("spiffe://cluster.local/ns/shop/sa/other".into()),
        ..credentials.0[0].clone()
    };
    // Who claims to be somebody else than its token says is refused.
    let local = LocalSet::new();
    let work = async {
        let watchers = Watchers::start(&local, target, &Credentials(vec![foreign]), "cluster-0");
        let nothing = watchers.delivered(Duration::from_secs(5)).await;
        assert_eq!((nothing.delivered, watchers.failed().len()), (0, 1));
    };
    local.run_until(work).await;
}
