//! Which services are on a port, by what they share there.

use std::{collections::BTreeMap, sync::Arc};

use super::{Delta, Index, Scope};
use crate::model::{
    port::{ListenerClass, Protocol},
    service::{ExportTo, Port, Resolution, Service, ServiceKey},
};

/// The services with a port of one number.
#[derive(Debug, Default)]
pub struct OnPort {
    /// HTTP and nothing else: to the port's listener one is as good as another.
    http: Services,
    /// They make a difference to the port's listener: gRPC-Web, or bytes for any address.
    special: Services,
    /// All others, which have listeners of their own or none.
    own: Services,
}

/// As they are now, so that nobody has to look for them.
type Services = BTreeMap<ServiceKey, Arc<Service>>;

impl OnPort {
    fn group_of(&mut self, service: &Service, port: &Port) -> &mut Services {
        let http = port.protocol.listener_class() == ListenerClass::Http;
        // Which of its addresses a client sees depends on the client's cluster.
        let addressed = !service.vips.is_empty()
            && service.vips.values().all(|ips| ips.iter().any(|ip| !ip.is_unspecified()));
        match service.resolution {
            Resolution::Alias(_) => &mut self.own,
            _ if port.protocol == Protocol::GrpcWeb => &mut self.special,
            _ if http => &mut self.http,
            Resolution::ClientSide if !addressed => &mut self.special,
            Resolution::ClientSide | Resolution::Passthrough => &mut self.own,
        }
    }

    fn is_empty(&self) -> bool {
        self.http.is_empty() && self.special.is_empty() && self.own.is_empty()
    }
}

impl Index {
    /// Notes that a service with its ports came (or went), and records those on the same ports which that concerns.
    pub(super) fn count_ports(&mut self, service: Option<&Arc<Service>>, present: bool, delta: &mut Delta) {
        let Some(service) = service else { return };
        for port in &service.ports {
            let on_port = self.by_port.entry(port.number).or_default();
            let group = on_port.group_of(service, port);
            if present {
                group.insert(service.key.clone(), service.clone());
            } else {
                group.remove(&service.key);
            }
            if on_port.is_empty() {
                self.by_port.remove(&port.number);
            }
            delta.ports.insert(port.number);
            if is_http(service, port) && !self.has_public_http(port.number, &service.key) {
                // The port's table of routes comes or goes for somebody, and with it the hosts of sniffed services in it.
                let on_port = self.by_port.get(&port.number).into_iter();
                let others = on_port.flat_map(|p| p.special.keys().chain(p.own.keys()));
                delta.names.extend(others.cloned());
            }
        }
    }

    /// Whether a service other than `than` makes every client have a table of routes for this port.
    fn has_public_http(&self, port: u16, than: &ServiceKey) -> bool {
        let mut services = self.by_port.get(&port).into_iter().flat_map(|p| p.http.iter().chain(&p.special));
        services.any(|(key, service)| {
            let http = service.port(port).is_some_and(|p| is_http(service, p));
            key != than && service.export_to == ExportTo::Public && http
        })
    }

    /// The visible services with this port, oldest first: Istio decides conflicts between listeners by age.
    pub fn services_on_port(&self, scope: &Scope, port: u16) -> Vec<&Service> {
        let on_port = self.by_port.get(&port).into_iter();
        let groups = on_port.flat_map(|p| [&p.http, &p.special, &p.own]);
        self.by_age(scope, groups.flat_map(BTreeMap::values))
    }

    /// A visible service that is HTTP and nothing else on this port, if there is one.
    pub fn http_on_port(&self, scope: &Scope, port: u16) -> Option<&Service> {
        let mut services = self.by_port.get(&port)?.http.values();
        services.find(|s| self.sees(scope, s)).map(|s| &**s)
    }

    /// The visible services that make a difference to the port's listener, oldest first: gRPC-Web, or bytes for any
    /// address.
    pub fn special_on_port(&self, scope: &Scope, port: u16) -> Vec<&Service> {
        self.by_age(scope, self.by_port.get(&port).into_iter().flat_map(|p| p.special.values()))
    }

    /// Every port of every service.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }

    /// Those of these services that are visible, oldest first.
    pub(super) fn by_age<'a>(
        &self,
        scope: &Scope,
        services: impl Iterator<Item = &'a Arc<Service>>,
    ) -> Vec<&'a Service> {
        let mut found: Vec<_> = services.map(|s| &**s).filter(|s| self.sees(scope, s)).collect();
        found.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
        found
    }
}

fn is_http(service: &Service, port: &Port) -> bool {
    !matches!(service.resolution, Resolution::Alias(_))
        && port.protocol.listener_class() == ListenerClass::Http
}
