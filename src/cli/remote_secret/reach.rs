//! Whether an API server's address means the same elsewhere. A name that only the cluster itself knows is the mistake that
//! everybody makes once.

use std::net::IpAddr;

/// What is wrong with giving this address to another cluster; `inside` is the API server's address for pods.
pub fn warnings(server: &str, inside: Option<&str>, name: &str) -> Vec<String> {
    let Some(url) = reqwest::Url::parse(server).ok() else { return Vec::new() };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let why = match host.parse::<IpAddr>() {
        Ok(address) => of_address(address, inside.is_some_and(|inside| inside == host)),
        Err(_) => of_name(&host),
    };
    let remedy = format!(
        "say how the other cluster reaches it: --server https://HOST:PORT (for kind: `kind get kubeconfig --internal --name {name}`, \
         or the address of `docker inspect`)"
    );
    why.map(|why| format!("{server} {why}; {remedy}")).into_iter().collect()
}

fn of_address(address: IpAddr, is_inside: bool) -> Option<&'static str> {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() {
        Some("is this machine, and the control plane of another cluster does not run here")
    } else if link_local {
        Some("is known on one link only")
    } else if is_inside {
        Some("is the address of Service kubernetes, which only the pods of its own cluster reach")
    } else {
        None
    }
}

fn of_name(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") || host.ends_with("docker.internal") {
        Some("is this machine, and the control plane of another cluster does not run here")
    } else if host.ends_with(".svc") || host.contains(".svc.") || host.ends_with(".cluster.local") {
        Some("is a name that only its own cluster knows")
    } else if !host.contains('.') {
        Some("is a name without a domain, which other networks do not know")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_something_else_elsewhere() {
        for server in [
            "https://127.0.0.1:6443",
            "https://[::1]:6443",
            "https://[::ffff:127.0.0.1]:6443",
            "https://0.0.0.0:6443",
            "https://localhost:6443",
            "https://kubernetes.docker.internal:6443",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local:443",
            "https://kubernetes",
            "https://169.254.1.1",
            "https://10.96.0.1:443",
        ] {
            let warnings = warnings(server, Some("10.96.0.1"), "west");
            let [warning] = &warnings[..] else { panic!("{server}: {warnings:?}") };
            assert!(warning.starts_with(server) && warning.contains("--server https://"), "{warning}");
        }
        // Networks that are joined use private addresses.
        for server in ["https://10.0.0.5:6443", "https://api.west.example.com", "https://[2001:db8::1]:6443"]
        {
            assert!(warnings(server, Some("10.96.0.1"), "west").is_empty(), "{server}");
        }
    }
}
