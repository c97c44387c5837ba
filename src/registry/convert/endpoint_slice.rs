//! EndpointSlice.

use std::{fmt, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    strings::Strings,
    wire::{Flag, Int, Str, or_empty},
};
use crate::model::{
    ObjectKey,
    endpoint::Health,
    kubernetes::{EndpointSlice, SliceEndpoint, SlicePort, SliceRows},
};

/// Borrowed from the JSON: slices are most of what a registry reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire<'a> {
    #[serde(borrow)]
    pub metadata: WireMeta<'a>,
    #[serde(borrow)]
    address_type: Option<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_empty")]
    endpoints: Vec<WireEndpoint<'a>>,
    #[serde(borrow, deserialize_with = "or_empty")]
    ports: Vec<Port<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WireMeta<'a> {
    #[serde(borrow)]
    pub name: Option<Str<'a>>,
    #[serde(borrow)]
    pub namespace: Option<Str<'a>>,
    #[serde(borrow)]
    pub resource_version: Option<Str<'a>>,
    #[serde(borrow)]
    labels: Option<SliceLabels<'a>>,
}

/// The two labels that are read.
#[derive(Debug, Default)]
struct SliceLabels<'a> {
    service: Option<Str<'a>>,
    imported: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireEndpoint<'a> {
    #[serde(borrow, deserialize_with = "or_empty")]
    addresses: Vec<Str<'a>>,
    conditions: Conditions,
    #[serde(borrow)]
    target_ref: Option<TargetRef<'a>>,
    #[serde(borrow)]
    node_name: Option<Str<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<Flag>,
    serving: Option<Flag>,
    terminating: Option<Flag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef<'a> {
    #[serde(borrow)]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    name: Option<Str<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    port: Option<Int>,
}

impl<'de: 'a, 'a> Deserialize<'de> for SliceLabels<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Labels;

        impl<'de> Visitor<'de> for Labels {
            type Value = SliceLabels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut labels = SliceLabels::default();
                while let Some(name) = map.next_key::<Str>()? {
                    match &*name {
                        "kubernetes.io/service-name" => labels.service = Some(map.next_value()?),
                        "multicluster.kubernetes.io/service-name" => {
                            labels.imported = true;
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(labels)
            }
        }

        d.deserialize_map(Labels)
    }
}

/// Passes over slices that Istio passes over: those of no service, of multi-cluster service imports, of DNS names.
pub fn convert(
    key: &ObjectKey,
    wire: Wire,
    strings: &mut Strings,
    warnings: &mut Warnings,
) -> Result<Option<EndpointSlice>> {
    let labels = wire.metadata.labels.unwrap_or_default();
    let Some(service) = labels.service.filter(|name| !name.is_empty() && !labels.imported) else {
        return Ok(None);
    };
    if wire.address_type.as_deref() == Some("FQDN") {
        warnings.push(Finding::new(
            "addressType",
            "slices of DNS names are passed over, by Istio as well",
            "write IP addresses with addressType IPv4 or IPv6, or use an ExternalName Service",
        ));
        return Ok(None);
    }
    let mut ports = Vec::new();
    for (i, port) in wire.ports.into_iter().enumerate() {
        let Some(number) = port.port else { continue };
        let number = check::port(&format!("ports[{i}].port"), number)?;
        let port = SlicePort { name: strings.get(port.name.as_deref().unwrap_or_default()), number };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let endpoints =
        wire.endpoints.iter().enumerate().map(|(i, endpoint)| convert_endpoint(i, endpoint, strings));
    let endpoints = endpoints.collect::<Result<SliceRows>>()?;
    Ok(Some(EndpointSlice {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        service: strings.get(&service),
        ports: ports.into(),
        endpoints,
    }))
}

fn convert_endpoint<'a>(
    i: usize,
    wire: &'a WireEndpoint<'a>,
    strings: &mut Strings,
) -> Result<SliceEndpoint<'a>> {
    let mut addresses = wire.addresses.iter().enumerate().map(|(a, text)| -> Result<IpAddr> {
        text.parse().or_else(|_| check::ip(&format!("endpoints[{i}].addresses[{a}]"), text))
    });
    let Some(address) = addresses.next().transpose()? else {
        let field = format!("endpoints[{i}].addresses");
        return Err(Invalid::new(field, "is empty", "write the pod's address, or remove the endpoint"));
    };
    addresses.try_for_each(|further| further.map(drop))?;
    let Conditions { ready, serving, terminating } = wire.conditions;
    let ready = ready.is_none_or(|f| f.0);
    let serving = serving.map_or(ready, |f| f.0);
    let node = wire.node_name.as_deref().filter(|name| !name.is_empty());
    let pod = wire.target_ref.as_ref().filter(|r| r.kind.as_deref() == Some("Pod"));
    let pod = pod.and_then(|r| r.name.as_deref()).filter(|name| !name.is_empty());
    Ok(SliceEndpoint {
        address,
        health: Health::of(ready, serving, terminating.is_some_and(|f| f.0)),
        node: node.map(|name| strings.get(name)),
        pod: pod.map(Into::into),
    })
}
