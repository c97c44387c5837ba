//! Transparent capture: a pod's TCP connections pass through its proxy without the application's knowledge.
//!
//! The same decisions as Istio's init container makes for a sidecar that runs as uid and gid 1337, with
//! 15001 as the outbound and 15006 as the inbound port. The rules are loaded in one piece.

use anyhow::Result;

use crate::netns::Ns;

/// The user and group that a sidecar runs as; its own connections are never captured.
pub const PROXY_ID: u32 = 1337;

/// Sends the pod's inbound connections to 15006 and its outbound ones to 15001.
pub fn install(pod: &Ns) -> Result<()> {
    pod.iptables(&rules())
}

fn rules() -> String {
    // Ports of the proxy itself, and ssh: reached directly.
    let direct: String = ["22", "15000", "15008", "15020", "15021", "15090"]
        .map(|port| format!("-A MESH_INBOUND -p tcp --dport {port} -j RETURN\n"))
        .concat();
    // The order of the outbound rules decides:
    //   1. the proxy's connection to its own application (source 127.0.0.6) must not come back to the proxy;
    //   2. the proxy calling its own pod by an address other than localhost is inbound traffic of that pod;
    //   3. the application's own localhost traffic stays its own;
    //   4. what else the proxy sends goes out as it is;
    //   5. everything left is the application's, and captured.
    format!(
        "*nat\n\
         :MESH_INBOUND - [0:0]\n:MESH_OUTBOUND - [0:0]\n:MESH_TO_INBOUND - [0:0]\n\
         -A PREROUTING -p tcp -j MESH_INBOUND\n\
         -A OUTPUT -p tcp -j MESH_OUTBOUND\n\
         {direct}\
         -A MESH_INBOUND -p tcp -j MESH_TO_INBOUND\n\
         -A MESH_TO_INBOUND -p tcp -j REDIRECT --to-ports 15006\n\
         -A MESH_OUTBOUND -s 127.0.0.6/32 -o lo -j RETURN\n\
         -A MESH_OUTBOUND ! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --uid-owner {PROXY_ID} -j MESH_TO_INBOUND\n\
         -A MESH_OUTBOUND -o lo -m owner ! --uid-owner {PROXY_ID} -j RETURN\n\
         -A MESH_OUTBOUND -m owner --uid-owner {PROXY_ID} -j RETURN\n\
         -A MESH_OUTBOUND -m owner --gid-owner {PROXY_ID} -j RETURN\n\
         -A MESH_OUTBOUND -d 127.0.0.1/32 -j RETURN\n\
         -A MESH_OUTBOUND -p tcp -j REDIRECT --to-ports 15001\n\
         COMMIT\n"
    )
}
