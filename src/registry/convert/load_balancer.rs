//! `loadBalancer` of DestinationRule, and the mesh's `localityLbSetting`.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    missing,
    wire::{Flag, Int, Real, Span, Text},
};
use crate::model::destination_rule::{
    Distribute, HashKey, HashPolicy, LbAlgorithm, LoadBalancer, LocalityLb, Warmup,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire {
    simple: Option<Text>,
    consistent_hash: Option<ConsistentHash>,
    locality_lb_setting: Option<WireLocality>,
    zone_aware_lb_setting: Option<IgnoredAny>,
    warmup_duration_secs: Option<Span>,
    warmup: Option<WireWarmup>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConsistentHash {
    http_header_name: Option<Text>,
    http_cookie: Option<Cookie>,
    use_source_ip: Flag,
    http_query_parameter_name: Option<Text>,
    minimum_ring_size: Option<Int>,
    ring_hash: Option<RingHash>,
    maglev: Option<Maglev>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cookie {
    name: Option<Text>,
    path: Option<Text>,
    ttl: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RingHash {
    minimum_ring_size: Option<Int>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Maglev {
    table_size: Option<Int>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireWarmup {
    duration: Option<Span>,
    minimum_percent: Option<Real>,
    aggression: Option<Real>,
}

/// `localityLbSetting` on the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireLocality {
    enabled: Option<Flag>,
    distribute: Vec<WireDistribute>,
    failover: Vec<WireFailover>,
    failover_priority: Vec<Text>,
}

#[derive(Debug, Deserialize)]
struct WireDistribute {
    from: Text,
    #[serde(default)]
    to: BTreeMap<Text, Int>,
}

#[derive(Debug, Deserialize)]
struct WireFailover {
    from: Text,
    to: Text,
}

const SIMPLE: &[(&str, Simple)] = &[
    ("UNSPECIFIED", Simple::Unspecified),
    ("LEAST_REQUEST", Simple::LeastRequest),
    ("LEAST_CONN", Simple::LeastRequest),
    ("ROUND_ROBIN", Simple::RoundRobin),
    ("RANDOM", Simple::Random),
    ("PASSTHROUGH", Simple::Passthrough),
];

#[derive(Clone, Copy)]
enum Simple {
    Unspecified,
    LeastRequest,
    RoundRobin,
    Random,
    Passthrough,
}

pub fn convert(at: &str, wire: &Wire, warnings: &mut Warnings) -> Result<LoadBalancer> {
    if wire.zone_aware_lb_setting.is_some() {
        warnings.push(Finding::new(
            format!("{at}.zoneAwareLbSetting"),
            "is not supported yet and ignored",
            "use localityLbSetting",
        ));
    }
    let algorithm = algorithm(at, wire, warnings)?;
    let warmup = warmup(at, wire, &algorithm, warnings)?;
    let locality = match &wire.locality_lb_setting {
        Some(setting) => Some(locality(&format!("{at}.localityLbSetting"), setting, warnings)?),
        None => None,
    };
    Ok(LoadBalancer { algorithm, locality, warmup })
}

fn algorithm(at: &str, wire: &Wire, warnings: &mut Warnings) -> Result<LbAlgorithm> {
    match (&wire.simple, &wire.consistent_hash) {
        (Some(_), Some(_)) => {
            let reason = "says both simple and consistentHash, which exclude each other";
            Err(Invalid::new(at, reason, "keep one of the two"))
        }
        (None, None) => Ok(LbAlgorithm::Unspecified),
        (None, Some(hash)) => {
            Ok(LbAlgorithm::Hash(hash_policy(&format!("{at}.consistentHash"), hash, warnings)?))
        }
        (Some(text), None) => Ok(match check::choice(&format!("{at}.simple"), text, SIMPLE)? {
            Simple::Unspecified => LbAlgorithm::Unspecified,
            Simple::LeastRequest => LbAlgorithm::LeastRequest,
            Simple::RoundRobin => LbAlgorithm::RoundRobin,
            Simple::Random => LbAlgorithm::Random,
            Simple::Passthrough => LbAlgorithm::Passthrough,
        }),
    }
}

fn hash_policy(at: &str, wire: &ConsistentHash, warnings: &mut Warnings) -> Result<HashPolicy> {
    let mut keys = Vec::new();
    if let Some(name) = wire.http_header_name.as_ref().filter(|n| !n.is_empty()) {
        keys.push(HashKey::Header(name.0.clone()));
    }
    if let Some(cookie) = &wire.http_cookie {
        let field = format!("{at}.httpCookie");
        let name = cookie.name.as_ref().filter(|n| !n.is_empty());
        keys.push(HashKey::Cookie {
            name: name.ok_or_else(|| missing(&format!("{field}.name")))?.0.clone(),
            path: cookie.path.as_ref().map_or_else(|| "".into(), |p| p.0.clone()),
            // Zero is a cookie for the session.
            ttl: match &cookie.ttl {
                Some(ttl) => Some(check::duration(&format!("{field}.ttl"), ttl, warnings)?),
                None => None,
            },
        });
    }
    if wire.use_source_ip.0 {
        keys.push(HashKey::SourceIp);
    }
    if let Some(name) = wire.http_query_parameter_name.as_ref().filter(|n| !n.is_empty()) {
        keys.push(HashKey::QueryParameter(name.0.clone()));
    }
    let remedy = "write one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName";
    if keys.len() > 1 {
        return Err(Invalid::new(
            at,
            format!("names {} things to hash, one is possible", keys.len()),
            remedy,
        ));
    }
    let key = keys.pop().ok_or_else(|| Invalid::new(at, "does not say what to hash", remedy))?;
    let size = |field: &str, value: Option<Int>| {
        check::limit(&format!("{at}.{field}"), value).map(|n| n.map(u64::from))
    };
    let ring = wire.ring_hash.as_ref().and_then(|r| r.minimum_ring_size).or(wire.minimum_ring_size);
    let maglev = match &wire.maglev {
        // Envoy's default size.
        Some(maglev) => Some(size("maglev.tableSize", maglev.table_size)?.unwrap_or(65_537)),
        None => None,
    };
    if let Some(table) = maglev.filter(|&n| n >= 5_000_011 || !is_prime(n)) {
        let reason = format!("{table} is no prime number below 5000011, which Envoy demands");
        return Err(Invalid::new(format!("{at}.maglev.tableSize"), reason, "leave it out (65537)"));
    }
    Ok(HashPolicy { key, minimum_ring_size: size("ringHash.minimumRingSize", ring)?, maglev })
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn warmup(at: &str, wire: &Wire, algorithm: &LbAlgorithm, warnings: &mut Warnings) -> Result<Option<Warmup>> {
    let old = format!("{at}.warmupDurationSecs");
    let (field, duration, minimum, aggression) = match (&wire.warmup, &wire.warmup_duration_secs) {
        (None, None) => return Ok(None),
        (None, Some(duration)) => (old, duration, None, None),
        (Some(warmup), both) => {
            if both.is_some() {
                warnings.push(Finding::new(
                    old,
                    "is ignored: warmup says the same",
                    "remove warmupDurationSecs",
                ));
            }
            let field = format!("{at}.warmup.duration");
            let duration = warmup.duration.as_ref().ok_or_else(|| missing(&field))?;
            (field, duration, warmup.minimum_percent, warmup.aggression)
        }
    };
    let Some(duration) = check::some_duration(&field, Some(duration), warnings)? else { return Ok(None) };
    let minimum_percent = minimum.map_or(10.0, |m| m.0);
    if !(0.0..=100.0).contains(&minimum_percent) {
        let reason = format!("{minimum_percent} is no per cent value");
        return Err(Invalid::new(
            format!("{at}.warmup.minimumPercent"),
            reason,
            "write a number from 0 to 100",
        ));
    }
    let aggression = aggression.map_or(1.0, |a| a.0);
    if aggression < 1.0 {
        let reason = format!("{aggression} is less than 1, which is linear");
        return Err(Invalid::new(format!("{at}.warmup.aggression"), reason, "write 1 or more"));
    }
    if matches!(algorithm, LbAlgorithm::Random | LbAlgorithm::Passthrough | LbAlgorithm::Hash(_)) {
        warnings.push(Finding::new(
            field,
            "is ignored: only ROUND_ROBIN and LEAST_REQUEST can warm endpoints up",
            "choose one of these, or remove the warm-up",
        ));
        return Ok(None);
    }
    Ok(Some(Warmup { duration, minimum_percent, aggression }))
}

/// Locality settings. Contradictions are decided as Istio's runtime does, and said.
pub fn locality(at: &str, wire: &WireLocality, warnings: &mut Warnings) -> Result<LocalityLb> {
    let mut setting = LocalityLb {
        enabled: wire.enabled.is_none_or(|f| f.0),
        distribute: distribute(at, &wire.distribute, warnings)?,
        failover: failover(at, &wire.failover, warnings),
        failover_priority: wire.failover_priority.iter().map(|l| l.0.clone()).collect(),
    };
    let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    if fails_over && !setting.distribute.is_empty() {
        setting.failover.clear();
        setting.failover_priority.clear();
        warnings.push(Finding::new(
            format!("{at}.distribute"),
            "excludes failover and failoverPriority, which are ignored: a distribution fixes the weights. Istio refuses the object",
            "remove distribute to get failover, or remove failover and failoverPriority",
        ));
    }
    let topology = setting.failover_priority.iter().find(|label| label.contains("topology."));
    if let (false, Some(label)) = (setting.failover.is_empty(), topology) {
        warnings.push(Finding::new(
            format!("{at}.failoverPriority"),
            format!(
                "holds {label} beside failover: both are applied, first failoverPriority, then failover among equals, as Istio's runtime does; Istio's validation refuses the object"
            ),
            "keep failoverPriority for an order by labels, or failover for fixed pairs of regions",
        ));
    }
    Ok(setting)
}

fn distribute(at: &str, wire: &[WireDistribute], warnings: &mut Warnings) -> Result<Vec<Distribute>> {
    let mut rules = Vec::new();
    for (i, rule) in wire.iter().enumerate() {
        let field = format!("{at}.distribute[{i}].to");
        let mut to = BTreeMap::new();
        for (locality, weight) in &rule.to {
            let weight = u32::try_from(weight.0).ok().filter(|w| (1..=100).contains(w)).ok_or_else(|| {
                let reason = format!("the weight {} of {} is out of range", weight.0, &**locality);
                Invalid::new(&field, reason, "write weights from 1 to 100 that sum to 100")
            })?;
            to.insert(locality.0.clone(), weight);
        }
        let sum: u32 = to.values().sum();
        if to.is_empty() {
            return Err(Invalid::new(field, "is empty", "write localities with weights that sum to 100"));
        }
        if sum != 100 {
            let list = to.values().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
            let reason = format!(
                "the weights are {list} = {sum}, not 100: they are taken as shares of {sum}. Istio refuses the object"
            );
            warnings.push(Finding::new(field, reason, "correct the weights so that they sum to 100"));
        }
        rules.push(Distribute { from: rule.from.0.clone(), to });
    }
    Ok(rules)
}

type Failover = Vec<(std::sync::Arc<str>, std::sync::Arc<str>)>;

fn failover(at: &str, wire: &[WireFailover], warnings: &mut Warnings) -> Failover {
    let mut pairs = Vec::new();
    for (i, pair) in wire.iter().enumerate() {
        let (from, to) = (&pair.from.0, &pair.to.0);
        let reason = if from == to {
            format!("{from} to itself means nothing and is ignored")
        } else if from.contains(['/', '*']) || to.contains(['/', '*']) {
            format!("{from} to {to} is ignored: failover knows regions only, without '/' and '*'")
        } else {
            pairs.push((from.clone(), to.clone()));
            continue;
        };
        let remedy = "write two different regions, e.g. from: us-east-1, to: us-central1";
        warnings.push(Finding::new(format!("{at}.failover[{i}]"), reason, remedy));
    }
    pairs
}
