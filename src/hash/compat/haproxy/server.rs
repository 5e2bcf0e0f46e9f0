//! Servers, and the numbers that their points are made from.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::super::super::TableError;
use super::super::xxhash::xxh32;
use super::hash::avalanche;
use super::{MAX_WEIGHT, POINTS};

/// How far apart the ids of two servers are, in points: as many as the heaviest has.
const ID_STRIDE: u32 = MAX_WEIGHT * POINTS;

/// What `hash-key` says: where the points of a server come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HaproxyHashKey {
    /// `id`, the default: the server's number.
    #[default]
    Id,
    /// `id` in the releases of HAProxy 3.0, 3.1 and 3.2 before October 2025, which by mistake hashed
    /// it twice ("lb-chash: fix key calculation when using default hash-key id").
    IdHashedTwice,
    /// `addr`: its IP address; the id if it has none.
    Addr,
    /// `addr-port`: its IP address and port; the id if it has none.
    AddrPort,
}

/// A line `server` of HAProxy's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaproxyServer {
    pub(super) name: String,
    pub(super) weight: u32,
    id: u32,
}

impl HaproxyServer {
    /// A server at an address, `10.0.0.1:80` or `[2001:db8::1]:80`, of weight 1.
    ///
    /// What is no IP address has its points from its id.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            name: address.into(),
            weight: 1,
            id: 0,
        }
    }

    /// Its `weight`, from 0 to 256.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Its `id`. 0, the default, means the lowest that is free.
    #[must_use]
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }
}

impl<S: AsRef<str>> From<(S, u32)> for HaproxyServer {
    fn from((address, weight): (S, u32)) -> Self {
        Self::new(address.as_ref()).weight(weight)
    }
}

impl HaproxyHashKey {
    /// What the numbers of a server's points are added to.
    pub(super) fn base(self, name: &str, id: u32) -> u32 {
        let by_id = id.wrapping_mul(ID_STRIDE);
        let (ip, port) = match (self, address_of(name)) {
            (Self::IdHashedTwice, _) => return avalanche(id),
            (Self::Id, _) | (_, None) => return by_id,
            (Self::Addr, Some((ip, _))) => (ip, 0),
            (Self::AddrPort, Some((ip, port))) => (ip, avalanche(port.into())),
        };
        match ip {
            // HAProxy adds up the bytes as they lie in memory, which is backwards on these machines.
            IpAddr::V4(ip) => avalanche(port.wrapping_add(u32::from_le_bytes(ip.octets()))),
            IpAddr::V6(ip) => xxh32(&ip.octets(), port),
        }
    }
}

/// A server without a port has port 0: HAProxy connects to the client's then.
fn address_of(name: &str) -> Option<(IpAddr, u16)> {
    match name.parse::<SocketAddr>() {
        Ok(address) => Some((address.ip(), address.port())),
        Err(_) => name.parse().ok().map(|ip| (ip, 0)),
    }
}

/// The ids that are set, and for the others the lowest that is free from their position on.
pub(super) fn ids_of(servers: &[HaproxyServer]) -> Result<Vec<u32>, TableError> {
    let mut taken = HashSet::with_capacity(servers.len());
    for server in servers.iter().filter(|server| server.id != 0) {
        if !taken.insert(server.id) {
            let name = format!("id {}", server.id);
            return Err(TableError::DuplicateNode { name });
        }
    }
    let mut next = 0;
    let free = |server: &HaproxyServer| {
        next += 1;
        if server.id != 0 {
            return server.id;
        }
        while !taken.insert(next) {
            next += 1;
        }
        next
    };
    Ok(servers.iter().map(free).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fill_the_gaps_as_haproxy_fills_them() {
        let ids = |ids: &[u32]| {
            let servers: Vec<_> = ids
                .iter()
                .map(|&id| HaproxyServer::new("a").id(id))
                .collect();
            ids_of(&servers)
        };
        assert_eq!(ids(&[0, 0, 0]), Ok(vec![1, 2, 3]));
        assert_eq!(ids(&[7, 0, 1, 0]), Ok(vec![7, 2, 1, 4]));
        assert_eq!(ids(&[0, 1, 0]), Ok(vec![2, 1, 4]));
        assert!(matches!(
            ids(&[5, 5]),
            Err(TableError::DuplicateNode { .. })
        ));
    }

    #[test]
    fn only_addresses_are_hashed_by_address() {
        assert_eq!(address_of("10.0.0.1:80"), Some(([10, 0, 0, 1].into(), 80)));
        assert_eq!(address_of("10.0.0.1"), Some(([10, 0, 0, 1].into(), 0)));
        assert_eq!(address_of("[::1]:80").map(|(_, port)| port), Some(80));
        assert_eq!(address_of("cache-1:80"), None);
        assert_eq!(address_of(""), None);
    }
}
