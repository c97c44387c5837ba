//! The endpoints in an assignment: addresses and health, to be held against the truth.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Fields, Malformed, Value, read::text};

/// An endpoint with an IPv4 address. `healthy` is what a proxy makes of its health status without health checks of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: SocketAddrV4,
    pub healthy: bool,
}

/// All endpoints of a `ClusterLoadAssignment`.
pub fn of_assignment(body: &[u8], mut each: impl FnMut(Endpoint)) -> Result<(), Malformed> {
    Fields(body).each_bytes(|field, locality| match field {
        2 => Fields(locality).each_bytes(|field, endpoint| match field {
            2 => of_endpoint(endpoint, &mut each),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

/// The endpoint of an `LbEndpoint`. Others than IPv4 sockets are passed over.
pub fn of_endpoint(body: &[u8], each: &mut impl FnMut(Endpoint)) -> Result<(), Malformed> {
    // UNKNOWN and HEALTHY.
    const GOOD: [u64; 2] = [0, 1];
    let (mut socket, mut health) = (None, 0);
    for field in Fields(body) {
        match field? {
            (1, Value::Bytes(endpoint)) => {
                let address = Fields(endpoint).bytes(1)?.unwrap_or_default();
                socket = Fields(address).bytes(1)?;
            }
            (2, Value::Varint(value)) => health = value,
            _ => {}
        }
    }
    let Some(socket) = socket else { return Ok(()) };
    let (mut address, mut port) = (None, 0);
    for field in Fields(socket) {
        match field? {
            (2, Value::Bytes(bytes)) => address = text(bytes)?.parse::<Ipv4Addr>().ok(),
            (3, Value::Varint(value)) => port = u16::try_from(value).map_err(|_| Malformed)?,
            _ => {}
        }
    }
    if let Some(address) = address {
        each(Endpoint { address: SocketAddrV4::new(address, port), healthy: GOOD.contains(&health) });
    }
    Ok(())
}
