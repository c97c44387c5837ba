//! `xds-load run` against landbridge in this process while proxies stop reading.

mod served;

use served::{metric, serve};
use xds_load::{
    mesh::{Mesh, Spec, churn::Script, directory::Directories},
    report::Report,
    run::{
        self,
        scenario::{Pace, Phase, Scenario},
    },
};

/// Half of the proxies stop, those with the lowest numbers, of which witnesses are copies.
#[tokio::test]
async fn readers_are_held_against_witnesses_that_read() {
    // As `main` does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec { namespaces: 4, services: 20, endpoints: 4, clients: 50, ..Spec::default() };
    let mesh = Mesh::generate(spec).unwrap();
    let place = dir.path().join("mesh");
    Directories::new(&place).write(&mesh).unwrap();
    let server = serve(dir.path(), &mesh);
    let mut scenario = Scenario {
        server: server.to_string(),
        proxies: 50,
        threads: 2,
        stop_reading: 25,
        mesh: Some(place),
        phases: vec![
            Phase::Connect(Pace::default()),
            Phase::Churn(Script::Rate { per_second: 20.0, seconds: 1.0, replace: 0.5 }),
        ],
        ..Scenario::default()
    };
    scenario.verify.quiet = 0.5;
    let report = Report::new(&run::run(scenario).await.unwrap(), &[]);
    assert!(report.is_good(), "{report}");
    assert_eq!((metric(&report, "verify.compared"), metric(&report, "verify.excluded")), (25.0, 25.0));
    assert!(metric(&report, "verify.witnesses") > 0.0 && metric(&report, "verify.truth") > 20.0, "{report}");
}
