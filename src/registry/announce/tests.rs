//! The runner of beats, in virtual time, on a server that can be broken.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;
use crate::endpoint::Status;

#[derive(Default)]
struct Server {
    entry: Option<Endpoint>,
    down: bool,
    hangs: bool,
    replaced: bool,
    calls: Vec<(Instant, &'static str)>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Server>>);

impl Shared {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap()
    }

    /// What every call meets before it does anything.
    async fn call(&self, name: &'static str) -> Result<(), Error> {
        let (down, hangs) = {
            let mut server = self.server();
            server.calls.push((Instant::now(), name));
            (server.down, server.hangs)
        };
        if hangs {
            pending::<()>().await;
        }
        if down {
            return Err(Error::registry("server", "down"));
        }
        Ok(())
    }

    fn count(&self, name: &str) -> usize {
        let calls = &self.server().calls;
        calls.iter().filter(|(_, call)| *call == name).count()
    }
}

impl Announcer for Shared {
    fn origin(&self) -> String {
        "server".into()
    }

    async fn enter(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        self.call("enter").await?;
        self.server().entry = Some(endpoint.clone());
        Ok(())
    }

    async fn beat(&mut self) -> Result<Beat, Error> {
        self.call("beat").await?;
        let server = self.server();
        Ok(match &server.entry {
            _ if server.replaced => Beat::Replaced,
            Some(_) => Beat::Alive,
            None => Beat::Forgotten,
        })
    }

    async fn leave(&mut self) -> Result<(), Error> {
        self.call("leave").await?;
        self.server().entry = None;
        Ok(())
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(10)
    }
}

async fn announced(shared: &Shared) -> Registration {
    let service = "users".parse().unwrap();
    let endpoint = Endpoint::at("10.0.0.1:80").unwrap();
    announce(shared.clone(), &service, endpoint).await.unwrap()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn beats_come_early_and_never_late() {
    let shared = Shared::default();
    let registration = announced(&shared).await;
    pass(1_000).await;
    assert!(registration.state().is_registered());
    let calls = shared.server().calls.clone();
    let gaps: Vec<_> = calls.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // A timer ticks in milliseconds.
    let (least, most) = (Duration::from_secs(8), Duration::from_millis(10_001));
    assert!(
        gaps.iter().all(|gap| (least..=most).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.len() >= 99);
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_told_and_nothing_keeps_running() {
    let shared = Shared::default();
    shared.server().down = true;
    let service = "users".parse().unwrap();
    let endpoint = Endpoint::at("10.0.0.1:80").unwrap();
    let refused = announce(shared.clone(), &service, endpoint).await;
    assert!(refused.unwrap_err().is_registry());
    pass(100).await;
    assert_eq!(shared.server().calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_entry_is_entered_again_at_the_next_beat() {
    let shared = Shared::default();
    let registration = announced(&shared).await;
    shared.server().entry = None;
    pass(11).await;
    assert!(shared.server().entry.is_some());
    assert!(registration.state().is_registered());
}

#[tokio::test(start_paused = true)]
async fn no_outage_is_too_long_for_the_beats() {
    let shared = Shared::default();
    let registration = announced(&shared).await;
    shared.server().down = true;
    pass(3 * 24 * 3_600).await;
    assert!(matches!(
        registration.state(),
        RegistrationState::Retrying(_)
    ));
    {
        let mut server = shared.server();
        (server.entry, server.down) = (None, false);
    }
    pass(21).await;
    assert!(shared.server().entry.is_some(), "entered again");
    assert!(registration.state().is_registered());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_counts_as_failing_and_holds_nothing_up() {
    let shared = Shared::default();
    let mut registration = announced(&shared).await;
    shared.server().hangs = true;
    pass(30).await;
    assert!(matches!(
        registration.state(),
        RegistrationState::Retrying(_)
    ));
    assert!(registration.set_weight(5).await.is_err());
    assert_eq!(
        registration.endpoint().weight(),
        1,
        "what was announced stands"
    );

    // A beat hangs when the order to leave comes.
    shared.server().hangs = false;
    pass(30).await;
    shared.server().hangs = true;
    pass(10).await;
    let begun = Instant::now();
    shared.server().hangs = false;
    registration.deregister().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(shared.server().entry.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_failed_is_undone() {
    let shared = Shared::default();
    let mut registration = announced(&shared).await;
    registration.set_status(Status::Draining).await.unwrap();
    shared.server().down = true;
    assert!(registration.set_weight(5).await.is_err());
    {
        // It had arrived, and only its answer was lost.
        let mut server = shared.server();
        server.entry = Some(registration.endpoint().clone().with_weight(5));
        server.down = false;
    }
    pass(1).await;
    let entry = shared.server().entry.clone();
    assert_eq!(entry.as_ref(), Some(registration.endpoint()));
    assert_eq!(entry.unwrap().status(), Status::Draining);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_entry_is_lost_and_left_alone() {
    let shared = Shared::default();
    let mut registration = announced(&shared).await;
    shared.server().replaced = true;
    pass(11).await;
    assert!(matches!(registration.state(), RegistrationState::Lost));
    assert!(registration.set_weight(2).await.is_err());
    let beats = shared.count("beat");
    pass(100).await;
    assert_eq!(shared.count("beat"), beats, "its beats have ended");
    registration.deregister().await.unwrap();
    assert_eq!(shared.count("leave"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_registration_leaves_and_tries_more_than_once() {
    let shared = Shared::default();
    let registration = announced(&shared).await;
    shared.server().down = true;
    drop(registration);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(shared.count("leave"), 1);
    shared.server().down = false;
    pass(1).await;
    assert_eq!(shared.count("leave"), 2);
    assert!(shared.server().entry.is_none());
}

#[tokio::test(start_paused = true)]
async fn leaving_is_given_up_to_the_entry_s_own_lapse() {
    let shared = Shared::default();
    let registration = announced(&shared).await;
    shared.server().down = true;
    assert!(registration.deregister().await.unwrap_err().is_registry());
    pass(100).await;
    assert_eq!(shared.count("leave"), LEAVING);
    assert_eq!(shared.count("beat"), 0, "and it is not kept alive");
}

/// Guards: a registration whose runtime had ended said that it had been taken
/// out.
#[test]
fn what_went_with_its_runtime_is_not_called_taken_out() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let shared = Shared::default();
    let first = runtime();
    let mut registration = first.block_on(announced(&shared));
    drop(first);
    assert!(matches!(registration.state(), RegistrationState::Lost));
    runtime().block_on(async {
        let refused = [
            registration.set_weight(5).await.unwrap_err(),
            registration.deregister().await.unwrap_err(),
        ];
        for refused in refused {
            assert!(refused.is_registry(), "{refused}");
            assert!(refused.to_string().contains("the runtime"), "{refused}");
        }
    });
    assert_eq!(shared.count("leave"), 0);
    assert!(shared.server().entry.is_some());
}
