//! Answers of `Range` and `Watch`, as they come over the wire.

use std::collections::BTreeMap;

use prost::Message as _;

use super::Table;
use crate::registry::etcd::Layout;
use crate::registry::etcd::wire::{RangeResponse, WatchResponse};
use crate::registry::fuzz::is_short;

/// The first byte says which: `w` is a watch's.
pub(crate) fn answer(data: &[u8]) -> bool {
    let Some((first, message)) = data.split_first() else {
        return false;
    };
    let mut table = Table::new(Layout::Grpc, 0);
    let mut there: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    if *first == b'w' {
        let Ok(answer) = WatchResponse::decode(message) else {
            return false;
        };
        let again = WatchResponse::decode(&*answer.encode_to_vec());
        assert_eq!(again.as_ref(), Ok(&answer));
        for event in answer.events {
            let Some(kv) = event.kv else { continue };
            if event.kind == 0 {
                there.insert(kv.key.clone(), kv.bytes());
                table.put(kv);
            } else {
                let was_there = there.remove(&kv.key).is_some();
                assert_eq!(table.delete(&kv.key), was_there);
            }
        }
    } else {
        let Ok(answer) = RangeResponse::decode(message) else {
            return false;
        };
        let again = RangeResponse::decode(&*answer.encode_to_vec());
        assert_eq!(again.as_ref(), Ok(&answer));
        there.extend(answer.kvs.iter().map(|kv| (kv.key.clone(), kv.bytes())));
        table.replace(answer.kvs.clone());
        assert!(!table.replace(answer.kvs), "the same is no change");
    }
    let told = table.answer();
    let skipped = told.skipped.map_or(0, |skipped| {
        is_short(&skipped.example);
        skipped.count
    });
    assert_eq!(told.endpoints.len() + skipped, there.len());
    assert_eq!(table.bytes(), there.values().sum::<usize>());
    for key in there.into_keys() {
        assert!(table.delete(&key));
    }
    assert_eq!(table.bytes(), 0);
    true
}
