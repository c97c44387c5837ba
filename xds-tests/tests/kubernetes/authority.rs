//! The authority of a Secret of a real API server.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::DeleteParams;
use landbridge::app;
use landbridge::app::clusters::Place;
use landbridge_proto::istio::v1::auth::IstioCertificateRequest;
use landbridge_proto::service::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use x509_parser::pem::Pem;
use xds_tests::kubernetes::{Cluster, Settings, cluster_test, secret_file};
use xds_tests::landbridge as binary;

use super::plane::until;
use super::serving::{is_ready, own_address, serve_config};
use super::world::{NAMESPACES, PATIENCE};

const HOUR: Duration = Duration::from_secs(3600);
const ACCOUNT: &str =
    "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: client, namespace: production}\n";

/// Makes a root in `folder`.
async fn root(folder: &Path) -> Result<()> {
    let line = ["ca", "root", "--out"].map(str::to_owned).into_iter();
    binary::command(&binary::find()?, line.chain([folder.display().to_string()])).await.map(drop)
}

/// An intermediate of the root as a Secret `cacerts`.
async fn cacerts(root: &Path, name: &str) -> Result<String> {
    let (out, manifest) = (root.join(name), root.join(format!("{name}.yaml")));
    let at = |path: &Path| path.display().to_string();
    let line = ["ca", "intermediate", "--root", &at(root), "--cluster", name, "--out", &at(&out)];
    let line = line.into_iter().map(str::to_owned).chain(["--secret-manifest".to_owned(), at(&manifest)]);
    binary::command(&binary::find()?, line).await?;
    Ok(std::fs::read_to_string(manifest)?)
}

/// Has a certificate signed as an agent does: leaf, chain, roots.
async fn issue(east: &Cluster, address: Ipv4Addr, root: &str) -> Result<Vec<String>> {
    let token = east.request_token("production", "client", &["istio-ca"], HOUR).await?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(root))
        .domain_name("istiod.istio-system.svc");
    // A connection of its own: its handshake shows that our own certificate is of this root, too.
    let endpoint = Endpoint::from_shared(format!("https://{address}:15012"))?.tls_config(tls)?;
    let mut client = IstioCertificateServiceClient::new(endpoint.connect().await?);
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
    let mut request = Request::new(IstioCertificateRequest { csr, validity_duration: 600, metadata: None });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    Ok(client.create_certificate(request).await?.into_inner().cert_chain)
}

/// Who signed the leaf, if every certificate is signed by the next.
fn signer(chain: &[String]) -> Result<String> {
    let pems: Vec<Pem> = chain
        .iter()
        .map(|text| Ok(Pem::iter_from_buffer(text.as_bytes()).next().context("a certificate")??))
        .collect::<Result<_>>()?;
    let certs = pems.iter().map(|pem| Ok(pem.parse_x509()?)).collect::<Result<Vec<_>>>()?;
    for pair in certs.windows(2) {
        pair[0].verify_signature(Some(pair[1].public_key()))?;
    }
    Ok(certs.first().context("a leaf")?.issuer().to_string())
}

async fn problems(address: Ipv4Addr) -> Result<String> {
    let sources: Vec<Value> =
        reqwest::get(format!("http://{address}:15014/debug/sourcez")).await?.json().await?;
    let east = sources.into_iter().find(|source| source["cluster"] == "east").context("east is there")?;
    Ok(east["problems"].to_string())
}

#[test]
fn the_authority_of_a_secret_changes_while_it_serves() {
    let name = "authority::the_authority_of_a_secret_changes_while_it_serves";
    cluster_test(name, async |binaries, folder| {
        let east = Cluster::start(binaries, Settings::new("east", folder.join("east"))).await?;
        east.apply(NAMESPACES).await?;
        east.apply(ACCOUNT).await?;
        let ca = folder.join("ca");
        let _ = std::fs::remove_dir_all(&ca);
        root(&ca).await?;
        let root_pem = std::fs::read_to_string(ca.join("root-cert.pem"))?;
        let (first, second) = (cacerts(&ca, "first").await?, cacerts(&ca, "second").await?);
        east.apply(&first).await?;

        let kubeconfig = folder.join("east.kubeconfig");
        secret_file(&kubeconfig, &east.kubeconfig(east.admin())?)?;
        let address = own_address()?;
        let clusters = [("east".into(), Place::Kubeconfig(kubeconfig))].into();
        let serving = tokio::spawn(app::serve(serve_config(address, &folder.join("state"), clusters)));
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(address).await {
            ensure!(!serving.is_finished(), "it ended: {:?}", serving.await);
            ensure!(Instant::now() < deadline, "not ready");
            sleep(Duration::from_millis(20)).await;
        }
        let old = issue(&east, address, &root_pem).await?;
        ensure!(signer(&old)?.contains("first intermediate"), "{}", signer(&old)?);

        east.apply(&second).await?;
        let now = async || signer(&issue(&east, address, &root_pem).await?);
        until("the second signs", async || Ok(now().await?.contains("second intermediate"))).await?;
        // What the first signed leads to the same root as before.
        let new = issue(&east, address, &root_pem).await?;
        ensure!(old.last() == new.last() && old.last().is_some_and(|last| *last == root_pem), "other roots");
        ensure!(signer(&old)?.contains("first intermediate"));

        // Garbage, a key of another, another root, and none: the old one goes on, and it is said where and why.
        let foreign = folder.join("foreign");
        let _ = std::fs::remove_dir_all(&foreign);
        root(&foreign).await?;
        let secrets = east.objects("v1", "Secret", Some("istio-system")).await?;
        let with = |change: &dyn Fn(&mut Value)| -> Result<String> {
            let mut object: Value = serde_saphyr::from_str(&second)?;
            change(&mut object["data"]);
            Ok(object.to_string())
        };
        let other_key = serde_saphyr::from_str::<Value>(&first)?["data"]["ca-key.pem"].clone();
        for (secret, words) in [
            (
                with(&|data| data["ca-key.pem"] = "aHVzaA==".into())?,
                ["data.ca-key.pem", "no private key found"],
            ),
            (with(&|data| data["ca-key.pem"] = other_key.clone())?, ["Secret/cacerts", "does not belong"]),
            (cacerts(&foreign, "foreign").await?, ["Secret/cacerts", "none of the new roots is trusted"]),
        ] {
            east.apply(&secret).await?;
            until(words[1], async || {
                let said = problems(address).await?;
                ensure!(!said.contains("hush"), "{said}");
                Ok(words.iter().all(|word| said.contains(word)) && said.contains("goes on"))
            })
            .await?;
            ensure!(now().await?.contains("second intermediate"), "{words:?}");
        }
        secrets.delete("cacerts", &DeleteParams::default()).await?;
        until("its absence is said", async || Ok(problems(address).await?.contains("is gone"))).await?;
        ensure!(now().await?.contains("second intermediate"));

        // As cert-manager writes it.
        let data = serde_saphyr::from_str::<Value>(&first)?["data"].clone();
        let tls = json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": "cacerts", "namespace": "istio-system" },
            "data": { "tls.crt": data["ca-cert.pem"], "tls.key": data["ca-key.pem"], "ca.crt": data["root-cert.pem"] } });
        east.apply(&tls.to_string()).await?;
        until("the first signs again", async || Ok(now().await?.contains("first intermediate"))).await?;
        until("nothing is wrong", async || Ok(problems(address).await? == "[]")).await?;
        // It made none of its own.
        ensure!(secrets.get_opt("istio-ca-secret").await?.is_none());
        serving.abort();
        Ok(())
    });
}
