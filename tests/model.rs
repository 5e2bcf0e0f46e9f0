//! The model's laws: sets against a naive twin, and every type through JSON and
//! back.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use waypost::{
    Address, Diff, Endpoint, EndpointId, EndpointSet, Error, Locality, ServiceName, Status,
};

fn at(address: &str) -> Endpoint {
    Endpoint::at(address).expect("the address is well-formed")
}

fn named(id: &str) -> Endpoint {
    Endpoint::builder("10.0.0.1:80")
        .id(id)
        .build()
        .expect("the id is well-formed")
}

fn id(text: &str) -> EndpointId {
    text.parse().expect("the id is well-formed")
}

// ---- sets -------------------------------------------------------------------

#[test]
fn a_set_is_ordered_by_id_however_it_was_given() {
    let set = EndpointSet::new(["c", "a", "b"].map(named)).unwrap();
    let ids: Vec<&str> = set.iter().map(|endpoint| endpoint.id().as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(set.get(&id("b")).unwrap().id().as_str(), "b");
    assert!(set.get(&id("d")).is_none());
}

#[test]
fn two_endpoints_of_one_id_are_refused_and_the_id_is_named() {
    let pair = || {
        [
            named("twin").with_weight(1),
            named("other"),
            named("twin").with_weight(2),
        ]
    };
    let set = EndpointSet::new([named("before")]).unwrap();
    for error in [
        EndpointSet::new(pair()).unwrap_err(),
        set.next(pair()).unwrap_err(),
    ] {
        assert!(error.is_invalid());
        let text = error.to_string();
        assert!(
            text.contains("endpoint.id") && text.contains("twin"),
            "{text}"
        );
    }
    assert_eq!(set.len(), 1, "a refused successor leaves the set as it was");
}

#[test]
fn an_empty_set_is_before_every_first_one() {
    let none: [Endpoint; 0] = [];
    assert!(EndpointSet::empty().is_empty());
    assert_eq!(EndpointSet::empty().version(), 0);
    assert_eq!(EndpointSet::empty().next(none).unwrap().version(), 0);
    let first = EndpointSet::new([named("a")]).unwrap();
    assert!(first.version() > EndpointSet::empty().version());
    assert!(first.without(&id("a")).version() > first.version());
}

#[test]
fn equality_is_about_endpoints_not_about_history() {
    let one = EndpointSet::new([named("a")]).unwrap();
    let other = one.with(named("b")).without(&id("b"));
    assert_ne!(one.version(), other.version());
    assert_eq!(one, other);
    assert_ne!(one, one.with(named("a").with_weight(2)));
}

/// A version that was read from a file may be any number.
#[test]
fn a_set_of_the_highest_version_still_takes_changes() {
    let json = json!({ "version": u64::MAX, "endpoints": [{ "address": "10.0.0.1:80" }] });
    let set: EndpointSet = serde_json::from_value(json).unwrap();
    assert_eq!(set.with(named("b")).len(), 2);
}

#[derive(Clone, Debug)]
enum Edit {
    With(Endpoint),
    Without(String),
    Next(Vec<Endpoint>),
}

/// Few ids and few values, so that edits often meet and often change nothing.
fn small_endpoint() -> impl Strategy<Value = Endpoint> {
    (0..8_u32, 0..3_u32, 0..2_u32).prop_map(|(number, weight, priority)| {
        Endpoint::builder("10.0.0.1:80")
            .id(format!("e{number}"))
            .weight(weight)
            .priority(priority)
            .build()
            .expect("the parts are well-formed")
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        small_endpoint().prop_map(Edit::With),
        (0..8_u32).prop_map(|number| Edit::Without(format!("e{number}"))),
        vec(small_endpoint(), 0..8).prop_map(Edit::Next),
    ]
}

/// The naive twin: a map by id.
type Twin = BTreeMap<String, Endpoint>;

fn key(endpoint: &Endpoint) -> String {
    endpoint.id().as_str().to_owned()
}

/// The twin after the edit; none when the edit has to be refused.
fn edited(twin: &Twin, edit: &Edit) -> Option<Twin> {
    let mut next = twin.clone();
    match edit {
        Edit::With(endpoint) => {
            next.insert(key(endpoint), endpoint.clone());
        }
        Edit::Without(id) => {
            next.remove(id);
        }
        Edit::Next(endpoints) => {
            next = endpoints.iter().map(|e| (key(e), e.clone())).collect();
            if next.len() < endpoints.len() {
                return None;
            }
        }
    }
    Some(next)
}

fn content(set: &EndpointSet) -> Vec<Endpoint> {
    set.iter().map(|endpoint| (**endpoint).clone()).collect()
}

/// What a reader does who keeps a map and is told differences.
fn applied(old: &EndpointSet, diff: &Diff) -> Vec<Endpoint> {
    let mut map: Twin = content(old).into_iter().map(|e| (key(&e), e)).collect();
    for gone in &diff.removed {
        assert_eq!(map.remove(&key(gone)).as_ref(), Some(&**gone));
    }
    for changed in &diff.changed {
        assert_ne!(changed.before, changed.after);
        let before = map.insert(key(&changed.after), (*changed.after).clone());
        assert_eq!(before.as_ref(), Some(&*changed.before));
    }
    for new in &diff.added {
        assert_eq!(map.insert(key(new), (**new).clone()), None);
    }
    map.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sets_agree_with_a_map_through_any_edits(edits in vec(edit(), 1..30)) {
        let mut twin = Twin::new();
        let mut set = EndpointSet::empty();
        for edit in edits {
            let next = match &edit {
                Edit::With(endpoint) => Ok(set.with(endpoint.clone())),
                Edit::Without(text) => Ok(set.without(&id(text))),
                Edit::Next(endpoints) => set.next(endpoints.clone()),
            };
            let Some(next_twin) = edited(&twin, &edit) else {
                prop_assert!(next.unwrap_err().is_invalid());
                continue;
            };
            let next = next.unwrap();

            prop_assert_eq!(content(&next), next_twin.values().cloned().collect::<Vec<_>>());
            prop_assert!(next.endpoints().is_sorted_by(|a, b| a.id() < b.id()));
            prop_assert_eq!(next.len(), next_twin.len());

            let changed = next_twin != twin;
            prop_assert_eq!(next.version(), set.version() + u64::from(changed));
            if !changed {
                prop_assert!(std::ptr::eq(next.endpoints(), set.endpoints()));
            }
            for old in &set {
                if let Some(new) = next.get(old.id()) {
                    prop_assert_eq!(Arc::ptr_eq(old, new), old == new, "unchanged is shared");
                }
            }

            let diff = set.diff(&next);
            prop_assert_eq!(diff.is_empty(), !changed);
            prop_assert_eq!(applied(&set, &diff), content(&next));
            prop_assert_eq!(applied(&next, &next.diff(&set)), content(&set));
            prop_assert!(diff.added.is_sorted_by(|a, b| a.id() < b.id()));
            prop_assert!(diff.removed.is_sorted_by(|a, b| a.id() < b.id()));
            prop_assert!(diff.changed.is_sorted_by(|a, b| a.after.id() < b.after.id()));

            (twin, set) = (next_twin, next);
        }
    }

    /// Also between sets that share nothing, as two sources' do.
    #[test]
    fn a_diff_of_unrelated_sets_leads_from_one_to_the_other(
        old in btree_map(0..8_u32, small_endpoint(), 0..8),
        new in btree_map(0..8_u32, small_endpoint(), 0..8),
    ) {
        let set = |map: BTreeMap<u32, Endpoint>| {
            let twin: Twin = map.into_values().map(|e| (key(&e), e)).collect();
            EndpointSet::new(twin.into_values()).expect("a map has each id once")
        };
        let (old, new) = (set(old), set(new));
        let diff = old.diff(&new);
        prop_assert_eq!(diff.is_empty(), old == new);
        prop_assert_eq!(applied(&old, &diff), content(&new));
    }
}

// ---- JSON -------------------------------------------------------------------

const PRINTABLE: &str = "[^\\p{Cc}]{1,20}";

fn address() -> impl Strategy<Value = Address> {
    let text = prop_oneof![
        (any::<std::net::Ipv4Addr>(), 1..=u16::MAX).prop_map(|(ip, port)| format!("{ip}:{port}")),
        (any::<std::net::Ipv6Addr>(), 1..=u16::MAX).prop_map(|(ip, port)| format!("[{ip}]:{port}")),
        ("[a-z0-9._-]{0,39}[g-w]", 1..=u16::MAX).prop_map(|(host, port)| format!("{host}:{port}")),
        "/[^\\p{Cc}]{0,20}".prop_map(|path| format!("unix:{path}")),
    ];
    text.prop_map(|text| text.parse().expect("the address is well-formed"))
}

fn locality() -> impl Strategy<Value = Locality> {
    let part = || option::of(PRINTABLE);
    (part(), part(), part()).prop_map(|(region, zone, sub_zone)| {
        Locality::new(region.as_deref(), zone.as_deref(), sub_zone.as_deref())
            .expect("the parts are well-formed")
    })
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Up),
        Just(Status::Draining),
        Just(Status::Down),
        Just(Status::Starting),
    ]
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let options = (
        option::of(PRINTABLE),
        option::of("[a-z0-9.-]{1,20}"),
        option::of("[a-z0-9.-]{0,19}[g-w](:[1-9][0-9]{0,3})?"),
    );
    let metadata = btree_map(PRINTABLE, "\\PC{0,10}", 0..4);
    (
        address(),
        options,
        any::<u32>(),
        locality(),
        any::<u32>(),
        status(),
        metadata,
    )
        .prop_map(
            |(address, (id, tls_name, authority), weight, locality, priority, status, metadata)| {
                let mut builder = Endpoint::builder(address)
                    .weight(weight)
                    .priority(priority)
                    .status(status);
                if let Some(id) = id {
                    builder = builder.id(id);
                }
                if let Some(name) = tls_name {
                    builder = builder.tls_name(name);
                }
                if let Some(authority) = authority {
                    builder = builder.authority(authority);
                }
                if let Some(region) = locality.region() {
                    builder = builder.region(region);
                }
                if let Some(zone) = locality.zone() {
                    builder = builder.zone(zone);
                }
                if let Some(sub_zone) = locality.sub_zone() {
                    builder = builder.sub_zone(sub_zone);
                }
                for (key, value) in metadata {
                    builder = builder.metadata(key, value);
                }
                builder.build().expect("the parts are well-formed")
            },
        )
}

fn there_and_back<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let json = serde_json::to_string(value).expect("it can be written");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn an_endpoint_comes_back_as_it_was(endpoint in any_endpoint()) {
        prop_assert_eq!(there_and_back(&endpoint), endpoint);
    }

    #[test]
    fn a_set_comes_back_with_its_version(
        endpoints in vec(any_endpoint(), 0..6),
        edits in 0..5_u64,
    ) {
        let mut seen = std::collections::HashSet::new();
        let distinct = endpoints.into_iter().filter(|endpoint| seen.insert(endpoint.id().clone()));
        let mut set = EndpointSet::new(distinct).unwrap();
        for weight in 0..edits {
            set = set.with(named("a").with_weight(weight as u32));
        }
        let back = there_and_back(&set);
        prop_assert_eq!(back.version(), set.version());
        prop_assert_eq!(back, set);
    }

    #[test]
    fn a_locality_comes_back_as_it_was(locality in locality()) {
        prop_assert_eq!(there_and_back(&locality), locality);
    }

    #[test]
    fn a_service_name_comes_back_as_it_was(text in "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,40}[a-zA-Z0-9])?") {
        let name: ServiceName = text.parse().unwrap();
        prop_assert_eq!(serde_json::to_value(&name).unwrap(), Value::from(text));
        prop_assert_eq!(there_and_back(&name), name);
    }

    /// Whatever stands there, reading it ends in a value or an error.
    #[test]
    fn no_text_panics_the_readers(text in "\\PC{0,60}") {
        let json = Value::from(text.clone());
        let name = serde_json::from_value::<ServiceName>(json.clone());
        prop_assert_eq!(name.is_ok(), text.parse::<ServiceName>().is_ok());
        let read = serde_json::from_value::<Endpoint>(json!({ "address": json }));
        prop_assert_eq!(read.is_ok(), Endpoint::at(text).is_ok());
    }
}

fn fields(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("it is written as an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn defaults_are_left_out() {
    let json = serde_json::to_value(at("10.0.0.1:80")).unwrap();
    let beside_id: Vec<&str> = fields(&json)
        .into_iter()
        .filter(|&key| key != "id")
        .collect();
    assert_eq!(beside_id, ["address"], "{json}");
    assert_eq!(json["address"], "10.0.0.1:80");

    assert_eq!(
        serde_json::to_value(Locality::default()).unwrap(),
        json!({})
    );
    let zone = Locality::new(None, Some("z"), None).unwrap();
    assert_eq!(serde_json::to_value(zone).unwrap(), json!({ "zone": "z" }));
}

#[test]
fn what_is_left_out_is_the_default() {
    let read: Endpoint = serde_json::from_value(json!({ "address": "10.0.0.1:80" })).unwrap();
    assert_eq!(read, at("10.0.0.1:80"));
    let read: Locality = serde_json::from_value(json!({})).unwrap();
    assert!(read.is_unknown());
    let read: EndpointSet = serde_json::from_value(json!({ "endpoints": [] })).unwrap();
    assert_eq!((read.version(), read.len()), (0, 0));
}

#[test]
fn every_field_is_written_under_its_name() {
    let endpoint = Endpoint::builder("users.internal:80")
        .id("a")
        .weight(0)
        .region("r")
        .zone("z")
        .sub_zone("s")
        .priority(1)
        .status(Status::Draining)
        .metadata("version", "v2")
        .tls_name("users.internal")
        .authority("users:8080")
        .build()
        .unwrap();
    let json = json!({
        "id": "a",
        "address": "users.internal:80",
        "weight": 0,
        "locality": { "region": "r", "zone": "z", "sub_zone": "s" },
        "priority": 1,
        "status": "draining",
        "metadata": { "version": "v2" },
        "tls_name": "users.internal",
        "authority": "users:8080",
    });
    assert_eq!(serde_json::to_value(&endpoint).unwrap(), json);
    let set = EndpointSet::new([endpoint]).unwrap();
    let json = json!({ "version": 1, "endpoints": [json] });
    assert_eq!(serde_json::to_value(set).unwrap(), json);
}

fn refusal<T: serde::de::DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
    match serde_json::from_str::<T>(json) {
        Ok(read) => panic!("{json} was read as {read:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let endpoint = refusal::<Endpoint>(r#"{"address": "10.0.0.1:80", "wieght": 2}"#);
    assert!(
        endpoint.contains("wieght") && endpoint.contains("weight"),
        "{endpoint}"
    );
    let locality = refusal::<Locality>(r#"{"rack": "7"}"#);
    assert!(
        locality.contains("rack") && locality.contains("sub_zone"),
        "{locality}"
    );
    let nested = refusal::<Endpoint>(r#"{"address": "10.0.0.1:80", "locality": {"rack": "7"}}"#);
    assert!(nested.contains("rack"), "{nested}");
    let set = refusal::<EndpointSet>(r#"{"endpoints": [], "revision": 3}"#);
    assert!(set.contains("revision"), "{set}");
}

#[test]
fn fields_that_are_wrong_are_refused_by_name() {
    for (field, value, name) in [
        ("address", json!("10.0.0.1"), "endpoint.address"),
        ("address", json!("10.0.0.1:0"), "endpoint.address"),
        ("id", json!(""), "endpoint.id"),
        ("id", json!("a\nb"), "endpoint.id"),
        (
            "locality",
            json!({ "region": "" }),
            "endpoint.locality.region",
        ),
        (
            "locality",
            json!({ "zone": "\u{7}" }),
            "endpoint.locality.zone",
        ),
        (
            "locality",
            json!({ "sub_zone": "x".repeat(256) }),
            "endpoint.locality.sub_zone",
        ),
        ("metadata", json!({ "": "v" }), "endpoint.metadata key"),
        (
            "metadata",
            json!({ "k": "v".repeat(8 * 1024 + 1) }),
            "endpoint.metadata",
        ),
        ("tls_name", json!("https://users"), "endpoint.tls_name"),
        ("authority", json!("users/v1"), "endpoint.authority"),
    ] {
        let mut json = json!({ "address": "10.0.0.1:80" });
        json[field] = value;
        let text = refusal::<Endpoint>(&json.to_string());
        assert!(text.contains(name), "{json}: {text}");
    }
    let name = refusal::<ServiceName>(r#""users/v1""#);
    assert!(
        name.contains("service name") && name.contains('/'),
        "{name}"
    );
    let zone = refusal::<Locality>(r#"{"zone": ""}"#);
    assert!(zone.contains("endpoint.locality.zone"), "{zone}");
}

#[test]
fn values_of_another_kind_are_refused_with_what_is_taken() {
    for (json, expected) in [
        (r#"{"address": "10.0.0.1:80", "weight": -1}"#, "u32"),
        (r#"{"address": "10.0.0.1:80", "weight": 4294967296}"#, "u32"),
        (r#"{"address": "10.0.0.1:80", "priority": "high"}"#, "u32"),
        (
            r#"{"address": "10.0.0.1:80", "status": "sideways"}"#,
            "draining",
        ),
        (
            r#"{"address": "10.0.0.1:80", "metadata": ["k", "v"]}"#,
            "map",
        ),
        (
            r#"{"address": "10.0.0.1:80", "metadata": {"k": 1}}"#,
            "string",
        ),
        (r#"{"id": "a"}"#, "address"),
    ] {
        let text = refusal::<Endpoint>(json);
        assert!(text.contains(expected), "{json}: {text}");
    }
}

#[test]
fn what_is_given_twice_is_refused() {
    let key = refusal::<Endpoint>(
        r#"{"address": "10.0.0.1:80", "metadata": {"zone": "a", "zone": "b"}}"#,
    );
    assert!(
        key.contains("endpoint.metadata key") && key.contains("twice"),
        "{key}"
    );
    let field = refusal::<Endpoint>(r#"{"address": "10.0.0.1:80", "weight": 1, "weight": 2}"#);
    assert!(field.contains("weight"), "{field}");
    let id = refusal::<EndpointSet>(
        r#"{"endpoints": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.1:80"}]}"#,
    );
    assert!(
        id.contains("endpoint.id") && id.contains("10.0.0.1:80"),
        "{id}"
    );
}

#[test]
fn a_set_that_was_written_in_another_order_is_read_in_its_own() {
    let json = r#"{"endpoints": [{"address": "b:80"}, {"address": "a:80"}]}"#;
    let set: EndpointSet = serde_json::from_str(json).unwrap();
    let ids: Vec<String> = set
        .iter()
        .map(|endpoint| endpoint.id().to_string())
        .collect();
    assert_eq!(ids, ["a:80", "b:80"]);
}

// ---- Display ----------------------------------------------------------------

#[test]
fn everything_shows_as_it_is_written() -> Result<(), Error> {
    assert_eq!(
        "users.eu-1".parse::<ServiceName>()?.to_string(),
        "users.eu-1"
    );
    assert_eq!(id("größe 3").to_string(), "größe 3");
    assert_eq!(format!("[{:>6}]", id("a")), "[     a]");

    for text in [
        "10.0.0.1:80",
        "[::1]:80",
        "users:80",
        "unix:/run/users.sock",
    ] {
        assert_eq!(text.parse::<Address>()?.to_string(), text);
        assert_eq!(
            at(text).to_string(),
            text,
            "an id that is the address is not repeated"
        );
    }
    assert_eq!(named("blue").to_string(), "blue (10.0.0.1:80)");

    assert_eq!(Locality::default().to_string(), "unknown");
    assert_eq!(
        Locality::new(Some("r"), None, Some("s"))?.to_string(),
        "r/s"
    );
    assert_eq!(
        Locality::new(Some("r"), Some("z"), Some("s"))?.to_string(),
        "r/z/s"
    );

    for status in [Status::Up, Status::Draining, Status::Down, Status::Starting] {
        let json = serde_json::to_value(status).unwrap();
        assert_eq!(
            json,
            Value::from(status.to_string()),
            "shown as it is written in JSON"
        );
    }
    Ok(())
}
