//! How an endpoint is written as a node: that of Curator's `x-discovery`.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::endpoint::{Endpoint, ServiceName, Status};
use crate::error::Error;
use crate::registry::record::{self, OURS};

/// What a request may have in all is 1 MiB (`jute.maxbuffer`), of which the
/// path has some.
const MAX_VALUE: usize = 1_000_000;

/// The node's data: a `ServiceInstance` as Curator's `JsonInstanceSerializer`
/// writes it.
pub(super) fn write(service: &ServiceName, endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
    let (host, port) = host_and_port(endpoint)?;
    let mut record = record::of(endpoint)?;
    record.remove("address");
    let metadata = record::metadata_of(&mut record);
    let mut payload = Map::new();
    if !metadata.is_empty() {
        payload.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if !record.is_empty() {
        payload.insert(OURS.to_owned(), Value::Object(record));
    }
    let mut instance = json!({
        "name": service.as_str(),
        "id": endpoint.id().as_str(),
        "address": host,
        "port": port,
        "sslPort": null,
        "payload": (!payload.is_empty()).then_some(payload),
        "registrationTimeUTC": millis_since_1970(),
        "serviceType": "DYNAMIC",
        "uriSpec": null,
    });
    if endpoint.status() != Status::Up {
        // Readers before Curator 2.9 do not know it; true is left out.
        instance["enabled"] = false.into();
    }
    let value = instance.to_string().into_bytes();
    if value.len() > MAX_VALUE {
        let reason = format!("ZooKeeper takes nodes of up to {MAX_VALUE} bytes");
        return Err(Error::invalid("endpoint.metadata", value.len(), reason));
    }
    Ok(value)
}

/// The endpoint of a node.
pub(super) fn read(node: &str, value: &[u8]) -> Result<Endpoint, Error> {
    let refused = |reason: String| {
        let node = node.escape_debug();
        Error::registry(format!("zookeeper node `{node}`"), reason)
    };
    let read: Value = serde_json::from_slice(value)
        .map_err(|error| refused(format!("its data is no JSON: {error}")))?;
    let Value::Object(mut fields) = read else {
        return Err(refused("its data is no JSON object".to_owned()));
    };
    let host = fields.get("address").and_then(Value::as_str);
    let host = host.ok_or_else(|| refused("it has no text `address`".to_owned()))?;
    let mut port = ["port", "sslPort"].iter();
    let port = port.find_map(|key| fields.get(*key)?.as_u64());
    let port = port.ok_or_else(|| refused("it has no `port` and no `sslPort`".to_owned()))?;
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let id = fields.get("id").and_then(Value::as_str).unwrap_or(node);
    let id = id.to_owned();
    let is_enabled = fields.get("enabled").and_then(Value::as_bool) != Some(false);

    let mut ours = Map::new();
    if let Some(Value::Object(mut payload)) = fields.remove("payload") {
        if let Some(Value::Object(record)) = payload.remove(OURS) {
            ours = record;
        }
        // Java's type of it.
        payload.remove("@class");
        // The name that Spring Cloud has for it, too; others' is taken whole.
        let metadata = match payload.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            _ => payload,
        };
        ours.insert("metadata".to_owned(), record::texts(metadata));
    }
    if !is_enabled && !ours.contains_key("status") {
        ours.insert("status".to_owned(), "draining".into());
    }
    record::endpoint(ours, &id, address.into()).map_err(|error| refused(error.to_string()))
}

/// The node of a service.
pub(super) fn service_path(base: &str, service: &ServiceName) -> String {
    format!("{base}/{service}")
}

/// An id as the name of a node: as it is, but for what ZooKeeper refuses or
/// takes for more than a name, which is written as `%XX`.
pub(super) fn node_name(id: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(id.len());
    for (at, c) in id.char_indices() {
        let is_dots = matches!(id, "." | "..") && at == 0;
        let is_plain = if c.is_ascii() {
            c.is_ascii_graphic() && !matches!(c, '/' | '%') && !is_dots
        } else {
            // Above are surrogates to Java, private use and specials.
            c.is_alphanumeric() && c <= '\u{d7ff}'
        };
        if is_plain {
            name.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(name, "%{byte:02X}").expect("a string can be written");
            }
        }
    }
    name
}

fn host_and_port(endpoint: &Endpoint) -> Result<(&str, u16), Error> {
    let address = endpoint.address();
    match (address.host(), address.port()) {
        (Some(host), Some(port)) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            Ok((bare, port))
        }
        _ => {
            let reason = "Curator's instances have hosts and ports, no Unix sockets";
            Err(Error::invalid("endpoint.address", address, reason))
        }
    }
}

fn millis_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> ServiceName {
        "users".parse().unwrap()
    }

    fn full() -> Endpoint {
        Endpoint::builder("[::1]:9000")
            .id("größe/3 //..?x=%2f")
            .weight(70_000)
            .region("eu")
            .zone("eu-1a")
            .sub_zone("rack 7")
            .priority(2)
            .status(Status::Starting)
            .metadata("version", "v2 \"beta\"")
            .metadata("waypost", "c")
            .tls_name("users.internal")
            .authority("users:80")
            .build()
            .unwrap()
    }

    #[test]
    fn every_field_comes_back() {
        for endpoint in [full(), Endpoint::at("10.0.0.1:80").unwrap()] {
            let value = write(&users(), &endpoint).unwrap();
            assert_eq!(read("node", &value).unwrap(), endpoint);
        }
    }

    /// What `ServiceDiscoveryImpl` of Curator 5 and Spring Cloud ZooKeeper
    /// write.
    #[test]
    fn what_java_writes_is_read_and_what_java_reads_is_written() {
        let plain = r#"{"name":"users","id":"9b1","address":"10.0.0.1","port":80,"sslPort":null,"payload":null,"registrationTimeUTC":1400000000000,"serviceType":"DYNAMIC","uriSpec":null}"#;
        let found = read("9b1", plain.as_bytes()).unwrap();
        assert_eq!(
            found,
            Endpoint::builder("10.0.0.1:80").id("9b1").build().unwrap()
        );
        let ours: Value = serde_json::from_slice(&write(&users(), &found).unwrap()).unwrap();
        let mut theirs: Value = serde_json::from_str(plain).unwrap();
        theirs["registrationTimeUTC"] = ours["registrationTimeUTC"].clone();
        assert_eq!(ours, theirs);

        let spring = r#"{"name":"users","id":"9b2","address":"host-2","port":null,"sslPort":8443,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"users-1","name":"users","metadata":{"zone":"a","n":1}},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true}]},"enabled":false}"#;
        let found = read("9b2", spring.as_bytes()).unwrap();
        assert_eq!(found.address().as_str(), "host-2:8443");
        assert_eq!(found.status(), Status::Draining, "it is not enabled");
        assert_eq!(&*found.metadata()["zone"], "a");
        assert_eq!(&*found.metadata()["n"], "1");

        let map = r#"{"address":"a","port":1,"payload":{"@class":"java.util.HashMap","k":"v"}}"#;
        let found = read("9b3", map.as_bytes()).unwrap();
        assert_eq!((&*found.metadata()["k"], found.metadata().len()), ("v", 1));
        let text = r#"{"address":"a","port":1,"payload":"text"}"#;
        assert!(read("9b4", text.as_bytes()).unwrap().metadata().is_empty());
    }

    #[test]
    fn what_cannot_be_read_says_which_and_why() {
        for (value, why) in [
            ("", "no JSON"),
            ("127.0.0.1", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"port":1}"#, "`address`"),
            (r#"{"address":"a"}"#, "`port`"),
            (r#"{"address":"a","port":0}"#, "port"),
            (r#"{"address":"a","port":70000}"#, "70000"),
            (
                r#"{"address":"a","port":1,"payload":{"waypost":{"weight":-1}}}"#,
                "-1",
            ),
        ] {
            let error = read("users-7", value.as_bytes()).unwrap_err();
            let text = error.to_string();
            assert!(error.is_registry(), "{text}");
            assert!(text.contains("users-7") && text.contains(why), "{text}");
        }
        let socket = Endpoint::at("unix:/a").unwrap();
        assert!(write(&users(), &socket).unwrap_err().is_invalid());
        let long = Endpoint::builder("a:1")
            .metadata("k", "x".repeat(4_000))
            .build();
        assert!(long.is_err() || write(&users(), &long.unwrap()).is_ok());
    }

    #[test]
    fn names_of_nodes_are_what_zookeeper_takes_and_differ() {
        for (id, name) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            (".", "%2E"),
            ("..", "%2E."),
            ("größe 3", "größe%203"),
            ("😀", "%F0%9F%98%80"),
        ] {
            assert_eq!(node_name(id), name);
        }
    }
}
