use super::*;
use crate::endpoint::Status;

const LAYOUTS: [Layout; 2] = [Layout::Grpc, Layout::Plain];

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
        .metadata("a.b", "c")
        .tls_name("users.internal")
        .authority("users:80")
        .build()
        .unwrap()
}

#[test]
fn every_field_comes_back() {
    for layout in LAYOUTS {
        for endpoint in [full(), Endpoint::at("10.0.0.1:80").unwrap()] {
            let value = layout.write(&endpoint).unwrap();
            let id = endpoint.id().as_str();
            assert_eq!(layout.read(id, &value).unwrap(), endpoint, "{layout:?}");
        }
    }
}

/// What `endpoints.Manager.AddEndpoint` of `go.etcd.io/etcd/client/v3` writes.
#[test]
fn what_go_writes_is_read_and_what_go_reads_is_written() {
    let at = |value: &str| Layout::Grpc.read("10.0.0.1:80", value.as_bytes());
    let plain = Endpoint::at("10.0.0.1:80").unwrap();
    let null = r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#;
    assert_eq!(at(null).unwrap(), plain);
    assert_eq!(Layout::Grpc.write(&plain).unwrap(), sorted(null));
    // Metadata is any JSON to Go.
    for odd in ["[1]", "7", r#""text""#, "{}"] {
        let value = format!(r#"{{"Op":0,"Addr":"10.0.0.1:80","Metadata":{odd}}}"#);
        assert_eq!(at(&value).unwrap(), plain, "{odd}");
    }
    let tagged = at(r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"a":"b","n":{"x":[1]}}}"#);
    let metadata = tagged.unwrap();
    assert_eq!(&*metadata.metadata()["a"], "b");
    assert_eq!(&*metadata.metadata()["n"], r#"{"x":[1]}"#);
}

fn sorted(json: &str) -> Vec<u8> {
    let value: Value = serde_json::from_str(json).unwrap();
    value.to_string().into_bytes()
}

#[test]
fn what_cannot_be_read_says_which_and_why() {
    for (layout, value, why) in [
        (Layout::Grpc, "", "no JSON"),
        (Layout::Grpc, "[]", "no JSON object"),
        (Layout::Grpc, r#"{"Op":0}"#, "`Addr`"),
        (Layout::Grpc, r#"{"Addr":7}"#, "`Addr`"),
        (Layout::Grpc, r#"{"Addr":"10.0.0.1"}"#, "port"),
        (
            Layout::Grpc,
            r#"{"Addr":"a:1","Metadata":{"waypost":{"weight":-1}}}"#,
            "-1",
        ),
        (Layout::Plain, r#"{"weight":1}"#, "address"),
        (Layout::Plain, r#"{"address":"a:1","wait":1}"#, "wait"),
    ] {
        let error = layout.read("users-7", value.as_bytes()).unwrap_err();
        let text = error.to_string();
        assert!(error.is_registry(), "{text}");
        assert!(text.contains("users-7") && text.contains(why), "{text}");
    }
    let taken = Endpoint::builder("a:1")
        .metadata(OURS, "x")
        .build()
        .unwrap();
    assert!(Layout::Grpc.write(&taken).unwrap_err().is_invalid());
}

#[test]
fn a_range_holds_the_keys_of_one_service() {
    let users = "users".parse().unwrap();
    let prefix = prefix_of("a/", &users);
    assert_eq!(
        (prefix.as_str(), range_end(&prefix)),
        ("a/users/", b"a/users0".to_vec())
    );
}
