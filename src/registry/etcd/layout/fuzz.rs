//! Values of entries.

use super::Layout;
use crate::registry::fuzz::is_short;

/// In both layouts.
pub(crate) fn value(data: &[u8]) -> bool {
    let mut is_taken = false;
    for layout in [Layout::Grpc, Layout::Plain] {
        match layout.read("id", data) {
            Ok(endpoint) => {
                is_taken = true;
                // Others' entries may be what cannot be entered.
                if let Ok(again) = layout.write(&endpoint) {
                    let again = layout.read("id", &again);
                    assert_eq!(again.as_ref().ok(), Some(&endpoint), "{again:?}");
                }
            }
            Err(error) => is_short(&error),
        }
    }
    is_taken
}
