//! Addresses that nobody should be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Address, Endpoint};
use crate::error::Error;

/// Which addresses calls may go to, whatever a registry says: one that was
/// poisoned must not turn a client against its own host or its cloud's metadata
/// service.
///
/// Refused are link-local, multicast, broadcast and unspecified addresses
/// (IPv4-mapped IPv6 included), the metadata services of the large clouds, and
/// the names they have; loopback is refused when asked. Other notations of an IPv4
/// address, which only resolvers understand (`0x7f.1`), are no [`Address`] at all.
/// What a host name resolves to later is not seen here.
///
/// ```
/// use waypost::endpoint::AddressPolicy;
///
/// let policy = AddressPolicy::default();
/// assert!(policy.allows(&"10.0.0.1:80".parse()?));
/// assert!(!policy.allows(&"169.254.169.254:80".parse()?));
/// assert!(!policy.allows(&"[fe80::1]:80".parse()?));
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    no_loopback: bool,
}

/// Of AWS over IPv6, and of Alibaba Cloud; the others' is link-local.
const METADATA: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

const METADATA_NAMES: [&str; 4] = [
    "metadata",
    "metadata.google.internal",
    "instance-data",
    "instance-data.ec2.internal",
];

impl AddressPolicy {
    /// Refuses loopback addresses, `localhost` and Unix sockets too.
    #[must_use]
    pub const fn without_loopback(mut self) -> Self {
        self.no_loopback = true;
        self
    }

    /// Whether calls may go there.
    #[must_use]
    pub fn allows(self, address: &Address) -> bool {
        if let Some(addr) = address.socket_addr() {
            return self.allows_ip(addr.ip());
        }
        let Some(host) = address.host() else {
            return !self.no_loopback;
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let local = host == "localhost" || host.ends_with(".localhost");
        let refused = METADATA_NAMES.contains(&host.as_str()) || self.no_loopback && local;
        !refused
    }

    /// Why the endpoint may not be called, if it may not.
    pub(crate) fn refusal(self, endpoint: &Endpoint) -> Option<Error> {
        let reason = "the address policy refuses its address";
        (!self.allows(endpoint.address())).then(|| Error::unroutable(endpoint, reason))
    }

    fn allows_ip(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let reserved = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let loopback = self.no_loopback && ip.is_loopback();
        !(reserved
            || loopback
            || ip.is_multicast()
            || ip.is_unspecified()
            || METADATA.contains(&ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_should_not_be_called_is_refused_in_every_notation() {
        let policy = AddressPolicy::default();
        let strict = policy.without_loopback();
        for (address, allowed, strictly) in [
            ("10.0.0.1:80", true, true),
            ("192.168.1.1:80", true, true),
            ("[2001:db8::1]:80", true, true),
            ("users.internal:80", true, true),
            ("127.0.0.1:80", true, false),
            ("[::1]:80", true, false),
            ("[::ffff:127.0.0.1]:80", true, false),
            ("localhost:80", true, false),
            ("unix:/run/users.sock", true, false),
            ("169.254.169.254:80", false, false),
            ("169.254.0.1:80", false, false),
            ("[::ffff:169.254.169.254]:80", false, false),
            ("[fe80::1]:80", false, false),
            ("[fd00:ec2::254]:80", false, false),
            ("100.100.100.200:80", false, false),
            ("0.0.0.0:80", false, false),
            ("255.255.255.255:80", false, false),
            ("224.0.0.1:80", false, false),
            ("[ff02::1]:80", false, false),
            ("metadata.google.internal:80", false, false),
            ("Metadata.Google.Internal:80", false, false),
        ] {
            let address = address.parse().expect("it is an address");
            assert_eq!(policy.allows(&address), allowed, "{address}");
            assert_eq!(strict.allows(&address), strictly, "{address}");
        }
    }
}
