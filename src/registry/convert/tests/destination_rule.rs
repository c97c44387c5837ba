use std::time::Duration;

use super::*;
use crate::model::destination_rule::{
    ClientTlsMode, DestinationRule, HashKey, LbAlgorithm, OutlierDetection, PolicySettings, Warmup,
};

fn text(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: production}}\nspec: {spec}\n"
    )
}

#[track_caller]
fn rule(text: &str) -> (Arc<DestinationRule>, Vec<String>) {
    match object(text) {
        (_, Object::DestinationRule(rule), said) => (rule, said),
        other => panic!("{other:?}"),
    }
}

fn policy(policy: &str) -> String {
    text(&format!("{{host: a, trafficPolicy: {policy}}}"))
}

#[track_caller]
fn settings(text: &str) -> (PolicySettings, Vec<String>) {
    let (rule, said) = rule(&policy(text));
    (rule.policy.settings.clone(), said)
}

/// The rule of the walk-through, section 5, as people paste it.
#[test]
fn the_walk_throughs_rule() {
    let (rule, said) = rule(
        "apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata:
  name: payment-service
  namespace: production
spec:
  host: payment-service.production.svc.cluster.local
  trafficPolicy:
    connectionPool:
      tcp:
        maxConnections: 100
      http:
        h2UpgradePolicy: DEFAULT
        maxRequestsPerConnection: 10
    outlierDetection:
      consecutive5xxErrors: 3
      interval: 10s
      baseEjectionTime: 30s
      maxEjectionPercent: 50
    loadBalancer:
      simple: ROUND_ROBIN
      localityLbSetting:
        enabled: true
        failover:
        - from: us-east-1
          to: us-central1
        - from: us-central1
          to: us-east-1
        failoverPriority:
        - topology.kubernetes.io/region
        - topology.kubernetes.io/zone
      warmupDurationSecs: 30
",
    );
    assert_eq!(&*rule.host, "payment-service.production.svc.cluster.local");
    let policy = &rule.policy.settings;
    let pool = policy.connection_pool.as_ref().unwrap();
    assert_eq!(
        (pool.max_connections, pool.max_requests_per_connection, pool.h2_upgrade),
        (Some(100), Some(10), None)
    );
    let expected = OutlierDetection {
        consecutive_5xx: Some(3),
        interval: Some(Duration::from_secs(10)),
        base_ejection_time: Some(Duration::from_secs(30)),
        max_ejection_percent: Some(50),
        ..OutlierDetection::default()
    };
    assert_eq!(policy.outlier_detection, Some(expected));
    let balancer = policy.load_balancer.as_ref().unwrap();
    assert_eq!(balancer.algorithm, LbAlgorithm::RoundRobin);
    let locality = balancer.locality.as_ref().unwrap();
    let pair = |a: &str, b: &str| (Arc::from(a), Arc::from(b));
    assert_eq!(locality.failover, [pair("us-east-1", "us-central1"), pair("us-central1", "us-east-1")]);
    assert_eq!(locality.failover_priority.len(), 2);
    let warmup = Warmup { duration: Duration::from_secs(30), minimum_percent: 10.0, aggression: 1.0 };
    assert_eq!(balancer.warmup, Some(warmup));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert_said(&said, &["loadBalancer.warmupDurationSecs", "30 has no unit", "write 30s"]);
    assert_said(&said, &["failoverPriority", "topology.kubernetes.io/region", "both are applied", "refuses"]);
    assert_said(
        &said,
        &["outlierDetection.maxEjectionPercent", "50 %", "does not fail over completely", "write 100"],
    );
}

#[test]
fn failover_without_detection_does_nothing_in_strict_mode() {
    let text = policy("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}");
    let strict = Settings { failover_by_default: false, ..Settings::default() };
    let Outcome::Object(_, _, said) = read_with(&strict, &text) else { panic!("refused") };
    assert_eq!(said.len(), 1);
    assert_said(
        &[say(&said[0])],
        &["localityLbSetting", "does nothing without outlierDetection", "add outlierDetection"],
    );
    assert!(rule(&text).1.is_empty());
}

#[test]
fn distribute_excludes_failover() {
    let (settings, said) = settings(
        "{loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {a/*: 80, b/*: 30}}], \
         failover: [{from: a, to: b}], failoverPriority: [topology.istio.io/network]}}}",
    );
    let locality = settings.load_balancer.unwrap().locality.unwrap();
    assert!(locality.failover.is_empty() && locality.failover_priority.is_empty());
    assert_eq!(locality.distribute[0].to.values().copied().collect::<Vec<_>>(), [80, 30]);
    assert_said(&said, &["distribute[0].to", "80 + 30 = 110, not 100", "shares of 110"]);
    assert_said(&said, &["localityLbSetting.distribute", "failoverPriority, which are ignored"]);
}

#[test]
fn hosts_are_completed_as_istio_does() {
    for (host, full, warned) in [
        ("backend", "backend.production.svc.cluster.local", false),
        ("backend.production.svc.cluster.local", "backend.production.svc.cluster.local", false),
        ("'*.example.com'", "*.example.com", false),
        ("example.com", "example.com", false),
        ("backend.production", "backend.production", true),
        ("backend.other.svc", "backend.other.svc", true),
    ] {
        let (rule, said) = rule(&text(&format!("{{host: {host}}}")));
        assert_eq!((&*rule.host, said.len()), (full, usize::from(warned)), "{host}");
    }
    let (_, said) = rule(&text("{host: backend.other.svc}"));
    assert_said(&said, &["spec.host", "write backend.other.svc.cluster.local"]);
}

#[test]
fn durations_as_go_reads_them() {
    for (written, millis) in
        [("1h", 3_600_000), ("1m30s", 90_000), ("1.5s", 1500), ("250ms", 250), ("'10'", 10_000), ("2", 2000)]
    {
        let (settings, said) = settings(&format!("{{outlierDetection: {{interval: {written}}}}}"));
        let interval = settings.outlier_detection.unwrap().interval.unwrap();
        assert_eq!(interval, Duration::from_millis(millis), "{written}");
        assert_eq!(said.len(), usize::from(matches!(written, "'10'" | "2")), "{written}");
    }
    for wrong in ["fast", "10 s", "-5s", "1d", "''", "s", "1e300", "999999999999h", "0s", "-1", ".s", "1us"] {
        let said = refused(&policy(&format!("{{outlierDetection: {{interval: {wrong}}}}}")));
        assert!(said.starts_with("spec.trafficPolicy.outlierDetection.interval:"), "{said}");
    }
}

#[test]
fn algorithms() {
    for (balancer, expected) in [
        ("{simple: LEAST_CONN}", LbAlgorithm::LeastRequest),
        ("{simple: RANDOM}", LbAlgorithm::Random),
        ("{simple: PASSTHROUGH}", LbAlgorithm::Passthrough),
        ("{}", LbAlgorithm::Unspecified),
    ] {
        let (settings, _) = settings(&format!("{{loadBalancer: {balancer}}}"));
        assert_eq!(settings.load_balancer.unwrap().algorithm, expected);
    }
    let (settings, _) = settings(
        "{loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}, maglev: {}}, warmupDurationSecs: 1s}}",
    );
    let balancer = settings.load_balancer.unwrap();
    let LbAlgorithm::Hash(hash) = balancer.algorithm else { panic!("no hash") };
    let cookie = HashKey::Cookie { name: "user".into(), path: "".into(), ttl: Some(Duration::ZERO) };
    assert_eq!((hash.key, hash.maglev, balancer.warmup), (cookie, Some(65_537), None));
}

#[test]
fn ports_subsets_and_tls() {
    let (rule, said) = rule(&text(
        "{host: a, exportTo: ['*'], workloadSelector: {matchLabels: {app: x}}, trafficPolicy: {tls: {mode: SIMPLE, sni: s, \
         caCertificates: /ca.pem}, portLevelSettings: [{port: {number: 7000}, connectionPool: {tcp: {maxConnections: 7, \
         connectTimeout: 2s}}}, {port: {number: 7000}}], tunnel: {targetHost: x}}, subsets: [{name: v1, labels: {version: 1.0}}, \
         {name: v1}]}",
    ));
    let pool = rule.policy.ports[&7000].connection_pool.as_ref().unwrap();
    assert_eq!((pool.max_connections, pool.connect_timeout), (Some(7), Some(Duration::from_secs(2))));
    let tls = rule.policy.settings.tls.as_ref().unwrap();
    assert_eq!(
        (tls.mode, tls.files.as_ref().unwrap().ca.as_deref()),
        (ClientTlsMode::Simple, Some("/ca.pem"))
    );
    assert_eq!(rule.subsets.len(), 1);
    for words in [
        &["portLevelSettings[1]", "port 7000 has an entry already"],
        &["spec.subsets[1].name", "v1 is there already"],
        &["spec.trafficPolicy.tunnel", "not supported yet"],
        &["spec.workloadSelector", "not supported yet"],
    ] {
        assert_said(&said, words);
    }
}

#[test]
fn rules_that_are_refused() {
    assert_refused(&[
        (&text("{}"), &["spec.host: is missing"]),
        (&text("{host: a*b}"), &["spec.host", "no host name"]),
        (
            &policy("{loadBalancer: {simple: ROUND_ROBBIN}}"),
            &["loadBalancer.simple", "did you mean ROUND_ROBIN?"],
        ),
        (&policy("{loadBalancer: {simple: qwertz}}"), &["write one of", "LEAST_REQUEST"]),
        (
            &policy("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}"),
            &["exclude each other"],
        ),
        (&policy("{loadBalancer: {consistentHash: {}}}"), &["does not say what to hash"]),
        (
            &policy("{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 8}}}}"),
            &["no prime"],
        ),
        (&policy("{loadBalancer: {warmup: {}}}"), &["warmup.duration: is missing"]),
        (&policy("{loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}}"), &["minimumPercent"]),
        (
            &policy("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 0}}]}}}"),
            &["weight 0 of b"],
        ),
        (&policy("{outlierDetection: {maxEjectionPercent: 101}}"), &["maxEjectionPercent: 101"]),
        (
            &policy("{outlierDetection: {consecutiveLocalOriginFailures: 1}}"),
            &["splitExternalLocalOriginErrors"],
        ),
        (&policy("{connectionPool: {tcp: {maxConnections: -1}}}"), &["maxConnections: -1 is out of range"]),
        (&policy("{connectionPool: {http: {h2UpgradePolicy: UPGRADED}}}"), &["did you mean UPGRADE?"]),
        (&policy("{tls: {mode: MUTUAL}}"), &["tls.mode", "ISTIO_MUTUAL"]),
        (&policy("{portLevelSettings: [{}]}"), &["portLevelSettings[0].port.number: is missing"]),
        (&policy("{outlierDetection: 3}"), &["spec.trafficPolicy.outlierDetection"]),
    ]);
}
