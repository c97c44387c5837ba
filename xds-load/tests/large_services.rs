//! `xds-load run` against landbridge in this process: a service that is large enough for its endpoints to come one by one.

mod served;

use served::{metric, serve};
use xds_load::{
    mesh::{Large, Mesh, Spec, churn::Script, directory::Directories},
    report::Report,
    run::{
        self,
        scenario::{Pace, Phase, Scenario},
    },
};

/// One pod of a large service sends one endpoint. What a proxy has of collections it has to fetch again after a reconnect.
#[tokio::test]
async fn endpoints_of_large_services_come_one_by_one() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec {
        clusters: 2,
        networks: 2,
        namespaces: 1,
        services: 4,
        endpoints: 4,
        large: Large { services: 1, endpoints: 1_000 },
        clients: 50,
        ..Spec::default()
    };
    let mesh = Mesh::generate(spec).unwrap();
    let place = dir.path().join("mesh");
    Directories::new(&place).write(&mesh).unwrap();
    let server = serve(dir.path(), &mesh);
    let mut scenario = Scenario {
        server: server.to_string(),
        proxies: 20,
        mesh: Some(place),
        phases: vec![
            Phase::Connect(Pace::default()),
            Phase::Churn(Script::Rate { per_second: 20.0, seconds: 2.0, replace: 0.0 }),
            Phase::Reconnect(Pace { rate: 0.0, in_flight: 0 }),
            Phase::Reconnect(Pace { rate: 0.0, in_flight: 0 }),
            Phase::Churn(Script::Rate { per_second: 20.0, seconds: 1.0, replace: 0.5 }),
            Phase::Disconnect,
        ],
        ..Scenario::default()
    };
    scenario.verify.quiet = 0.5;
    let report = Report::new(&run::run(scenario).await.unwrap(), &[]);
    assert!(report.is_good(), "{report}");
    assert!(metric(&report, "verify.truth") > 0.0, "{report}");
    assert_eq!(metric(&report, "changes.made"), 60.0);
    // Of the first two seconds. As a whole the assignment has more than 100 kB.
    let each = metric(&report, "phase.churn.received") / 40.0 / 20.0;
    assert!(each < 1_000.0, "{each} bytes for each change and proxy");
}
