//! Answers of `/apps` and `/apps/delta`.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::super::entry::Entry;
use super::super::{Eureka, Shared};
use super::{Apps, id_of, instances};
use crate::endpoint::Endpoint;
use crate::registry::fuzz::is_short;

/// No byte of JSON: it parts the whole from what changed.
const BETWEEN: u8 = 0xff;

pub(crate) fn answers(data: &[u8]) -> bool {
    let mut texts = data.split(|&byte| byte == BETWEEN);
    let mut read = || serde_json::from_slice::<Value>(texts.next()?).ok();
    let Some((all, mut apps)) = read().and_then(|all| Some((all.clone(), Apps::read(&all)?)))
    else {
        return false;
    };
    all_are_counted(&apps, &all);
    while let Some(delta) = read() {
        if apps.apply(&delta).is_none() {
            break;
        }
    }
    for app in apps.apps.keys() {
        apps.answer(app)
            .endpoints
            .iter()
            .for_each(|it| comes_back(it));
    }
    true
}

/// Each instance that has an id counts once, as an endpoint or as skipped.
fn all_are_counted(apps: &Apps, all: &Value) {
    let application = all["applications"].get("application");
    let listed: Vec<_> = instances(application).collect();
    let ids: HashSet<_> = (listed.iter())
        .filter_map(|(app, value)| Some((app.to_ascii_uppercase(), id_of(value)?)))
        .collect();
    let mut counted = 0;
    for app in apps.apps.keys() {
        let answer = apps.answer(app);
        counted += answer.endpoints.len();
        if let Some(skipped) = &answer.skipped {
            is_short(&skipped.example);
            counted += skipped.count;
        }
    }
    assert!(
        (ids.len()..=listed.len()).contains(&counted),
        "{counted} of {} with {} ids",
        listed.len(),
        ids.len()
    );
}

/// What is registered for an endpoint reads as that endpoint.
fn comes_back(endpoint: &Endpoint) {
    static SHARED: LazyLock<Arc<Shared>> = LazyLock::new(|| {
        let eureka = Eureka::builder("http://127.0.0.1:8761/eureka").build();
        eureka.expect("the settings are right").shared
    });
    let service = "users".parse().expect("it is a name");
    // Others' instances may be what cannot be entered.
    let Ok(entry) = Entry::new(Arc::clone(&SHARED), &service, endpoint) else {
        return;
    };
    let body = entry.body(endpoint).expect("it was checked");
    let body: Value = serde_json::from_slice(&body).expect("it is JSON");
    let all =
        json!({"applications": {"application": {"name": "USERS", "instance": body["instance"]}}});
    let apps = Apps::read(&all).expect("there are applications");
    assert_eq!(
        apps.answer("USERS").endpoints,
        [Arc::new(endpoint.clone())],
        "{all}"
    );
}
