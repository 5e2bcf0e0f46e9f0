//! Answers of `/v1/health/service`, one after the other.

use std::sync::LazyLock;

use serde_json::Value;

use super::super::entry::Entry;
use super::super::{Consul, Shared};
use super::Rows;
use crate::endpoint::Endpoint;
use crate::registry::difference::Received;
use crate::registry::follow::Answer;
use crate::registry::fuzz::is_short;

/// No byte of JSON: it parts the answers.
const BETWEEN: u8 = 0xff;

pub(crate) fn answers(data: &[u8]) -> bool {
    let mut rows = Rows::default();
    let mut before: Option<Answer> = None;
    let mut is_taken = false;
    for text in data.split(|&byte| byte == BETWEEN) {
        let mut fresh = Rows::default();
        let next = Received::of(text, rows.text());
        let whole = Received::of(text, fresh.text());
        match (rows.read(next), fresh.read(whole)) {
            (Ok(is_changed), Ok(_)) => {
                is_taken = true;
                let answer = fresh.answer();
                if let Some(before) = before.filter(|_| !is_changed) {
                    same(&before, &answer);
                }
                same(&rows.answer(), &answer);
                all_are_counted(&fresh, &answer, text);
                answer.endpoints.iter().for_each(|it| comes_back(it));
                before = Some(answer);
            }
            (Err(error), Err(_)) => is_short(&error),
            (by_difference, whole) => panic!("{by_difference:?} and {whole:?} of {text:?}"),
        }
    }
    is_taken
}

/// What is read by its differences is what a fresh reader reads.
fn same(by_difference: &Answer, whole: &Answer) {
    assert_eq!(by_difference.endpoints, whole.endpoints);
    assert_eq!(skipped(by_difference), skipped(whole));
}

fn skipped(answer: &Answer) -> usize {
    answer.skipped.as_ref().map_or(0, |skipped| {
        is_short(&skipped.example);
        skipped.count
    })
}

fn all_are_counted(rows: &Rows, answer: &Answer, text: &[u8]) {
    let critical = rows
        .rows
        .iter()
        .filter(|row| matches!(row.endpoint, Ok(None)));
    let counted = answer.endpoints.len() + skipped(answer) + critical.count();
    assert_eq!(counted, rows.rows.len());
    // What this refuses alone, such as text that is no UTF-8 within an
    // instance, costs that instance.
    if let Ok(there) = serde_json::from_slice::<Vec<Value>>(text) {
        assert_eq!(counted, there.len());
    }
}

/// What is registered for an endpoint reads as that endpoint.
fn comes_back(endpoint: &Endpoint) {
    static SHARED: LazyLock<std::sync::Arc<Shared>> = LazyLock::new(|| {
        let consul = Consul::builder("http://127.0.0.1:8500").build();
        consul.expect("the settings are right").shared
    });
    let service = "users".parse().expect("it is a name");
    // Others' entries may be what cannot be entered.
    let Ok(entry) = Entry::new(std::sync::Arc::clone(&SHARED), &service, endpoint) else {
        return;
    };
    let body = entry.body(endpoint).expect("it was checked");
    let body: Value = serde_json::from_slice(&body).expect("it is JSON");
    let element = serde_json::json!({ "Service": body }).to_string();
    let again = super::endpoint(&element).expect("it is read");
    assert_eq!(again.as_ref(), Some(endpoint));
}
