//! The gateways whose word on their clients counts: those at addresses that the operator names.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use super::xfcc;
use crate::model::identity::Spiffe;

/// Envoy's header; its gRPC metadata key.
pub const HEADER: &str = "x-forwarded-client-cert";

/// Where trusted gateways are. None by default: then nobody's word counts, and the header is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedGateways(Vec<IpNet>);

impl TrustedGateways {
    /// Gateways in these networks, and, if there is one, on the loopback interface (behaviour 1.4).
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The networks that hold every address of their kind: whoever reaches the port is trusted.
    pub fn everybody(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter().filter(|network| network.prefix_len() == 0)
    }

    /// Whom the header is about. None where nobody is trusted or there is no such header. `from`: the other end of the connection;
    /// where it is not known it is not trusted.
    pub fn check(
        &self,
        headers: &HeaderMap,
        from: Option<IpAddr>,
        trust_domain: &str,
    ) -> Option<Result<Spiffe, String>> {
        let mut values = headers.get_all(HEADER).iter();
        let value = values.next().filter(|_| !self.0.is_empty())?;
        Some(match (from, value.to_str(), values.next()) {
            (Some(from), ..) if !self.trusts(from) => {
                Err(format!("{from} is no gateway that may forward identities (--trusted-gateway-cidr)"))
            }
            (None, ..) => Err("the address of who forwards it is not known".to_owned()),
            (_, _, Some(_)) => Err("it is there twice".to_owned()),
            (_, Err(_), _) => Err("it is not ASCII".to_owned()),
            (_, Ok(text), None) => xfcc::identity(text, trust_domain).map_err(|error| error.to_string()),
        })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        // A socket for both families shows IPv4 peers as IPv6.
        let address = address.to_canonical();
        address.is_loopback() || self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "By=x;URI=spiffe://cluster.local/ns/a/sa/b";

    fn check(
        networks: &[&str],
        from: Option<&str>,
        values: &[&'static [u8]],
    ) -> Option<Result<String, String>> {
        let trusted = TrustedGateways::new(networks.iter().map(|network| network.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, http::HeaderValue::from_bytes(value).unwrap());
        }
        let from = from.map(|from| from.parse().unwrap());
        trusted.check(&headers, from, "cluster.local").map(|found| found.map(|identity| identity.to_string()))
    }

    #[test]
    fn the_header_counts_from_trusted_addresses_only() {
        let networks = ["10.1.0.0/16", "fd00::/8"];
        for from in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let found = check(&networks, Some(from), &[GOOD.as_bytes()]).unwrap();
            assert_eq!(found, Ok("spiffe://cluster.local/ns/a/sa/b".to_owned()), "{from}");
        }
        for from in ["10.2.0.1", "::ffff:10.2.0.1", "fe80::1", "::a01:203"] {
            let said = check(&networks, Some(from), &[GOOD.as_bytes()]).unwrap().unwrap_err();
            assert!(said.contains(from) && said.contains("--trusted-gateway-cidr"), "{said}");
        }
        assert!(check(&networks, None, &[GOOD.as_bytes()]).unwrap().unwrap_err().contains("not known"));
    }

    #[test]
    fn it_is_off_by_default_even_on_the_loopback_interface() {
        assert_eq!(check(&[], Some("127.0.0.1"), &[GOOD.as_bytes()]), None);
        assert_eq!(check(&["10.0.0.0/8"], Some("10.0.0.1"), &[]), None);
    }

    #[test]
    fn a_header_that_is_not_one_is_refused() {
        let from = Some("10.0.0.1");
        for (values, reason) in [
            (&[GOOD.as_bytes(), GOOD.as_bytes()][..], "twice"),
            (&[b"URI=\xff"], "not ASCII"),
            (&[b""], "not in Envoy's form"),
        ] {
            let said = check(&["10.0.0.0/8"], from, values).unwrap().unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }

    #[test]
    fn a_network_of_everybody_is_known() {
        let networks = ["10.0.0.0/8", "0.0.0.0/0"].map(|network| network.parse().unwrap());
        let trusted = TrustedGateways::new(networks.to_vec());
        assert_eq!(trusted.everybody().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0/0"]);
    }
}
