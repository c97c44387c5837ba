//! Ports and the protocol that is spoken on them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is spoken on a service port, as Istio selects it from `appProtocol` or the port's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1, which may be upgraded.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, over HTTP/2.
    Grpc,
    /// gRPC-Web, over HTTP/2 upstream.
    GrpcWeb,
    /// HTTP through a forward proxy.
    HttpProxy,
    /// Opaque TCP.
    Tcp,
    /// TLS carrying HTTP, opaque to us.
    Https,
    /// TLS, opaque to us.
    Tls,
    /// MongoDB, treated as TCP.
    Mongo,
    /// MySQL, treated as TCP (the server speaks first).
    MySql,
    /// Redis, treated as TCP.
    Redis,
    /// Never proxied.
    Udp,
    /// Unknown: decided per connection by sniffing.
    Auto,
}

/// The three ways in which a listener can treat a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerClass {
    /// Routed by HTTP.
    Http,
    /// Forwarded as bytes.
    Tcp,
    /// Both, chosen by sniffing.
    Auto,
}

impl Protocol {
    /// Istio's selection (`pkg/config/kube/conversion.go`): the Kubernetes transport, then `appProtocol`, else the
    /// port's name, cut at the first `-`; some well-known ports are TCP because their servers speak first.
    pub fn select(transport: Transport, app_protocol: Option<&str>, name: &str, number: u16) -> Self {
        if transport == Transport::Udp {
            return Self::Udp;
        }
        let text = match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(p) => p,
            None => name,
        };
        let text = text.to_ascii_lowercase();
        if text.starts_with("grpc-web") {
            return Self::GrpcWeb;
        }
        match text.split('-').next().unwrap_or_default() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "http_proxy" => Self::HttpProxy,
            "tcp" => Self::Tcp,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "mongo" => Self::Mongo,
            "mysql" => Self::MySql,
            "redis" => Self::Redis,
            "udp" => Self::Udp,
            _ if matches!(number, 25 | 53 | 3306 | 27017) => Self::Tcp,
            _ => Self::Auto,
        }
    }

    /// How a listener treats the port.
    pub fn listener_class(self) -> ListenerClass {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy => ListenerClass::Http,
            Self::Auto => ListenerClass::Auto,
            _ => ListenerClass::Tcp,
        }
    }

    /// Whether the upstream is spoken to in HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

/// The Kubernetes transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// The default.
    #[default]
    Tcp,
    /// Ports that are never proxied.
    Udp,
}

/// The port of the pod that a service port leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port.
    Name(Arc<str>),
}
