//! The dashboard's page in a real browser.

mod server_common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use waypost::observe::{Report, dashboard};
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, Pick, Status, strategy};

/// What became of a page, as HTML; none where there is no browser.
async fn page(router: axum::Router, path: &str) -> Option<String> {
    if !server_common::found("chromium") {
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let folder = tempfile::tempdir().expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/chromium.sh");
    let mut browser = Command::new(script);
    browser
        .env("URL", format!("http://{address}{path}"))
        .env("DIR", folder.path());
    let shown = tokio::task::spawn_blocking(move || browser.output()).await;
    let shown = shown.expect("it runs").expect("it starts");
    serving.abort();
    let complaint = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success(), "{complaint}");
    Some(String::from_utf8(shown.stdout).expect("it is text"))
}

/// A fleet in which something of everything is going on, and calls in flight.
fn fleet() -> (Balancer, Vec<Pick>) {
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(strategy::RoundRobin::new())
        .manual()
        .expect("it is a name");
    let at = |id: &str, last: u8| {
        Endpoint::builder(format!("10.0.0.{last}:80"))
            .id(id)
            .zone("eu-1a")
    };
    let set = [
        at("a-well", 1),
        at("b-fails", 2),
        at("c-leaves", 3).status(Status::Draining),
        at("d-heavy", 4).weight(2),
        at("e-waits", 5).priority(1),
        // Whatever a registry tells is text.
        at("<img src=x onerror=document.title='owned'>", 6),
    ];
    let set = set.map(|endpoint| endpoint.build().expect("valid"));
    updater.apply(EndpointSet::new(set).expect("ids differ"));
    for _ in 0..60 {
        let pick = balancer.pick().expect("there is one");
        let fails = pick.id().as_str() == "b-fails";
        pick.finish(if fails {
            Outcome::Interrupted
        } else {
            Outcome::Success
        });
        updater.look();
    }
    let held = (0..8).map(|_| balancer.pick().expect("there is one"));
    let held = held.collect();
    (balancer, held)
}

#[tokio::test]
async fn a_browser_shows_each_endpoint_with_its_state_and_why() {
    let (balancer, _held) = fleet();
    let (nobody, _updater) = Balancer::builder("carts").manual().expect("it is a name");
    let router = axum::Router::new().nest("/waypost", dashboard([balancer, nobody]));
    let Some(html) = page(router, "/waypost").await else {
        return;
    };
    let main = html.split_once("<main").expect("it has one").1;
    let main = main.split_once("</main>").expect("it ends").0;
    assert!(
        main.contains("<h2>users</h2>") && main.contains("<h2>carts</h2>"),
        "{main}"
    );
    // Who is ill is seen first, also in the tab's title.
    assert!(html.contains("<title>(1) waypost</title>"), "{html}");
    let rows: Vec<&str> = main.split("<tr").skip(2).collect();
    assert!(
        rows[0].contains("b-fails") && rows[0].contains("class=\"bad\""),
        "{}",
        rows[0]
    );
    let row = |id: &str| {
        let found = rows.iter().find(|row| row.contains(id));
        found.unwrap_or_else(|| panic!("{id} is not there: {main}"))
    };
    for (id, state, why) in [
        ("a-well", "up", "of the calls"),
        ("b-fails", "ejected", "5 calls in a row without an answer"),
        ("c-leaves", "draining", "it is draining"),
        ("d-heavy", "up", "of the calls"),
        ("e-waits", "spare", "no calls while the others take them"),
        ("&lt;img src=x", "up", "of the calls"),
    ] {
        let row = row(id);
        assert!(row.contains(&format!("class=\"state\">{state}<")), "{row}");
        assert!(row.contains(why), "{row}");
    }
    assert!(row("d-heavy").contains("50.0 %"), "{}", row("d-heavy"));
    assert!(
        main.contains("<b>4 of 6</b> endpoints may be picked"),
        "{main}"
    );
    assert!(main.contains("<b>8</b> in flight"), "{main}");
    assert!(
        main.contains("tag bad\">unknown<"),
        "of carts nothing is known: {main}"
    );
    // It has asked again, and so knows a rate: nothing ended in between.
    assert!(
        main.contains("<b>0/s</b> calls") && row("a-well").contains(">0/s<"),
        "{main}"
    );
    assert!(!html.contains("owned</title>"));
}

#[tokio::test]
async fn a_browser_says_that_what_it_shows_is_old_when_there_is_no_answer() {
    let (balancer, _held) = fleet();
    let asked = Arc::new(AtomicU32::new(0));
    let reports = {
        let asked = Arc::clone(&asked);
        move || async move {
            if asked.fetch_add(1, Ordering::Relaxed) > 0 {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            let reports = [Report::of(&balancer)];
            Response::new(serde_json::to_string(&reports).expect("JSON").into())
        }
    };
    let router = axum::Router::new()
        .route("/balancers.json", get(reports))
        .fallback_service(dashboard([]));
    let Some(html) = page(router, "/").await else {
        return;
    };
    assert!(asked.load(Ordering::Relaxed) > 1, "it asks again and again");
    assert!(html.contains("No answer, what is shown is old"), "{html}");
    assert!(html.contains("class=\"lost\""), "{html}");
    assert!(html.contains("a-well"), "what was known is still there");
}
