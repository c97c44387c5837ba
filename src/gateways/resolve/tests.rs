//! The task, with a pipeline's tables and name servers that a test commands.

use super::*;
use crate::{
    index::Options,
    model::{
        Change, Kind, Object, ObjectKey,
        kubernetes::{Meta, Service, ServicePort, ServiceType},
        mcs::Mcs,
        port::{TargetPort, Transport},
    },
    pipeline::State,
};

const HOST: &str = "gateway.example.com";

/// A cluster whose gateway has a host name.
fn state() -> State {
    let options = Options {
        config_cluster: "east".into(),
        failover_by_default: true,
        domain: "cluster.local".into(),
        mcs: Mcs::default(),
    };
    let mut state = State::new(options);
    let labels = [("topology.istio.io/network".into(), "net-west".into())].into();
    let service = Service {
        meta: Meta { namespace: "istio-system".into(), name: "gateway".into(), labels, ..Meta::default() },
        kind: ServiceType::LoadBalancer,
        ports: vec![ServicePort {
            name: "tls".into(),
            number: 15443,
            transport: Transport::Tcp,
            app_protocol: None,
            target: TargetPort::Number(15443),
            node_port: 0,
        }],
        external_addresses: vec![HOST.into()],
        ..Service::default()
    };
    let key = ObjectKey {
        cluster: "west".into(),
        kind: Kind::Service,
        namespace: "istio-system".into(),
        name: "gateway".into(),
    };
    state.apply(vec![Change::Upsert(key, Object::Service(Arc::new(service)))], Instant::now());
    state
}

struct World {
    answer: Arc<Mutex<Answer>>,
    inspector: Inspector,
    unresolved: Unresolved,
    notices: Notices,
    tasks: tokio::task::JoinSet<()>,
}

/// Everything as in the process; the pipeline only takes in what names mean.
fn begin(dir: &Path, answer: Answer) -> World {
    let answer = Arc::new(Mutex::new(answer));
    let (inspector, mut inspections) = Inspector::new();
    let (unresolved, notices) = (Unresolved::default(), Notices::default());
    let (told, mut heard) = watch::channel(Arc::default());
    let mut tasks = tokio::task::JoinSet::new();
    let answers = answer.clone();
    let resolver = Resolver {
        lookup: Arc::new(move |host| {
            assert_eq!(&*host, HOST);
            let answer = answers.lock().clone();
            async move { answer }.boxed()
        }),
        inspector: inspector.clone(),
        notices: notices.clone(),
        own: "east".into(),
        state_dir: dir.to_owned(),
        told,
        unresolved: unresolved.clone(),
    };
    tasks.spawn(resolver.run());
    tasks.spawn(async move {
        let mut state = state();
        loop {
            tokio::select! {
                Some(inspection) = inspections.recv() => inspection(&state),
                Ok(()) = heard.changed() => {
                    let addresses = heard.borrow_and_update().clone();
                    state.set_gateway_addresses(addresses, Instant::now());
                }
                else => return,
            }
        }
    });
    World { answer, inspector, unresolved, notices, tasks }
}

async fn gateways(world: &World) -> Vec<String> {
    let gateways = |state: &State| -> Vec<String> {
        state.index.networks().iter().map(|gateway| gateway.address.to_string()).collect()
    };
    world.inspector.ask(gateways).await.expect("the pipeline answers")
}

/// Waits until the gateways are at these addresses.
async fn become_gateways(world: &World, addresses: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while gateways(world).await != addresses {
        assert!(Instant::now() < deadline, "{:?}", gateways(world).await);
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until so many problems are named, and gives them.
async fn problems(world: &World, count: usize) -> Vec<Problem> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.notices.all().len() != count {
        assert!(Instant::now() < deadline, "{:?}", world.notices.all());
        tokio::time::sleep(POLL).await;
    }
    world.notices.all()
}

#[tokio::test]
async fn a_name_becomes_all_its_addresses_and_keeps_them_over_failures_and_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let both = vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let mut world = begin(dir.path(), Ok((both, Duration::from_secs(60))));
    assert_eq!(gateways(&world).await, [HOST]);
    world.unresolved.settled(&world.inspector).await;
    assert_eq!(gateways(&world).await, ["192.0.2.1", "192.0.2.2"]);
    assert!(world.unresolved.why(HOST).is_none() && world.notices.all().is_empty());
    let deadline = Instant::now() + Duration::from_secs(60);
    while read(&dir.path().join(FILE)).is_empty() {
        assert!(Instant::now() < deadline, "it is remembered");
        tokio::time::sleep(POLL).await;
    }
    world.tasks.shutdown().await;

    // DNS is away when the process begins again.
    let world = begin(dir.path(), Err("no such name".into()));
    world.unresolved.settled(&world.inspector).await;
    become_gateways(&world, &["192.0.2.1", "192.0.2.2"]).await;
    let text = problems(&world, 1).await[0].to_string();
    for part in [HOST, "no such name", "stay in use", "west"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // It is asked for again.
    *world.answer.lock() = Ok((vec![[192, 0, 2, 9].into()], Duration::from_secs(60)));
    become_gateways(&world, &["192.0.2.9"]).await;
    problems(&world, 0).await;
}

#[tokio::test]
async fn a_name_that_never_resolved_is_an_error_and_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join(FILE), "{").expect("it is written");
    let world = begin(dir.path(), Err("no such name".into()));
    world.unresolved.settled(&world.inspector).await;
    assert_eq!(gateways(&world).await, [HOST]);
    assert_eq!(world.unresolved.why(HOST).as_deref(), Some("no such name"));
    let [problem] = &problems(&world, 1).await[..] else { panic!("one problem") };
    assert_eq!((problem.severity, &*problem.field), (Severity::Error, "gateway of network net-west"));
}
