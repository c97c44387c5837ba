//! Listeners.

pub mod chain;
pub mod gateway;
pub mod http;
pub mod inbound;
mod inspect;
pub mod outbound;

use landbridge_proto::envoy::config::{core::v3::TrafficDirection, listener::v3::Listener};

use super::{access_log::listener_access_log, proto::address};
use crate::model::{mesh::MeshConfig, node::Interception};

/// All addresses; captured traffic keeps the address that it was sent to.
pub const WILDCARD: &str = "0.0.0.0";
/// Where an application finds its proxy when nothing is captured.
pub const LOOPBACK: &str = "127.0.0.1";
/// Of the agent's health and statistics pages.
const AGENT_PORTS: [u16; 2] = [15021, 15090];

/// A listener's name, from where it listens.
pub fn listener_name(ip: &str, port: u16) -> String {
    format!("{ip}_{port}")
}

/// Ports on which a listener for everything would be in the proxy's own way.
fn reserved(mesh: &MeshConfig, port: u16) -> bool {
    AGENT_PORTS.contains(&port) || port == mesh.outbound_port || port == mesh.inbound_port
}

/// A listener with a name, an address and the mesh's log of refused connections.
fn listener(mesh: &MeshConfig, name: String, ip: &str, port: u16, direction: TrafficDirection) -> Listener {
    Listener {
        name,
        address: Some(address(ip, port)),
        traffic_direction: direction.into(),
        access_log: listener_access_log(mesh),
        ..Default::default()
    }
}

/// For the two listeners that take captured traffic. One connection per event keeps Envoy's workers evenly loaded.
fn capturing(mut listener: Listener, interception: Interception) -> Listener {
    listener.max_connections_to_accept_per_socket_event = Some(1);
    if interception == Interception::Tproxy {
        listener.transparent = Some(true);
    }
    listener
}
