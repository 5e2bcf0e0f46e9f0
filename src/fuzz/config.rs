//! Configurations.

use crate::config::Config;
use crate::registry::fuzz::is_short;

/// The first byte says which format: `t`, `y` or else JSON.
pub(super) fn document(data: &[u8]) -> bool {
    let Some((first, text)) = data.split_first() else {
        return false;
    };
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let read = match first {
        b't' => Config::from_toml(text),
        b'y' => Config::from_yaml(text),
        _ => Config::from_json(text),
    };
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            is_short(&error);
            return false;
        }
    };
    // Numbers above 2^63 are none of TOML's.
    if let Ok(written) = config.to_toml() {
        // A secret is written as hidden, which is not read again.
        let is_hidden = written.contains("(hidden)");
        match Config::from_toml(&written) {
            Ok(again) => assert!(is_hidden || again == config, "{written}"),
            Err(error) => assert!(is_hidden, "{error}: {written}"),
        }
    }
    // Nothing is opened by these two; what they refuse, they refuse shortly.
    for refused in [config.builder().err(), config.settings().err()] {
        refused.iter().for_each(is_short);
    }
    true
}
