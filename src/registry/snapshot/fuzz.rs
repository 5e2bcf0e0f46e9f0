//! Whole snapshots.

use super::{MAGIC, checksum, content_of, parse};
use crate::registry::fuzz::is_short;

/// As it is, and as the body behind a first line that is right.
pub(crate) fn content(data: &[u8]) -> bool {
    let service = "users".parse().expect("it is a name");
    let mut signed = format!("{MAGIC} {}\n", checksum(data)).into_bytes();
    signed.extend_from_slice(data);
    let mut is_taken = false;
    for content in [data, &signed] {
        match parse(content, &service) {
            Ok(set) => {
                is_taken = true;
                let written = content_of(&service, &set).expect("a set can be written");
                let again = parse(&written, &service);
                assert_eq!(again.as_ref().ok(), Some(&set), "{again:?}");
            }
            Err(reason) => is_short(&reason),
        }
    }
    is_taken
}
