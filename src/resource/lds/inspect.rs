//! Listener filters: what is found out about a connection before a chain is chosen.

use std::collections::BTreeSet;

use landbridge_proto::envoy::{
    config::listener::v3::{
        ListenerFilter, ListenerFilterChainMatchPredicate as Predicate,
        listener_filter::ConfigType,
        listener_filter_chain_match_predicate::{MatchSet, Rule},
    },
    extensions::filters::listener::{
        http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, original_src::v3::OriginalSrc,
        tls_inspector::v3::TlsInspector,
    },
    r#type::v3::Int32Range,
};
use prost_types::Any;

use crate::resource::proto::any;

/// The firewall mark by which Istio's capture knows the proxy's own connections.
const MARK: u32 = 1337;
/// Istio's first read; a ClientHello is seldom longer.
const FIRST_READ: u32 = 512;

/// Server name and offered protocols of TLS.
pub fn tls_inspector() -> ListenerFilter {
    let config = TlsInspector { initial_read_buffer_size: Some(FIRST_READ), ..Default::default() };
    named(
        "envoy.filters.listener.tls_inspector",
        any("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", &config),
    )
}

/// Whether plaintext is HTTP.
pub fn http_inspector() -> ListenerFilter {
    named(
        "envoy.filters.listener.http_inspector",
        any("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", &HttpInspector::default()),
    )
}

/// The address that the caller dialled before capture.
pub fn original_dst() -> ListenerFilter {
    named(
        "envoy.filters.listener.original_dst",
        any("envoy.extensions.filters.listener.original_dst.v3.OriginalDst", &OriginalDst {}),
    )
}

/// Keeps the caller's address towards the application (TPROXY).
pub fn original_src() -> ListenerFilter {
    let config = OriginalSrc { mark: MARK, ..Default::default() };
    named(
        "envoy.filters.listener.original_src",
        any("envoy.extensions.filters.listener.original_src.v3.OriginalSrc", &config),
    )
}

fn named(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// Lets an inspector run only where it is needed: it waits for the client's first bytes, which never come where the server
/// speaks first. `ports`: for each known port whether it needs it; `others`: whether any other port does. `None` if
/// nothing does.
pub fn only_where_needed(
    filter: ListenerFilter,
    ports: &[(u16, bool)],
    others: bool,
) -> Option<ListenerFilter> {
    let of = |needed: bool| -> BTreeSet<u16> {
        ports.iter().filter(|(_, n)| *n == needed).map(|(port, _)| *port).collect()
    };
    let disabled = if others {
        any_of(&of(false))
    } else {
        let needed = of(true);
        if needed.is_empty() {
            return None;
        }
        any_of(&needed).map(|p| Predicate { rule: Some(Rule::NotMatch(Box::new(p))) })
    };
    Some(ListenerFilter { filter_disabled: disabled, ..filter })
}

fn any_of(ports: &BTreeSet<u16>) -> Option<Predicate> {
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| {
            let start = i32::from(*port);
            Predicate { rule: Some(Rule::DestinationPortRange(Int32Range { start, end: start + 1 })) }
        })
        .collect();
    // Envoy wants at least two rules in an "or".
    if rules.len() > 1 {
        return Some(Predicate { rule: Some(Rule::OrMatch(MatchSet { rules })) });
    }
    rules.pop()
}
