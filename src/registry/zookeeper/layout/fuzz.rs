//! Data of nodes.

use super::{node_name, read, write};
use crate::registry::fuzz::is_short;

pub(crate) fn node(data: &[u8]) -> bool {
    let service = "users".parse().expect("it is a name");
    match read("node", data) {
        Ok(endpoint) => {
            let name = node_name(endpoint.id().as_str());
            assert!(!name.contains('/') && !matches!(&*name, "" | "." | ".."));
            // Others' nodes may be what cannot be entered.
            if let Ok(again) = write(&service, &endpoint) {
                let again = read("node", &again);
                assert_eq!(again.as_ref().ok(), Some(&endpoint), "{again:?}");
            }
            true
        }
        Err(error) => {
            is_short(&error);
            false
        }
    }
}
