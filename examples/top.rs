//! What goes on in balancers, in a terminal: load, latency, state and why, for
//! each endpoint.
//!
//! ```console
//! cargo run --example top                                       # a fleet of its own
//! cargo run --example top -- http://127.0.0.1:9090/waypost      # what serves `observe::dashboard`
//! cargo run --example top -- --once                             # one look
//! ```
//!
//! Where the output is no terminal, it takes one look, too. With its own fleet,
//! it ends with 1 when that does not show what is done to it.

mod common;
#[path = "top/fleet.rs"]
mod fleet;
#[path = "top/screen.rs"]
mod screen;

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::Duration;

use common::Result;
use fleet::Fleet;
use screen::Screen;
use tokio::time::sleep;
use waypost::observe::{EndpointState, Report};

/// Where reports come from.
enum Source {
    Fleet(Fleet),
    Page(reqwest::Client, String),
}

impl Source {
    async fn look(&self) -> Result<Vec<Report>> {
        match self {
            Self::Fleet(fleet) => Ok(vec![Report::of(&fleet.users)]),
            Self::Page(client, url) => {
                let answer = client.get(url).send().await?.error_for_status()?;
                Ok(serde_json::from_slice(&answer.bytes().await?)?)
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let (flags, pages): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with("--"));
    if flags.iter().any(|flag| flag != "--once") || pages.len() > 1 {
        return Err("usage: top [--once] [URL]".into());
    }
    let source = match pages.first() {
        Some(url) => {
            let url = format!("{}/balancers.json", url.trim_end_matches('/'));
            Source::Page(reqwest::Client::new(), url)
        }
        None => Source::Fleet(Fleet::start().await?),
    };
    if flags.is_empty() && stdout().is_terminal() {
        watch(&source).await
    } else {
        once(&source).await
    }
}

/// Until it is interrupted, which leaves the last look on the screen.
async fn watch(source: &Source) -> Result<()> {
    let mut screen = Screen::new(true);
    let hint = match source {
        Source::Fleet(fleet) => format!("a demo; the same as a page: {}", fleet.page),
        Source::Page(_, url) => url.clone(),
    };
    loop {
        let frame = match source.look().await {
            Ok(reports) => screen.frame(&reports),
            Err(error) => format!("no answer: {error}\n"),
        };
        // Home, and each line cleared to its end: nothing flickers.
        let frame = frame.replace('\n', "\x1b[K\n");
        let mut out = stdout().lock();
        write!(out, "\x1b[H{frame}\x1b[2m{hint}; Ctrl-C ends\x1b[0m\x1b[J")?;
        out.flush()?;
        drop(out);
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    println!();
    Ok(())
}

/// Two looks, since rates are what is between them; the second is shown.
async fn once(source: &Source) -> Result<()> {
    let mut screen = Screen::new(false);
    screen.frame(&source.look().await?);
    if let Source::Fleet(fleet) = source {
        fleet.until_it_shows().await?;
    } else {
        sleep(Duration::from_secs(1)).await;
    }
    let reports = source.look().await?;
    print!("{}", screen.frame(&reports));
    if let Source::Fleet(_) = source {
        check(&reports[0])?;
    }
    Ok(())
}

/// What is done to the fleet is seen.
fn check(users: &Report) -> Result<()> {
    let of = |id: &str| {
        let found = users.endpoints.iter().find(|one| one.id == id);
        found.ok_or_else(|| format!("{id} is not there"))
    };
    let state = |id: &str| of(id).map(|one| one.state);
    let (usual, slow) = (of("a-1")?, of("c-slow")?);
    let is_so = state("b-fails")? == EndpointState::Ejected
        && state("d-leaves")? == EndpointState::Draining
        && state("e-spare")? == EndpointState::Spare
        && usual.is_picked
        && slow.latency_ms > usual.latency_ms
        && slow.succeeded < usual.succeeded;
    if is_so {
        return Ok(());
    }
    Err("what is done to the fleet is not what is shown".into())
}
