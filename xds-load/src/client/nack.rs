//! Which responses a proxy refuses.

use std::str::FromStr;

use regex::Regex;

use crate::{
    expect::Type,
    wire::{self, discovery::Response},
};

/// A script of refusals.
#[derive(Clone, Debug, Default)]
pub enum Nack {
    /// None.
    #[default]
    Never,
    /// Every so many responses, all of one.
    Every(u32),
    /// Resources by their names, and all else in the response is taken, as Envoy does.
    Named(Option<Type>, Regex),
}

impl Nack {
    /// Whether this resource is refused, in the proxy's `count`-th response.
    pub fn refuses(&self, count: u32, kind: Type, name: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Every(every) => count.is_multiple_of(*every),
            Self::Named(only, names) => only.is_none_or(|only| only == kind) && names.is_match(name),
        }
    }

    /// What is said about a response, if anything in it is refused.
    pub fn verdict(&self, count: u32, kind: Type, response: &Response<'_>) -> Option<String> {
        let names = response.resources.iter().map(|resource| resource.name);
        let refused = names.filter(|name| self.refuses(count, kind, name)).take(5).collect::<Vec<_>>();
        (!refused.is_empty()).then(|| format!("refused by the script of xds-load: {}", refused.join(", ")))
    }
}

impl FromStr for Nack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HELP: &str = "give `every:100` (each hundredth response), or `cds:REGEX`, `eds:REGEX` ... or `any:REGEX` \
                            (resources by name)";
        let (first, rest) = text.split_once(':').ok_or_else(|| HELP.to_owned())?;
        if first == "every" {
            let every = rest.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| HELP.to_owned())?;
            return Ok(Self::Every(every));
        }
        let names =
            Regex::new(rest).map_err(|error| format!("{rest:?} is no regular expression: {error}"))?;
        match first {
            "any" => Ok(Self::Named(None, names)),
            kind => {
                let kind =
                    wire::from_short_name(kind).ok_or_else(|| format!("{kind:?} is no type; {HELP}"))?;
                Ok(Self::Named(Some(kind), names))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Nack;
    use crate::expect::Type;

    #[test]
    fn scripts_are_read_and_followed() {
        let every: Nack = "every:3".parse().unwrap();
        let seen: Vec<_> = (1..=6).map(|n| every.refuses(n, Type::Cluster, "a")).collect();
        assert_eq!(seen, [false, false, true, false, false, true]);
        let clusters: Nack = "cds:^outbound.*8080".parse().unwrap();
        assert!(clusters.refuses(1, Type::Cluster, "outbound|8080||a"));
        assert!(!clusters.refuses(1, Type::Endpoint, "outbound|8080||a"));
        assert!("any:x".parse::<Nack>().unwrap().refuses(1, Type::Route, "x"));
        for wrong in ["every:0", "every", "xds:a", "cds:("] {
            assert!(wrong.parse::<Nack>().is_err(), "{wrong}");
        }
    }
}
