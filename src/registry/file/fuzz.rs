//! Whole files.

use std::collections::BTreeMap;

use super::parse::parse;
use crate::format::Format;
use crate::registry::fuzz::is_short;

/// The first byte says which format: `t`, `y` or else JSON.
pub(crate) fn document(data: &[u8]) -> bool {
    let Some((first, text)) = data.split_first() else {
        return false;
    };
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let format = match first {
        b't' => Format::Toml,
        b'y' => Format::Yaml,
        _ => Format::Json,
    };
    match parse(format, text) {
        Ok(services) => {
            let document = BTreeMap::from([("services", &services)]);
            let written = serde_json::to_string(&document).expect("a map with texts as keys");
            assert_eq!(parse(Format::Json, &written).as_ref(), Ok(&services));
            true
        }
        Err(reason) => {
            is_short(&reason);
            false
        }
    }
}
