use std::collections::BTreeSet;

use clap::CommandFactory;
use serde_json::Value;

use super::*;

/// As the course has it.
const CLUSTER1: &str = r#"
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata:
  name: istio-cluster1
  namespace: istio-system
spec:
  profile: default
  values:
    global:
      meshID: company-mesh
      multiCluster:
        clusterName: cluster1
      network: network1
  meshConfig:
    accessLogFile: /dev/stdout
    enableTracing: true
    defaultConfig:
      proxyMetadata:
        ISTIO_META_DNS_CAPTURE: "true"
        ISTIO_META_DNS_AUTO_ALLOCATE: "true"
  components:
    pilot:
      k8s:
        env:
        - name: PILOT_REMOTE_CLUSTER_TIMEOUT
          value: 15s
        - name: PILOT_SKIP_VALIDATE_TRUST_DOMAIN
          value: "true"
        - name: TOKEN_ISSUER
          valueFrom: {configMapKeyRef: {name: issuer, key: url}}
        resources:
          requests: {cpu: 1000m, memory: 1Gi}
        replicaCount: 3
    ingressGateways:
    - name: istio-ingressgateway
      enabled: true
    - name: istio-eastwestgateway
      label:
        istio: eastwestgateway
        app: istio-eastwestgateway
        topology.istio.io/network: network1
      enabled: true
      k8s:
        env:
        - name: ISTIO_META_ROUTER_MODE
          value: sni-dnat
        - name: ISTIO_META_REQUESTED_NETWORK_VIEW
          value: network1
        hpaSpec:
          minReplicas: 2
          maxReplicas: 4
          metrics:
          - type: Resource
            resource: {name: cpu, targetAverageUtilization: 60}
        serviceAnnotations:
          service.beta.kubernetes.io/aws-load-balancer-type: nlb
        service:
          type: LoadBalancer
          ports:
          - {name: status-port, port: 15021, targetPort: 15021}
          - {name: tls, port: 15443, targetPort: 15443}
          - {name: tls-istiod, port: 15012, targetPort: 15012}
          - {name: tls-webhook, port: 15017, targetPort: 15017}
"#;

fn said(left: &[Left]) -> String {
    left.iter().map(|l| format!("{}: {}\n", l.path, l.reason)).collect()
}

fn operator(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n{spec}")
}

#[test]
fn the_file_of_the_walk_through() {
    let converted = convert(CLUSTER1).unwrap();
    let expected = r#""global":
  "meshID": "company-mesh"
  "multiCluster":
    "clusterName": "cluster1"
  "network": "network1"
"meshConfig":
  "accessLogFile": "/dev/stdout"
  "defaultConfig":
    "proxyMetadata":
      "ISTIO_META_DNS_AUTO_ALLOCATE": "true"
      "ISTIO_META_DNS_CAPTURE": "true"
  "enableTracing": true
"pilot":
  "autoscaleEnabled": false
  "env":
    "PILOT_REMOTE_CLUSTER_TIMEOUT": "15s"
  "envVarFrom":
    - "name": "TOKEN_ISSUER"
      "valueFrom":
        "configMapKeyRef":
          "key": "url"
          "name": "issuer"
  "replicaCount": 3
  "resources":
    "requests":
      "cpu": "1000m"
      "memory": "1Gi"
"#;
    let expected: Value = serde_saphyr::from_str(expected).unwrap();
    assert_eq!(converted.control_plane, expected, "{}", to_yaml(&converted.control_plane));

    let expected = r#"
autoscaling: {minReplicas: 2, maxReplicas: 4, targetCPUUtilizationPercentage: 60}
global: {meshID: company-mesh, multiCluster: {clusterName: cluster1}}
labels: {app: istio-eastwestgateway, istio: eastwestgateway}
name: istio-eastwestgateway
networkGateway: network1
service:
  type: LoadBalancer
  annotations: {service.beta.kubernetes.io/aws-load-balancer-type: nlb}
  ports:
  - {name: status-port, port: 15021, targetPort: 15021}
  - {name: tls, port: 15443, targetPort: 15443}
  - {name: tls-istiod, port: 15012, targetPort: 15012}
  - {name: tls-webhook, port: 15017, targetPort: 15017}
"#;
    let expected: Value = serde_saphyr::from_str(expected).unwrap();
    let gateway = &converted.gateways["istio-eastwestgateway"];
    assert_eq!(*gateway, expected, "{}", to_yaml(gateway));
    assert_eq!(converted.gateways.len(), 1);

    let said = said(&converted.left);
    for line in [
        "spec.profile: profiles are Istio's",
        "spec.components.pilot.k8s.env[1] (PILOT_SKIP_VALIDATE_TRUST_DOMAIN): landbridge does not read it",
        "spec.components.ingressGateways[0]: is no east-west gateway",
        "spec.components.ingressGateways[1].k8s.env[0] (ISTIO_META_ROUTER_MODE): nothing",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    assert_eq!(converted.left.len(), 4, "{said}");
    assert!(
        converted.notes.iter().any(|note| note.starts_with("meshConfig.enableTracing: ")),
        "{:?}",
        converted.notes
    );
}

/// Whatever is in a file is in the values or is named; a property over every leaf.
#[test]
fn nothing_is_dropped_silently() {
    let text = operator(
        "hub: docker.io/istio
tag: 1.30.0
unknown: {a: {b: 1}, c: [2]}
values:
  global:
    hub: docker.io/istio
    istioNamespace: istio-system
    logging: {level: 'default:info'}
    proxy: {clusterDomain: mesh.example, privileged: false}
    'dotted.key': 1
  pilot:
    autoscaleMin: '2'
    traceSampling: 1.0
    env: {PILOT_ENABLE_STATUS: true, TOKEN_AUDIENCES: istio-ca}
    cpu: {targetAverageUtilization: high}
  sidecarInjectorWebhook: {rewriteAppHTTPProbe: true}
components:
  pilot:
    enabled: false
    k8s:
      overlays: [{kind: Deployment}]
      strategy: {rollingUpdate: {maxSurge: 100%}, type: RollingUpdate}
      hpaSpec: {maxReplicas: 7, metrics: [{type: Pods}]}
  cni: {enabled: true}
  egressGateways: [{name: out}]",
    );
    let Converted { control_plane, left, .. } = convert(&text).unwrap();
    let expected: Value = serde_saphyr::from_str(
        "global: {logging: {level: 'default:info'}, proxy: {clusterDomain: mesh.example}}
pilot:
  autoscaleMin: 2
  autoscaleMax: 7
  cpu: {}
  env: {TOKEN_AUDIENCES: istio-ca}
  rollingMaxSurge: 100%",
    )
    .unwrap();
    assert_eq!(control_plane, expected, "{}", to_yaml(&control_plane));
    let paths: Vec<&str> = left.iter().map(|l| l.path.as_str()).collect();
    let expected = [
        "spec.components.cni",
        "spec.components.egressGateways",
        "spec.values.global[\"dotted.key\"]",
        "spec.values.global.hub",
        "spec.values.global.proxy.privileged",
        "spec.values.pilot.cpu.targetAverageUtilization",
        "spec.values.pilot.env.PILOT_ENABLE_STATUS",
        "spec.values.pilot.traceSampling",
        "spec.values.sidecarInjectorWebhook",
        "spec.hub",
        "spec.tag",
        "spec.unknown.a.b",
        "spec.unknown.c",
        "spec.components.pilot.k8s.hpaSpec.metrics[0]",
        "spec.components.pilot.k8s.strategy.type",
        "spec.components.pilot.k8s.overlays",
        "spec.components.pilot.enabled",
    ];
    assert_eq!(paths, expected, "{}", said(&left));
    assert!(left.iter().all(|l| l.reason.len() > 10), "{}", said(&left));
}

#[test]
fn components_are_stronger_than_values_and_a_primary_makes_a_remote() {
    let text = operator(
        "values:
  global: {remotePilotAddress: 192.0.2.9}
  pilot: {autoscaleMin: 1, resources: {requests: {cpu: 100m, memory: 1Gi}}, env: {TOKEN_AUDIENCES: a}}
components:
  pilot:
    k8s:
      hpaSpec: {minReplicas: 3}
      resources: {requests: {cpu: 2}}
      env: [{name: TOKEN_AUDIENCES, value: b}, {value: c}, {name: TOKEN_ISSUER}]",
    );
    let Converted { control_plane, left, .. } = convert(&text).unwrap();
    assert_eq!(control_plane["pilot"]["autoscaleMin"], 3);
    assert_eq!(control_plane["pilot"]["env"]["TOKEN_AUDIENCES"], "b");
    assert_eq!(control_plane["pilot"]["resources"]["requests"], json!({ "cpu": 2, "memory": "1Gi" }));
    assert_eq!(control_plane["istiodRemote"]["enabled"], true);
    assert_eq!(left.len(), 2, "{}", said(&left));
}

#[test]
fn hostile_files_are_refused_or_named() {
    for (text, reason) in [
        ("", "no IstioOperator"),
        ("kind: Service\napiVersion: v1\n", "no IstioOperator"),
        ("kind: IstioOperator\n", "apiVersion is null"),
        ("kind: IstioOperator\napiVersion: install.istio.io/v1\n", "v1alpha1"),
        ("{", "line 1"),
        ("a: 1\n---\nkind: [\n", "line 3"),
        ("kind: IstioOperator\napiVersion: install.istio.io/v1alpha1\nspec: 7\n", "spec is no object"),
        (&format!("{CLUSTER1}---{CLUSTER1}"), "2 IstioOperators"),
        (&format!("kind: {}", "[".repeat(100_000)), "line"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
            "line 6",
        ),
    ] {
        let error = convert(text).map(drop).expect_err(text);
        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
    // Of the wrong type everywhere: nothing is taken, everything is named.
    let text = operator("values: [1]\nmeshConfig: no\ncomponents: {pilot: 3, ingressGateways: {a: 1}}");
    let Converted { control_plane, left, gateways, .. } = convert(&text).unwrap();
    assert_eq!((control_plane, gateways.len(), left.len()), (json!({}), 0, 4), "{}", said(&left));
    let text = operator(
        "components: {ingressGateways: [1, {}, {name: a, enabled: false}, {name: b, label: {topology.istio.io/network: n}, k8s: 7}, {name: b}]}",
    );
    let Converted { gateways, left, .. } = convert(&text).unwrap();
    assert_eq!(gateways["b"]["networkGateway"], "n");
    assert_eq!((gateways.len(), left.len()), (1, 5), "{}", said(&left));
    // What is said to a terminal has no control characters.
    let text = operator(
        "values: {\"a\\e[31m\\nb\": 1}\ncomponents: {pilot: {k8s: {env: [{name: \"x\\e[2J\", value: 1}]}}}",
    );
    let said = said(&convert(&text).unwrap().left);
    assert!(said.contains("u{1b}") && !said.contains('\u{1b}'), "{said:?}");
}

#[derive(clap::Parser)]
struct Serve {
    #[command(flatten)]
    _args: crate::cli::serve::ServeArgs,
}

#[derive(clap::Parser)]
struct Bootstrap {
    #[command(flatten)]
    _args: crate::cli::bootstrap::BootstrapArgs,
}

/// A chart sets a variable, or lets people set it, or its reason not to is here; and every one is read.
#[test]
fn charts_and_commands_agree_on_the_environment() {
    // Places are what the chart is about; other ports would need other probes.
    let of_the_chart = [
        "LANDBRIDGE_DEV_TOKEN_ISSUER",
        "LANDBRIDGE_FILES",
        "LANDBRIDGE_GRPC_ADDR",
        "LANDBRIDGE_HTTPS_ADDR",
        "LANDBRIDGE_HTTP_ADDR",
        "LANDBRIDGE_KUBE",
        "LANDBRIDGE_KUBECONFIG",
        "LANDBRIDGE_MONITORING_ADDR",
        "LANDBRIDGE_SECURE_GRPC_ADDR",
    ];
    agree(
        Serve::command(),
        include_str!("../../../deploy/charts/landbridge/values.schema.json"),
        "/properties/pilot/properties/env/properties",
        include_str!("../../../deploy/charts/landbridge/templates/deployment.yaml"),
        &of_the_chart,
    );
    let of_the_chart = [
        "ISTIO_META_INTERCEPTION_MODE",
        "LANDBRIDGE_BOOTSTRAP_OUT",
        "LANDBRIDGE_CERT_FILE",
        "LANDBRIDGE_FORWARD",
        "LANDBRIDGE_KEY_FILE",
        "LANDBRIDGE_PLAINTEXT",
        "LANDBRIDGE_STATUS_PORT",
    ];
    agree(
        Bootstrap::command(),
        include_str!("../../../deploy/charts/eastwest-gateway/values.schema.json"),
        "/properties/env/properties",
        include_str!("../../../deploy/charts/eastwest-gateway/templates/deployment.yaml"),
        &of_the_chart,
    );
}

fn agree(command: clap::Command, schema: &str, names: &str, template: &str, not_offered: &[&str]) {
    let read: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    let schema: Value = serde_json::from_str(schema).unwrap();
    let offered: Vec<&str> =
        schema.pointer(names).unwrap().as_object().unwrap().keys().map(String::as_str).collect();
    let is_set = |name: &str| template.lines().any(|line| line.trim() == format!("- name: {name}"));
    for name in &read {
        let ways = [offered.contains(&name.as_str()), is_set(name), not_offered.contains(&name.as_str())];
        assert_eq!(
            ways.iter().filter(|way| **way).count(),
            1,
            "{name}: add it to values.schema.json, or to the chart's Deployment, or to the list here (now: {ways:?})"
        );
    }
    for name in offered.iter().chain(not_offered).filter(|name| **name != "RUST_BACKTRACE") {
        assert!(read.contains(*name), "nothing reads {name}");
    }
}
