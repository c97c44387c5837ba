//! One cluster: its keys, its API server's process, and how to reach it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{
    TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec, TokenReviewStatus,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

use super::Binaries;
use super::client::client;
use super::keys::{Authority, Claims, ISSUER, TokenSigner};
use super::kubeconfig::{Context as KubeContext, Login, kubeconfig};
use crate::netns::Ns;
use crate::process::Process;

/// The port of every API server; what differs is the address.
pub const PORT: u16 = 6443;

/// How long an API server may take to be ready: under 5 s with two idle cores and two starting at once.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where an API server listens, always on [`PORT`].
#[derive(Clone)]
pub enum Place {
    /// On a loopback address of its own, 127.x.y.z.
    Loopback,
    /// On every address of a network namespace. It says that it has these, the first of which is that of kubeconfigs.
    Namespace(Ns, Vec<IpAddr>),
}

/// How an API server is started.
#[derive(Clone)]
pub struct Settings {
    /// The cluster's name, which is that of its kubeconfig context, too.
    pub name: String,
    pub place: Place,
    /// Emptied first; holds keys, data and the log `apiserver.log`.
    pub folder: PathBuf,
    /// Whether the API server goes on however this process ends, instead of ending with it; for
    /// [`Cluster::leave_running`].
    pub lives_on: bool,
    /// Further flags of kube-apiserver; the last one of a name counts.
    pub flags: Vec<String>,
}

impl Settings {
    /// A cluster on a loopback address that ends with this process.
    pub fn new(name: &str, folder: PathBuf) -> Self {
        Self { name: name.to_owned(), place: Place::Loopback, folder, lives_on: false, flags: Vec::new() }
    }
}

/// A cluster with a running API server. Dropping it kills that and deletes its data; keys and log stay.
pub struct Cluster {
    settings: Settings,
    binaries: Binaries,
    addresses: Vec<IpAddr>,
    authority: Authority,
    signer: TokenSigner,
    admin_token: String,
    client: Client,
    process: Process,
}

impl Cluster {
    /// Starts an API server and waits until it is ready.
    pub async fn start(binaries: &Binaries, settings: Settings) -> Result<Self> {
        let folder = &settings.folder;
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("empty {}", folder.display()));
            }
            _ => fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?,
        }
        let addresses = match &settings.place {
            Place::Loopback => vec![free_address()?],
            Place::Namespace(_, addresses) => addresses.clone(),
        };
        let authority = Authority::new(&settings.name)?;
        let signer = TokenSigner::new()?;
        let admin_token = random_hex()?;
        secret_file(&folder.join("ca.pem"), &authority.certificate())?;
        let server = authority.server(&addresses)?;
        secret_file(&folder.join("server.pem"), &server.certificate)?;
        secret_file(&folder.join("server.key"), &server.key)?;
        signer.write(&folder.join("sa.key"), &folder.join("sa.pub"))?;
        secret_file(&folder.join("tokens.csv"), &format!("{admin_token},admin,admin,system:masters\n"))?;

        let login = Login::Token(admin_token.clone());
        let admin = context(&settings.name, first(&addresses)?, &authority, login);
        let client = client(&kubeconfig(&[admin])?, settings.place.ns()).await?;
        let process = spawn(binaries, &settings, &addresses)?;
        let binaries = binaries.clone();
        let mut cluster =
            Self { settings, binaries, addresses, authority, signer, admin_token, client, process };
        cluster.await_ready(PATIENCE).await?;
        Ok(cluster)
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Where the API server listens, all addresses that it is known to have.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The authority that signed the API server's certificate, and may sign those of its clients.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A client that may do everything (group `system:masters`).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The API server's process, to be watched.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What [`Cluster::client`] logs in with.
    pub fn admin(&self) -> Login {
        Login::Token(self.admin_token.clone())
    }

    /// The text of a kubeconfig with one context, which has the cluster's name.
    pub fn kubeconfig(&self, login: Login) -> Result<String> {
        kubeconfig(&[self.context(login)?])
    }

    /// A context for a kubeconfig of several clusters, or to be changed first.
    pub fn context(&self, login: Login) -> Result<KubeContext> {
        self.context_at(first(&self.addresses)?, login)
    }

    /// As [`Cluster::context`], by another of its addresses.
    pub fn context_at(&self, address: IpAddr, login: Login) -> Result<KubeContext> {
        ensure!(self.addresses.contains(&address), "{} has no address {address}", self.name());
        Ok(context(&self.settings.name, address, &self.authority, login))
    }

    /// A client that logs in otherwise than the administrator.
    pub async fn client_as(&self, login: Login) -> Result<Client> {
        client(&self.kubeconfig(login)?, self.settings.place.ns()).await
    }

    /// A token of a ServiceAccount, signed here, for the API server itself; valid until `expires`, and then for
    /// [`super::keys::LEEWAY`].
    pub async fn sign_token(&self, namespace: &str, account: &str, expires: SystemTime) -> Result<String> {
        // An issue date after the expiry would be another mistake than being expired.
        let issued = SystemTime::now().min(expires) - Duration::from_secs(3600);
        self.sign_token_of(namespace, account, issued, expires).await
    }

    /// The same, issued at another time.
    pub async fn sign_token_of(
        &self,
        namespace: &str,
        account: &str,
        issued: SystemTime,
        expires: SystemTime,
    ) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let found = accounts.get(account).await.with_context(|| format!("account {namespace}/{account}"))?;
        let uid = found.uid().context("a stored object has a uid")?;
        self.signer.sign(&Claims { namespace, account, uid: &uid, audiences: &[ISSUER], issued, expires })
    }

    /// A token of a ServiceAccount from the API server (`TokenRequest`), for `audiences`, its own if there are none.
    /// It refuses lifetimes under ten minutes.
    pub async fn request_token(
        &self,
        namespace: &str,
        account: &str,
        audiences: &[&str],
        lifetime: Duration,
    ) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            expiration_seconds: Some(lifetime.as_secs().try_into()?),
            bound_object_ref: None,
        };
        let request = TokenRequest { spec, ..Default::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(answer.status.context("a token request is answered in its status")?.token)
    }

    /// What the API server says of a token (`TokenReview`).
    pub async fn review(&self, token: &str, audiences: &[&str]) -> Result<TokenReviewStatus> {
        let spec = TokenReviewSpec {
            audiences: Some(audiences.iter().map(|audience| (*audience).to_owned()).collect()),
            token: Some(token.to_owned()),
        };
        let review = TokenReview { spec, ..Default::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        answer.status.context("a token review is answered in its status")
    }

    /// Gives the API server a certificate that is good between these times. It takes it over by itself, for new connections.
    pub fn show_certificate(&self, from: SystemTime, until: SystemTime) -> Result<()> {
        let server = self.authority.server_of(&self.addresses, from, until)?;
        // The key first: what does not fit together is not taken over.
        secret_file(&self.settings.folder.join("server.key"), &server.key)?;
        secret_file(&self.settings.folder.join("server.pem"), &server.certificate)
    }

    /// Holds the API server still (SIGSTOP): connections stay up, nothing is answered.
    pub fn suspend(&self) {
        self.process.suspend();
    }

    /// Lets it go on after [`Cluster::suspend`].
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Takes the API server's etcd away: connections stay up, reads and writes fail. It is gone a few seconds later.
    pub fn take_etcd(&self) {
        self.process.signal(Signal::USR1);
    }

    /// Gives it back, with its data.
    pub fn give_etcd(&self) {
        self.process.signal(Signal::USR2);
    }

    /// Ends the API server at once (SIGKILL); its data stays for [`Cluster::revive`].
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Starts a server that was killed again, with its data, at the same address, and waits until it is ready.
    pub async fn revive(&mut self) -> Result<()> {
        self.process = spawn(&self.binaries, &self.settings, &self.addresses)?;
        self.await_ready(PATIENCE).await
    }

    /// Lets a cluster that [`Settings::lives_on`] go on without this process; for `make playground`.
    pub fn leave_running(self) {
        // Dropping it would end it.
        std::mem::forget(self);
    }

    /// Waits until the API server says on /readyz that it serves.
    pub async fn await_ready(&mut self, within: Duration) -> Result<()> {
        let client = self.client.clone();
        let ready = async || {
            let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
            let answer = timeout(Duration::from_secs(2), client.request_text(request)).await;
            answer.is_ok_and(|answer| answer.is_ok())
        };
        self.process.await_ready(within, ready).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.process.kill_now();
        let _ = fs::remove_dir_all(self.settings.folder.join("etcd")); // 64 MB, and of no use to anybody
    }
}

impl Place {
    fn ns(&self) -> Option<&Ns> {
        match self {
            Self::Loopback => None,
            Self::Namespace(ns, _) => Some(ns),
        }
    }
}

fn first(addresses: &[IpAddr]) -> Result<IpAddr> {
    addresses.first().copied().context("an API server has an address")
}

fn context(name: &str, address: IpAddr, authority: &Authority, login: Login) -> KubeContext {
    let server = format!("https://{}", SocketAddr::from((address, PORT)));
    KubeContext { name: name.to_owned(), server, authority: authority.certificate(), login }
}

fn spawn(binaries: &Binaries, settings: &Settings, addresses: &[IpAddr]) -> Result<Process> {
    let address = first(addresses)?;
    let bind = match settings.place {
        Place::Loopback => address,
        Place::Namespace(..) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    let in_folder = |name: &str| settings.folder.join(name).display().to_string();
    let parent = if settings.lives_on { 0 } else { std::process::id() };
    let mut command = Command::new(&binaries.apiserver);
    command.args([in_folder("etcd"), parent.to_string()]);
    command.args([
        format!("--bind-address={bind}"),
        format!("--secure-port={PORT}"),
        format!("--advertise-address={address}"),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", in_folder("server.pem")),
        format!("--tls-private-key-file={}", in_folder("server.key")),
        format!("--client-ca-file={}", in_folder("ca.pem")),
        format!("--service-account-key-file={}", in_folder("sa.pub")),
        format!("--service-account-signing-key-file={}", in_folder("sa.key")),
        format!("--service-account-issuer={ISSUER}"),
        format!("--token-auth-file={}", in_folder("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        // No controller makes the default accounts that it asks for.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--v=0".to_owned(),
    ]);
    command.args(&settings.flags);
    let name = format!("kube-apiserver of {}", settings.name);
    Process::start_at(settings.place.ns(), &name, command, &settings.folder.join("apiserver.log"))
}

/// A loopback address on which nobody uses [`PORT`]. With an address of its own a server gets the same port again after
/// a restart, whatever ports the system has given to others meanwhile.
fn free_address() -> Result<IpAddr> {
    for _ in 0..100 {
        let mut random = [0_u8; 3];
        aws_lc_rs::rand::fill(&mut random).ok().context("read random bytes")?;
        let [a, b, c] = random;
        // Not among the addresses that others may have chosen by hand, and no network or broadcast address.
        let address = Ipv4Addr::new(127, a | 64, b, c.clamp(1, 254));
        if TcpListener::bind((address, PORT)).is_ok() {
            return Ok(address.into());
        }
    }
    bail!("no loopback address with port {PORT} free in a hundred tries")
}

fn random_hex() -> Result<String> {
    let mut random = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut random).ok().context("read random bytes")?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}

/// Writes a file that only this user may read: most of them are keys.
pub fn secret_file(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}
