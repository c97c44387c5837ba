//! `xds-load run` against landbridge in this process: both protocols, a generated mesh that changes, a run that has to fail, and
//! proxies whose first attempts are refused.

mod served;

use std::net::SocketAddr;

use served::{metric, serve};
use tokio::net::{TcpListener, TcpStream};
use xds_load::{
    client::proxy::Protocol,
    mesh::{Mesh, Spec, churn::Script, directory::Directories},
    report::Report,
    run::{
        self,
        scenario::{Pace, Phase, Scenario},
    },
};

fn spec() -> Spec {
    Spec {
        clusters: 2,
        networks: 2,
        namespaces: 4,
        services: 20,
        endpoints: 4,
        clients: 50,
        scopes: 1,
        private: 0.5,
        rules: 0.5,
        ..Spec::default()
    }
}

#[tokio::test]
async fn both_protocols_are_right_and_a_wrong_server_is_found_out() {
    // As `main` does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let mesh = Mesh::generate(spec()).unwrap();
    let place = dir.path().join("mesh");
    Directories::new(&place).write(&mesh).unwrap();
    let server = serve(dir.path(), &mesh);

    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let mut scenario = Scenario {
            server: server.to_string(),
            protocol,
            proxies: 50,
            threads: 2,
            streams_per_connection: 5,
            mesh: Some(place.clone()),
            phases: vec![
                Phase::Connect(Pace::default()),
                Phase::Churn(Script::Rate { per_second: 20.0, seconds: 2.0, replace: 0.5 }),
                Phase::Reconnect(Pace { rate: 0.0, in_flight: 0 }),
                Phase::Disconnect,
            ],
            ..Scenario::default()
        };
        scenario.verify.quiet = 0.5;
        // The files are as the churn of the run before left them.
        Directories::new(&place).write(&mesh).unwrap();
        let report = Report::new(&run::run(scenario).await.unwrap(), &[]);
        assert!(report.is_good(), "{report}");
        assert_eq!(metric(&report, "verify.compared"), 50.0);
        assert_eq!(metric(&report, "connect.configured.count") - metric(&report, "verify.witnesses"), 50.0);
        assert!(metric(&report, "verify.truth") > 20.0, "{report}");
        assert!(metric(&report, "change.eds.count") > 100.0, "{report}");
        assert_eq!(metric(&report, "changes.made"), 40.0);
        assert_eq!(metric(&report, "reconnect.configured.count"), 50.0);
        let again = metric(&report, "phase.reconnect.resources");
        match protocol {
            Protocol::Delta => assert_eq!(again, 0.0, "what a Delta proxy has is not sent again"),
            Protocol::Sotw => assert!(again > 500.0, "{again}"),
        }
    }

    first_attempts_are_refused(server).await;

    // Another mesh is changed than the one that the server reads: no change comes, and what the server says is not so.
    let other = dir.path().join("other");
    Directories::new(&other).write(&Mesh::generate(Spec { endpoints: 5, ..spec() }).unwrap()).unwrap();
    let mut scenario = Scenario {
        server: server.to_string(),
        proxies: 10,
        mesh: Some(other),
        phases: vec![
            Phase::Connect(Pace::default()),
            Phase::Churn(Script::Rate { per_second: 50.0, seconds: 0.2, replace: 0.0 }),
            Phase::Disconnect,
        ],
        ..Scenario::default()
    };
    scenario.verify.quiet = 0.3;
    let report = Report::new(&run::run(scenario).await.unwrap(), &["changes.missing>0".parse().unwrap()]);
    assert!(!report.is_good());
    assert_eq!(report.broken.len(), 1, "{report}");
    assert!(metric(&report, "verify.untrue") > 0.0 && metric(&report, "verify.stale") > 0.0, "{report}");
}

/// Ends the first `refuses` connections at once, as a server that takes only so many at a time, and hands the others on.
async fn refusing(server: SocketAddr, mut refuses: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            if refuses > 0 {
                refuses -= 1;
                continue;
            }
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

/// A proxy that is refused at first still connects for the first time.
async fn first_attempts_are_refused(server: SocketAddr) {
    let mut scenario = Scenario {
        server: refusing(server, 5).await.to_string(),
        proxies: 5,
        phases: vec![Phase::Connect(Pace::default()), Phase::Reconnect(Pace::default()), Phase::Disconnect],
        ..Scenario::default()
    };
    scenario.verify.witnesses = 0;
    let report = Report::new(&run::run(scenario).await.unwrap(), &[]);
    assert!(report.is_good(), "{report}");
    assert_eq!(metric(&report, "phase.connect.lost"), 5.0, "{report}");
    assert_eq!(metric(&report, "connect.configured.count"), 5.0, "{report}");
    assert_eq!(metric(&report, "reconnect.configured.count"), 5.0, "{report}");
}
