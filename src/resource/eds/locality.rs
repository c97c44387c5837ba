//! Groups, priorities and weights by locality.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::horizon::Member;
use crate::model::{Labels, destination_rule::LocalityLb, locality::Locality};

/// If it is the first of a `failoverPriority`, a mismatch only makes everything of other networks come later: what
/// follows is compared all the same.
const NETWORK_LABEL: &str = "topology.istio.io/network";
/// How many priorities a locality can have beside a `failoverPriority`: same zone and subzone, same zone, same region, the
/// region that `failover` names, anywhere.
const LOCALITY_PRIORITIES: u32 = 5;

/// Members of one locality and priority.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// 0 is used first; without gaps.
    pub priority: u32,
    /// Where they are.
    pub locality: Locality,
    /// The group's share among those of its priority; the sum of its members', or what `distribute` says.
    pub weight: u32,
    /// At least one.
    pub members: Vec<Member<'a>>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its locality; empty if unknown.
    pub locality: &'a Locality,
    /// Those of its labels that are compared.
    pub labels: &'a Labels,
}

/// Groups members and orders the groups by priority and locality. `fails_over`: there is outlier detection, without which
/// Istio orders nothing. Members that get nothing come back separately.
pub fn arrange<'a>(
    members: Vec<Member<'a>>,
    caller: Caller,
    setting: Option<&LocalityLb>,
    fails_over: bool,
) -> (Vec<Group<'a>>, Vec<Member<'a>>) {
    if let Some(to) = setting.and_then(|s| distribution(s, caller.locality)) {
        return distribute(group(members, |_| 0), to);
    }
    let Some(setting) = setting.filter(|s| fails_over && s.distribute.is_empty()) else {
        return (group(members, |_| 0), Vec::new());
    };
    let groups = if setting.failover_priority.is_empty() {
        compact(group(members, |m| by_locality(&m.locality, caller.locality, setting)))
    } else {
        let by_label = |m: &Member| by_labels(&m.labels, caller.labels, &setting.failover_priority);
        let mut groups = compact(group(members, by_label));
        if !setting.failover.is_empty() {
            for group in &mut groups {
                let within = by_locality(&group.locality, caller.locality, setting);
                group.priority = group.priority * LOCALITY_PRIORITIES + within;
            }
            groups = compact(groups);
        }
        groups
    };
    (groups, Vec::new())
}

/// How far away a locality is: 0 here, 1 same zone, 2 same region, 3 elsewhere; with a `failover` for the caller's region
/// 3 is the region that it names and 4 the rest.
fn by_locality(locality: &Locality, own: &Locality, setting: &LocalityLb) -> u32 {
    if locality.region == own.region {
        return match (locality.zone == own.zone, locality.subzone == own.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    let target = setting.failover.iter().find(|(from, _)| *from == own.region).map(|(_, to)| to);
    if target.is_none_or(|to| *to == locality.region) { 3 } else { 4 }
}

/// The number of labels from the first that differs on; 0 if all are the same. An entry `key=value` is compared with that
/// value instead of the caller's.
fn by_labels(labels: &Labels, own: &Labels, order: &[Arc<str>]) -> u32 {
    let value = |labels: &Labels, key: &str| labels.get(key).cloned().unwrap_or_default();
    let count = order.len() as u32;
    let mut priority = 0;
    for (i, entry) in order.iter().enumerate() {
        let (key, wanted) = match entry.split_once('=') {
            Some((key, value)) => (key, Arc::from(value)),
            None => (&**entry, value(own, entry)),
        };
        if value(labels, key) == wanted {
            continue;
        }
        if i > 0 || key != NETWORK_LABEL {
            return priority + count - i as u32;
        }
        priority = count;
    }
    priority
}

fn group<'a>(members: Vec<Member<'a>>, priority: impl Fn(&Member) -> u32) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(u32, Locality), Vec<Member<'a>>> = BTreeMap::new();
    for member in members {
        groups.entry((priority(&member), member.locality.clone())).or_default().push(member);
    }
    let with_weight = |((priority, locality), members): ((u32, Locality), Vec<Member<'a>>)| {
        let weight = members.iter().fold(0, |sum: u32, m| sum.saturating_add(m.weight));
        Group { priority, locality, weight, members }
    };
    groups.into_iter().map(with_weight).collect()
}

/// Priorities without gaps, and groups in their order.
fn compact(mut groups: Vec<Group>) -> Vec<Group> {
    let used: BTreeSet<u32> = groups.iter().map(|g| g.priority).collect();
    for group in &mut groups {
        group.priority = used.range(..group.priority).count() as u32;
    }
    groups.sort_by(|a, b| (a.priority, &a.locality).cmp(&(b.priority, &b.locality)));
    groups
}

/// The first rule for the caller's locality.
fn distribution<'a>(setting: &'a LocalityLb, own: &Locality) -> Option<&'a BTreeMap<Arc<str>, u32>> {
    setting.distribute.iter().find(|d| own.matches(&d.from)).map(|d| &d.to)
}

/// Localities of one pattern share its weight by their members, rounded up: a group never gets 0, which Envoy refuses.
fn distribute<'a>(
    mut groups: Vec<Group<'a>>,
    to: &BTreeMap<Arc<str>, u32>,
) -> (Vec<Group<'a>>, Vec<Member<'a>>) {
    let mut given = Vec::new();
    for (pattern, share) in to.iter().filter(|(_, share)| **share > 0) {
        let (matching, rest): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|g| g.locality.matches(pattern));
        groups = rest;
        let total: u64 = matching.iter().map(|g| u64::from(g.weight)).sum();
        given.extend(matching.into_iter().map(|group| {
            let weight = (u64::from(group.weight) * u64::from(*share)).div_ceil(total.max(1));
            Group { weight: u32::try_from(weight).unwrap_or(u32::MAX).max(1), ..group }
        }));
    }
    let left = groups.into_iter().flat_map(|g| g.members).collect();
    (compact(given), left)
}
