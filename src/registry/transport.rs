//! Connections to a registry's servers: which URLs are taken, how TCP is set up,
//! and why there was no answer.

use std::error::Error as StdError;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;

use crate::error::Error;

/// Where servers are: scheme, authority, and a path before every other, without
/// the slash at its end.
pub(super) fn checked_urls(urls: &[String]) -> Result<Vec<String>, Error> {
    urls.iter().map(|url| checked_url(url)).collect()
}

fn checked_url(url: &str) -> Result<String, Error> {
    // A URL may hold a password; what is refused is not repeated then.
    let refused = |reason: &str| {
        let shown = if url.contains('@') { "(hidden)" } else { url };
        Err(Error::invalid("url", shown, reason))
    };
    let Ok(uri) = url.parse::<Uri>() else {
        return refused("it is no URL; write `http://host:port`");
    };
    let Some(scheme @ ("http" | "https")) = uri.scheme_str() else {
        return refused("it must begin with `http://` or `https://`");
    };
    if uri.host().is_none_or(str::is_empty) {
        return refused("it has no host; write `http://host:port`");
    }
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return refused("a user or password in it would end up in logs; give a token instead");
    }
    // What is no port would be taken for none, and 80 be asked.
    let port = uri.authority().map_or("", |authority| authority.as_str());
    let port = port[uri.host().map_or(0, str::len)..].strip_prefix(':');
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return refused("its port is not a number from 1 to 65535");
    }
    // What follows `#` would hide the path.
    if uri.query().is_some() || url.contains('#') {
        return refused("it has a query or a `#`; give the parts of it as settings");
    }
    // Capitals in the scheme count for nothing, also for who looks at it.
    let rest = &url[scheme.len()..];
    Ok(format!("{scheme}{}", rest.trim_end_matches('/')))
}

/// TCP that notices a server which is gone.
pub(super) fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    // A host that vanished is noticed in the middle of a long wait: after
    // 15 s of silence it is asked three times, every 5 s.
    connector.set_keepalive(Some(Duration::from_secs(15)));
    connector.set_keepalive_interval(Some(Duration::from_secs(5)));
    connector.set_keepalive_retries(Some(3));
    connector
}

/// An error and what caused it in one line, each text once.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let this = error.to_string();
        if !text.ends_with(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_with_the_reason_and_without_its_password() {
        for (bad, why) in [
            ("127.0.0.1:8500", "http://"),
            ("ftp://a", "http://"),
            ("http://", "URL"),
            ("http://a?b=c", "query"),
            ("http://a:80#b", "`#`"),
            ("http://a:99999", "port"),
            ("http://a:0", "port"),
            ("http://a:", "port"),
            ("http://[::1]:99999/b", "port"),
            ("http://me:secret@a:80", "password"),
        ] {
            let error = checked_url(bad).unwrap_err();
            assert!(error.is_invalid());
            let text = error.to_string();
            assert!(text.contains(why) && !text.contains("secret"), "{text}");
        }
        for (good, taken) in [
            ("http://a:1/consul/", "http://a:1/consul"),
            ("HTTPS://a", "https://a"),
            ("http://[::1]:8500", "http://[::1]:8500"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(checked_url(good).unwrap(), taken);
        }
    }
}
