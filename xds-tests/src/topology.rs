//! Two clouds whose pod networks do not know each other, and a wide-area network between their gateways.
//!
//! ```text
//!   east 10.1.0.0/24                                         west 10.2.0.0/24
//!   pods --- br0 (router .1) --NAT--+                  +--NAT-- br0 (router .1) --- pods
//!              gateway .2 ----------+ wan 172.30.0.0/24 +---------- gateway .2
//!                          172.30.0.1                  172.30.0.2
//! ```
//!
//! A pod reaches the other cloud's gateway through its router, with the router's address; pod addresses are not
//! routed between clouds. Bridges live in namespaces of their own: the host's network is never touched.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::netns::{self, Ns};

/// The two clouds, home first.
pub const CLOUDS: [&str; 2] = ["east", "west"];

/// What runs in every cloud, with the last byte of its address.
pub const GATEWAY: (&str, u8) = ("gateway", 2);
pub const LANDBRIDGE: (&str, u8) = ("landbridge", 5);
/// The pod of a cluster's API server, where there is one.
pub const API_SERVER: (&str, u8) = ("apiserver", 6);

/// Address of a machine in the wide-area network, where a person works: see [`Topology::add_desk`].
pub const DESK: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 50);

/// A pod: a namespace with one address in its cloud's network.
#[derive(Clone)]
pub struct Pod {
    pub cloud: &'static str,
    pub name: String,
    pub ip: Ipv4Addr,
    pub ns: Ns,
}

impl Pod {
    /// Unique in the lab, and what answers of its application are signed with: `east/backend-a`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.cloud, self.name)
    }
}

/// The whole lab. Dropping it deletes the namespaces; stop what runs in them first.
pub struct Topology {
    prefix: String,
    pods: BTreeMap<String, Pod>,
    // Dropped after the pods.
    infrastructure: Vec<Ns>,
}

impl Topology {
    /// Builds both clouds, each with a gateway, a control plane's pod, and `pods` as (cloud, name, last byte).
    /// `prefix` begins every namespace's name, so that several labs can exist at once.
    pub fn build(prefix: &str, pods: &[(&'static str, &str, u8)]) -> Result<Self> {
        let wan = netns::bridge(&format!("{prefix}-wan"))?;
        let mut topology =
            Self { prefix: prefix.to_owned(), pods: BTreeMap::new(), infrastructure: vec![wan.clone()] };
        for cloud in CLOUDS {
            let router = router(prefix, cloud, &wan)?;
            let own = pods.iter().filter(|(at, ..)| *at == cloud).map(|&(_, name, host)| (name, host));
            for (name, host) in [GATEWAY, LANDBRIDGE].into_iter().chain(own) {
                topology.add(&router, cloud, name, host)?;
            }
            let gateway = topology.pod(cloud, GATEWAY.0)?;
            netns::plug(&wan, &gateway.ns, "wan0", &format!("{}/24", gateway_address(cloud)))?;
            topology.infrastructure.push(router);
        }
        Ok(topology)
    }

    fn add(&mut self, router: &Ns, cloud: &'static str, name: &str, host: u8) -> Result<()> {
        let ns = Ns::create(&format!("{}-{cloud}-{name}", self.prefix))?;
        let ip = address(cloud, host);
        netns::plug(router, &ns, "eth0", &format!("{ip}/24"))?;
        ns.ip(&format!("route add default via {}\n", address(cloud, 1)))?;
        let pod = Pod { cloud, name: name.to_owned(), ip, ns };
        self.pods.insert(pod.id(), pod);
        Ok(())
    }

    /// Adds a pod for a cloud's API server, which the wide-area network reaches, too, at [`api_server_address`].
    pub fn add_api_server(&mut self, cloud: &'static str) -> Result<Pod> {
        let find = |name: String| self.infrastructure.iter().find(|ns| ns.name() == name).cloned();
        let router = find(format!("{}-{cloud}-router", self.prefix)).context("every cloud has a router")?;
        let wan = find(format!("{}-wan", self.prefix)).context("the clouds have a network between them")?;
        self.add(&router, cloud, API_SERVER.0, API_SERVER.1)?;
        let pod = self.pod(cloud, API_SERVER.0)?;
        netns::plug(&wan, &pod.ns, "wan0", &format!("{}/24", api_server_address(cloud)))?;
        Ok(pod)
    }

    /// Adds a machine in the wide-area network, which reaches gateways and API servers and no pods: where a person works.
    pub fn add_desk(&mut self) -> Result<Ns> {
        let name = format!("{}-wan", self.prefix);
        let wan = self.infrastructure.iter().find(|ns| ns.name() == name);
        let wan = wan.context("the clouds have a network between them")?;
        let desk = Ns::create(&format!("{}-desk", self.prefix))?;
        netns::plug(wan, &desk, "eth0", &format!("{DESK}/24"))?;
        self.infrastructure.push(desk.clone());
        Ok(desk)
    }

    pub fn pod(&self, cloud: &str, name: &str) -> Result<Pod> {
        self.pods
            .get(&format!("{cloud}/{name}"))
            .cloned()
            .with_context(|| format!("no pod {cloud}/{name} in the lab"))
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Leaves all namespaces behind when this process ends.
    pub fn keep(&self) {
        self.pods.values().map(|pod| &pod.ns).chain(&self.infrastructure).for_each(Ns::keep);
    }

    /// Names of all namespaces, pods first.
    pub fn namespaces(&self) -> Vec<String> {
        let all = self.pods.values().map(|pod| &pod.ns).chain(&self.infrastructure);
        all.map(|ns| ns.name().to_owned()).collect()
    }
}

/// The router of a cloud is also its bridge: pods reach the wide-area network, masqueraded, and nothing else.
fn router(prefix: &str, cloud: &str, wan: &Ns) -> Result<Ns> {
    let router = netns::bridge(&format!("{prefix}-{cloud}-router"))?;
    router.ip(&format!("addr add {}/24 dev br0\n", address(cloud, 1)))?;
    netns::plug(wan, &router, "wan0", &format!("172.30.0.{}/24", 100 + number(cloud)))?;
    router.sysctl(&[("net.ipv4.ip_forward", "1")])?;
    router.iptables(
        "*filter\n\
         :FORWARD DROP [0:0]\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -i br0 -o wan0 -d 172.30.0.0/24 -j ACCEPT\n\
         -A FORWARD -i br0 -j REJECT --reject-with icmp-net-unreachable\n\
         COMMIT\n\
         *nat\n\
         -A POSTROUTING -o wan0 -j MASQUERADE\n\
         COMMIT\n",
    )?;
    Ok(router)
}

/// Address of a host in a cloud's pod network.
pub fn address(cloud: &str, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, number(cloud), 0, host)
}

/// Address of a cloud's gateway in the wide-area network: what the other cloud's proxies connect to.
pub fn gateway_address(cloud: &str) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, number(cloud))
}

/// Address of a cloud's API server in the wide-area network: what the other cloud's control plane connects to.
pub fn api_server_address(cloud: &str) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + number(cloud))
}

fn number(cloud: &str) -> u8 {
    if cloud == CLOUDS[0] { 1 } else { 2 }
}
