//! Groups, priorities and weights by locality; members of clusters that are away, and gateways that are dead, come after
//! all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::member::{Cohort, Member, Members};
use crate::model::{
    Labels, destination_rule::LocalityLb, locality::Locality, staleness::Treatment, workload::NETWORK_LABEL,
};

/// How many priorities a locality can have beside a `failoverPriority`: same zone and subzone, same zone, same region, the
/// region that `failover` names, anywhere.
const LOCALITY_PRIORITIES: u32 = 5;

/// Members of one locality and priority.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// Its members are of clusters that are away, or gateways that are dead, and others are to be used first.
    pub late: bool,
    /// 0 is used first; without gaps.
    pub priority: u32,
    /// Where they are.
    pub locality: &'a Locality,
    /// The group's share among those of its priority; the sum of its members', or what `distribute` says.
    pub weight: u32,
    /// At least one.
    pub members: Vec<Member<'a>>,
}

/// Members in their groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arranged<'a> {
    /// What members refer to.
    pub cohorts: Vec<Cohort<'a>>,
    /// By priority, then locality.
    pub groups: Vec<Group<'a>>,
    /// Members that `distribute` gives nothing.
    pub left: Vec<Member<'a>>,
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
    members: Members<'a>,
    caller: Caller,
    setting: Option<&LocalityLb>,
    fails_over: bool,
) -> Arranged<'a> {
    let Members { cohorts, list } = members;
    let distribution = setting.and_then(|s| distribution(s, caller.locality));
    let (groups, left) = match (distribution, setting) {
        (Some(to), _) => distribute(group(&cohorts, list, |_| 0), to),
        (None, Some(setting)) if fails_over && setting.distribute.is_empty() => {
            (by_priority(&cohorts, list, caller, setting), Vec::new())
        }
        _ => (compact(group(&cohorts, list, |_| 0)), Vec::new()),
    };
    Arranged { cohorts, groups, left }
}

fn by_priority<'a>(
    cohorts: &[Cohort<'a>],
    members: Vec<Member<'a>>,
    caller: Caller,
    setting: &LocalityLb,
) -> Vec<Group<'a>> {
    if setting.failover_priority.is_empty() {
        return compact(group(cohorts, members, |c| by_locality(c.locality, caller.locality, setting)));
    }
    let by_label = |c: &Cohort| by_labels(c, caller.labels, &setting.failover_priority);
    let mut groups = compact(group(cohorts, members, by_label));
    if !setting.failover.is_empty() {
        for group in &mut groups {
            let within = by_locality(group.locality, caller.locality, setting);
            group.priority = group.priority * LOCALITY_PRIORITIES + within;
        }
        groups = compact(groups);
    }
    groups
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
/// value instead of the caller's. A label that is missing is an empty one.
///
/// If the network is the first of them, a mismatch only makes everything of other networks come later: what follows is
/// compared all the same.
fn by_labels(cohort: &Cohort, own: &Labels, order: &[Arc<str>]) -> u32 {
    let count = order.len() as u32;
    let mut priority = 0;
    for (i, entry) in order.iter().enumerate() {
        let (key, wanted) = match entry.split_once('=') {
            Some((key, value)) => (key, value),
            None => (&**entry, own.get(entry).map_or("", |value| value)),
        };
        if cohort.label(key).map_or("", |value| value) == wanted {
            continue;
        }
        if i > 0 || key != NETWORK_LABEL {
            return priority + count - i as u32;
        }
        priority = count;
    }
    priority
}

/// How many members there are, and their weights.
#[derive(Clone, Copy, Default)]
struct Sum {
    members: usize,
    weight: u64,
}

/// Members by lateness, priority and locality, in the order of these; each group's in the order in which they come.
fn group<'a>(
    cohorts: &[Cohort<'a>],
    members: Vec<Member<'a>>,
    priority: impl Fn(&Cohort) -> u32,
) -> Vec<Group<'a>> {
    let mut sums = vec![Sum::default(); cohorts.len()];
    for member in &members {
        let sum = &mut sums[member.cohort];
        sum.members += 1;
        sum.weight += u64::from(member.weight);
    }
    let mut by_key: BTreeMap<(bool, u32, &'a Locality), (Sum, Vec<usize>)> = BTreeMap::new();
    for (i, cohort) in cohorts.iter().enumerate().filter(|(i, _)| sums[*i].members > 0) {
        let late = cohort.treatment != Treatment::Keep;
        let (sum, of) = by_key.entry((late, priority(cohort), cohort.locality)).or_default();
        sum.members += sums[i].members;
        sum.weight += sums[i].weight;
        of.push(i);
    }
    let mut group_of = vec![0; cohorts.len()];
    let mut groups = Vec::with_capacity(by_key.len());
    let several = by_key.len() > 1;
    for ((late, priority, locality), (sum, of)) in by_key {
        of.into_iter().for_each(|cohort| group_of[cohort] = groups.len());
        let weight = u32::try_from(sum.weight).unwrap_or(u32::MAX);
        let members = Vec::with_capacity(if several { sum.members } else { 0 });
        groups.push(Group { late, priority, locality, weight, members });
    }
    match groups.as_mut_slice() {
        [one] => one.members = members,
        all => members.into_iter().for_each(|member| all[group_of[member.cohort]].members.push(member)),
    }
    groups
}

/// Priorities without gaps, and groups in their order.
fn compact(mut groups: Vec<Group>) -> Vec<Group> {
    let used: BTreeSet<(bool, u32)> = groups.iter().map(|g| (g.late, g.priority)).collect();
    for group in &mut groups {
        group.priority = used.range(..(group.late, group.priority)).count() as u32;
    }
    groups.sort_by(|a, b| (a.priority, a.locality).cmp(&(b.priority, b.locality)));
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
