//! A mesh for a test, and what tests need to wait and to generate.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep};
use xds_tests::envoy;
use xds_tests::load::Sample;
use xds_tests::mesh::{Mesh, SERVICE, Tools, Workload};
use xds_tests::netns::means;

/// Runs `body` with the whole mesh up, `extra` workloads included. `name` is the test's full name.
pub fn mesh_test(name: &str, extra: Vec<Workload>, body: impl AsyncFnOnce(&mut Mesh) -> Result<()>) {
    prepared_test(name, extra, async |mesh| {
        mesh.start_control_planes().await?;
        mesh.start_workloads().await?;
        body(mesh).await
    });
}

/// Runs `body` with files and networks laid out and nothing started.
pub fn prepared_test(name: &str, extra: Vec<Workload>, body: impl AsyncFnOnce(&mut Mesh) -> Result<()>) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the project");
    if let Err(error) = envoy::find(repository) {
        return means::skip(name, &format!("{error:#}"));
    }
    means::lab_test(name, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let folder = repository.join("target/lab").join(name.replace("::", "-"));
            let tools = Tools::find(env!("CARGO_BIN_EXE_demo").into())?;
            let prefix = format!("lb{}", std::process::id());
            let mut mesh = Mesh::prepare(tools, &folder, &prefix, extra).await?;
            let outcome = body(&mut mesh).await;
            mesh.stop().await?;
            outcome.with_context(|| format!("logs are in {}", folder.join("logs").display()))
        })
    });
}

/// Waits until the condition holds, asking again every 50 ms.
pub async fn within(patience: Duration, what: &str, condition: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let last = condition().await;
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            last.with_context(|| what.to_owned())?;
            bail!("not within {patience:?}: {what}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Manifests of `services` HTTP services `many-0` ... in namespace `crowd`, with `endpoints` endpoints each.
pub fn many_services(services: usize, endpoints: usize) -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: crowd}\n".to_owned();
    for number in 0..services {
        let addresses: Vec<String> = (0..endpoints)
            .map(|endpoint| format!("10.1.{}.{}", 16 + number / 8, 1 + (number % 8) * 31 + endpoint))
            .collect();
        let vip = format!("10.98.{}.{}", number / 250, 1 + number % 250);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: many-{number}, namespace: crowd}}\n\
             spec: {{clusterIP: {vip}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n{}",
            endpoint_slice(&format!("many-{number}"), "1", &addresses)
        );
    }
    text
}

/// An EndpointSlice of a service in namespace `crowd`.
pub fn endpoint_slice(service: &str, suffix: &str, addresses: &[String]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-{suffix}, namespace: crowd, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n"
    );
    for address in addresses {
        let _ = writeln!(
            text,
            "- {{addresses: [{address}], conditions: {{ready: true}}, nodeName: east-node-1}}"
        );
    }
    text
}

/// Requests per second of a load.
pub const RATE: u32 = 100;
/// How long anything may take that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Whether a request was answered well by a pod of `cloud`.
pub fn answered_from(sample: &Sample, cloud: &str) -> bool {
    !sample.failed() && sample.by.starts_with(cloud)
}

/// Fails if a request failed, and says which.
pub fn none_failed(samples: &[Sample]) -> Result<()> {
    let failed: Vec<&Sample> = samples.iter().filter(|sample| sample.failed()).collect();
    ensure!(failed.is_empty(), "{} of {} failed, the first: {:?}", failed.len(), samples.len(), failed[0]);
    Ok(())
}

/// How many endpoints the client in east knows of the backend: its own cloud's pods, and the other's gateway.
pub async fn backend_members(mesh: &Mesh) -> Result<u64> {
    mesh.envoy("east", "client")?.members(&format!("outbound|80||{SERVICE}")).await
}
