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
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return refused("it must begin with `http://` or `https://`");
    }
    if uri.host().is_none_or(str::is_empty) {
        return refused("it has no host; write `http://host:port`");
    }
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return refused("a user or password in it would end up in logs; give a token instead");
    }
    if uri.query().is_some() {
        return refused("it has a query; give the parts of it as settings");
    }
    Ok(url.trim_end_matches('/').to_owned())
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
            ("http://me:secret@a:80", "password"),
        ] {
            let error = checked_url(bad).unwrap_err();
            assert!(error.is_invalid());
            let text = error.to_string();
            assert!(text.contains(why) && !text.contains("secret"), "{text}");
        }
        assert_eq!(
            checked_url("http://a:1/consul/").unwrap(),
            "http://a:1/consul"
        );
    }
}
