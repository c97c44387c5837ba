//! Workload certificates: a PEM request answered with a PEM chain, and a key with its chain made for SDS, both in CPU time;
//! and how long it takes until 10,000 streams have new ones.
//! The floors are the bare signatures of the same library on the same bytes; what is above them is ours.

mod cpu_time;

use std::{hint::black_box, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair, UnparsedPublicKey,
    },
};
use cpu_time::CpuTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use landbridge::{
    ca::{
        authority::Authority,
        cert::Cert,
        issue::{self, Issuer, Role, Template},
        key::{KeyType, PrivateKey},
        secret::CERTIFICATE,
        service::answer,
        signers::Signers,
        svid::{Svid, SvidStore},
    },
    model::identity::Spiffe,
};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// So many keys and identities in turn, so that no branch or cache line knows the next one.
const WORKLOADS: usize = 64;

fn request(c: &mut Criterion<CpuTime>) {
    let requests: Vec<(Spiffe, String)> = identities().map(|id| (id, certificate_request())).collect();
    let mut group = c.benchmark_group("svid_request");
    group.throughput(Throughput::Elements(1));
    for (name, key_type) in [("ecdsa", KeyType::EcdsaP256), ("rsa2048", KeyType::Rsa2048)] {
        let authority = authority(key_type);
        let mut next = requests.iter().cycle();
        group.bench_function(format!("landbridge/{name}"), |b| {
            b.iter(|| {
                let (identity, pem) = next.next().expect("a cycle");
                answer(&authority, identity, pem, DAY).expect("a good request")
            });
        });
    }
    let parts: Vec<Signed> = (0..WORKLOADS).map(|_| Signed::new()).collect();
    let mut next = parts.iter().cycle();
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    group.bench_function("floor_verify_and_sign/ecdsa", |b| {
        b.iter(|| {
            let signed = next.next().expect("a cycle");
            signed.verify();
            ecdsa.sign(&SystemRandom::new(), &signed.message).expect("signed")
        });
    });
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    group.bench_function("floor_verify_and_sign/rsa2048", |b| {
        b.iter(|| {
            let signed = next.next().expect("a cycle");
            signed.verify();
            let mut signature = [0; 256];
            rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &signed.message, &mut signature)
                .expect("signed");
            signature
        });
    });
    group.finish();
}

fn sds(c: &mut Criterion<CpuTime>) {
    let identities: Vec<Spiffe> = identities().collect();
    let authority = Arc::new(authority(KeyType::EcdsaP256));
    let mut group = c.benchmark_group("svid_sds");
    group.throughput(Throughput::Elements(1));
    let mut next = identities.iter().cycle();
    group.bench_function("landbridge", |b| {
        b.iter(|| {
            let identity = next.next().expect("a cycle");
            Svid::issue(identity, &authority, DAY).expect("issued")
        });
    });
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let message = [7; 400];
    group.bench_function("floor_generate_and_sign", |b| {
        b.iter(|| {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
            (key, signer.sign(&SystemRandom::new(), &message).expect("signed"))
        });
    });
    group.finish();
}

/// 10,000 streams have their certificates, and the intermediate is replaced: until each has been woken with its new one.
/// Wall time of all threads together, and beside it the signatures alone on all cores.
fn rotation(c: &mut Criterion) {
    const IDENTITIES: usize = 10_000;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("svid_rotation");
    group.sample_size(10).throughput(Throughput::Elements(IDENTITIES as u64));
    let authorities: Vec<_> = (0..2).map(|_| Arc::new(authority(KeyType::EcdsaP256))).collect();
    let (sender, receiver) = watch::channel(authorities[0].clone());
    let store = Arc::new(SvidStore::new(receiver, DAY, Signers::start()));
    let renewing = runtime.spawn({
        let store = store.clone();
        async move { store.run().await }
    });
    let (woken, mut wakes) = mpsc::unbounded_channel();
    for n in 0..IDENTITIES {
        let name = format!("workload-{n}");
        let identity = Spiffe::new("cluster.local", "production", &name).expect("a valid identity");
        let mut secret = store.secret(&identity, CERTIFICATE, None).expect("a known name");
        let woken = woken.clone();
        runtime.spawn(async move {
            while secret.current().is_some() && secret.changed().await && woken.send(()).is_ok() {}
        });
    }
    let mut next = authorities.iter().cycle();
    next.next();
    group.bench_function("landbridge", |b| {
        b.iter(|| {
            sender.send_replace(next.next().expect("a cycle").clone());
            runtime.block_on(async {
                for _ in 0..IDENTITIES {
                    wakes.recv().await.expect("a renewed certificate");
                }
            });
        });
    });
    renewing.abort();
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    group.bench_function("floor_generate_and_sign", |b| {
        b.iter(|| {
            std::thread::scope(|scope| {
                for _ in 0..cores {
                    scope.spawn(|| {
                        for _ in 0..IDENTITIES / cores {
                            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
                            let signature = signer.sign(&SystemRandom::new(), &[7; 400]).expect("signed");
                            black_box((key, signature));
                        }
                    });
                }
            });
        });
    });
    group.finish();
}

/// What a request's signature consists of: the floor verifies it and signs as many bytes.
struct Signed {
    public_key: Vec<u8>,
    message: [u8; 400],
    signature: Vec<u8>,
}

impl Signed {
    fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        let message = [3; 400];
        let signature = key.sign(&SystemRandom::new(), &message).expect("signed").as_ref().to_vec();
        Self { public_key: key.public_key().as_ref().to_vec(), message, signature }
    }

    fn verify(&self) {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key)
            .verify(&self.message, &self.signature)
            .expect("a good signature");
    }
}

fn identities() -> impl Iterator<Item = Spiffe> {
    (0..WORKLOADS).map(|n| {
        Spiffe::new("cluster.local", "production", &format!("workload-{n}")).expect("a valid identity")
    })
}

/// What Istio's agent sends: its identity as the only name.
fn certificate_request() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    let uri = "spiffe://cluster.local/ns/production/sa/workload".try_into().expect("ASCII");
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.serialize_request(&key).and_then(|request| request.pem()).expect("a request")
}

/// A root, and an intermediate with a key of this type.
fn authority(key_type: KeyType) -> Authority {
    let now = OffsetDateTime::now_utc();
    let make = |subject: &[u8], key: &PrivateKey, issuer: Issuer<'_>| {
        let template = Template {
            subject,
            public_key_info: key.public_key_info(),
            sans: &[],
            not_before: now - DAY,
            not_after: now + DAY * 365,
            role: Role::Ca { path_len: None },
        };
        Cert::from_der(issue::issue(&template, issuer).expect("issued")).expect("our own certificate")
    };
    let (root_name, name) = (issue::name("mesh", "root"), issue::name("mesh", "intermediate"));
    let (root_key, key) = (PrivateKey::generate(key_type), PrivateKey::generate(key_type));
    let (root_key, key) = (root_key.expect("a key"), key.expect("a key"));
    let root = make(&root_name, &root_key, Issuer { key: &root_key, subject: &root_name, key_id: None });
    let issuer = Issuer { key: &root_key, subject: &root.subject_raw, key_id: root.key_id.as_deref() };
    let signer = make(&name, &key, issuer);
    Authority::new(key, signer, &[], vec![root], "bench".to_owned(), now).expect("an authority")
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = request, sds
}
criterion_group!(storms, rotation);
criterion_main!(benches, storms);
