//! What names things: addresses and SPIFFE IDs.

use crate::client::tls::{SpiffeId, SpiffeMatch};
use crate::endpoint::{Address, Endpoint};
use crate::registry::fuzz::is_short;

pub(super) fn address(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else {
        return false;
    };
    match text.parse::<Address>() {
        Ok(address) => {
            let again = address.as_str().parse::<Address>();
            assert_eq!(again.as_ref().ok(), Some(&address), "{again:?}");
            let endpoint = Endpoint::at(address.as_str()).expect("its address is good");
            assert_eq!(endpoint.address(), &address);
            assert!(address.host().is_some() == address.port().is_some());
            true
        }
        Err(error) => {
            is_short(&error);
            false
        }
    }
}

pub(super) fn spiffe(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else {
        return false;
    };
    match text.parse::<SpiffeId>() {
        Ok(id) => {
            assert_eq!(id.as_str(), text, "an ID is taken as it is");
            assert!(SpiffeMatch::exact(text).is_ok_and(|only| only.matches(&id)));
            let below = SpiffeMatch::below(text).expect("it is an ID");
            assert!(!below.matches(&id), "nothing is below itself");
            if let Ok(child) = format!("{text}/a").parse() {
                assert!(below.matches(&child), "{text}");
            }
            true
        }
        Err(error) => {
            is_short(&error);
            false
        }
    }
}
