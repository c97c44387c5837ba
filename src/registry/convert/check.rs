//! Single values checked and turned into what the model holds, with words for what is wrong.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    finding::{Finding, Invalid, Result, Warnings},
    wire::{Int, Span},
};

/// Longest duration that is believed: more is a mistake of units.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A port number.
pub fn port(field: &str, value: Int) -> Result<u16> {
    u16::try_from(value.0).ok().filter(|&p| p > 0).ok_or_else(|| {
        Invalid::new(field, format!("{} is no port", value.0), "write a number from 1 to 65535".to_owned())
    })
}

/// A limit of which 0 means "not set", as Istio reads its int32 fields.
pub fn limit(field: &str, value: Option<Int>) -> Result<Option<u32>> {
    Ok(number(field, value)?.filter(|&n| n > 0))
}

/// A number of which 0 has a meaning of its own.
pub fn number(field: &str, value: Option<Int>) -> Result<Option<u32>> {
    let Some(value) = value else { return Ok(None) };
    match u32::try_from(value.0) {
        Ok(n) => Ok(Some(n)),
        Err(_) => Err(Invalid::new(
            field,
            format!("{} is out of range", value.0),
            format!("write a number from 0 to {}", u32::MAX),
        )),
    }
}

/// Per cent; 0 means "not set", as Istio reads it.
pub fn percent(field: &str, value: Option<Int>) -> Result<Option<u32>> {
    match limit(field, value)? {
        Some(n) if n > 100 => {
            Err(Invalid::new(field, format!("{n} is more than all"), "write a per cent value from 0 to 100"))
        }
        other => Ok(other),
    }
}

/// A duration in Go's spelling. A number without a unit is taken as seconds, with a warning: Istio refuses it.
pub fn duration(field: &str, value: &Span, warnings: &mut Warnings) -> Result<Duration> {
    let (parsed, unitless) = match value {
        Span::Number(n) => (seconds(*n), Some(n.to_string())),
        Span::Text(text) => match text.trim().parse::<f64>() {
            Ok(n) => (seconds(n), (n != 0.0).then(|| text.trim().to_owned())),
            Err(_) => (go_duration(text.trim()), None),
        },
    };
    let written = match value {
        Span::Number(n) => n.to_string(),
        Span::Text(text) => text.to_string(),
    };
    let parsed = parsed.filter(|d| *d <= LONGEST).ok_or_else(|| {
        Invalid::new(
            field,
            format!("{written:?} is no duration"),
            "write a number with a unit, e.g. 30s, 500ms or 5m",
        )
    })?;
    if let Some(number) = unitless {
        warnings.push(Finding::new(
            field,
            format!("{number} has no unit; it is taken as {number}s. Istio refuses the object for it"),
            format!("write {number}s"),
        ));
    }
    Ok(parsed)
}

/// An optional duration of at least a millisecond.
pub fn some_duration(field: &str, value: Option<&Span>, warnings: &mut Warnings) -> Result<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let parsed = duration(field, value, warnings)?;
    if parsed < Duration::from_millis(1) {
        return Err(Invalid::new(
            field,
            "less than a millisecond",
            "write at least 1ms, or leave the field out",
        ));
    }
    Ok(Some(parsed))
}

fn seconds(n: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(n).ok()
}

/// `1h30m`, `1.5s`, `300ms`: Istio's API accepts what Go's `time.ParseDuration` does. Negative ones are refused.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[end..];
        sum = sum.checked_add(seconds(number * unit)?)?;
    }
    Some(sum)
}

/// An IP address.
pub fn ip(field: &str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| {
        Invalid::new(
            field,
            format!("{text:?} is no IP address"),
            "write an IPv4 or IPv6 address, e.g. 10.0.0.1",
        )
    })
}

/// One of a fixed set of words; the nearest is named when it is none of them.
pub fn choice<T: Copy>(field: &str, text: &str, words: &[(&str, T)]) -> Result<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let names = words.iter().map(|(word, _)| *word);
        let remedy = match nearest(text, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                format!("write one of {}", names.filter(|n| !n.is_empty()).collect::<Vec<_>>().join(", "))
            }
        };
        Invalid::new(field, format!("{text:?} is unknown"), remedy)
    })
}

/// A name as Kubernetes allows it: it becomes part of resource names, so nothing else may get in.
pub fn dns_name(field: &str, text: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !text.is_empty() && text.len() <= 253 && text.chars().all(fine) && !text.starts_with(['-', '.']) {
        return Ok(());
    }
    let remedy = "write lower-case letters, digits, '-' and '.', at most 253 of them";
    Err(Invalid::new(field, format!("{text:?} is no name that Kubernetes accepts"), remedy))
}

/// A host name, which may start with a wildcard.
pub fn host(field: &str, text: &str) -> Result<Arc<str>> {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    if text == "*" || (!rest.contains('*') && dns_name(field, &rest.to_ascii_lowercase()).is_ok()) {
        return Ok(text.to_ascii_lowercase().into());
    }
    let remedy = "write a DNS name; a wildcard may only be its first label, e.g. *.example.com";
    Err(Invalid::new(field, format!("{text:?} is no host name"), remedy))
}

/// The word closest to `text`, if one is close.
pub fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_uppercase();
    words
        .filter(|word| !word.is_empty())
        .map(|word| (distance(&text, &word.to_ascii_uppercase()), word))
        .filter(|(d, word)| *d <= word.len().div_ceil(3))
        .min_by_key(|(d, _)| *d)
        .map(|(_, word)| word)
}

/// Levenshtein's distance over bytes, of the first 64 of each.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], &b.as_bytes()[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}
