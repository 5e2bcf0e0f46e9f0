//! How a server leaves when its registry does not do its part.

use std::future::pending;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use waypost::endpoint::ServiceName;
use waypost::registry::{Discover, Keeper, Registration, RegistrationState, Registry};
use waypost::server::{Goodbye, Lifecycle};
use waypost::{Endpoint, EndpointSet, Error};

/// What a registry does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Well,
    Fails,
    Hangs,
}

impl Does {
    fn answer(self) -> BoxFuture<'static, Result<(), Error>> {
        async move {
            match self {
                Self::Well => Ok(()),
                Self::Fails => Err(Error::registry("the test", "it does not know that")),
                Self::Hangs => pending().await,
            }
        }
        .boxed()
    }
}

#[derive(Clone, Debug)]
struct Odd {
    update: Does,
    deregister: Does,
    released: watch::Sender<bool>,
}

impl Keeper for Odd {
    fn state(&self) -> RegistrationState {
        RegistrationState::Registered
    }

    fn update(&self, _: Endpoint) -> BoxFuture<'_, Result<(), Error>> {
        self.update.answer()
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.deregister.answer()
    }

    fn release(&self) {
        self.released.send_replace(true);
    }
}

impl Discover for Odd {
    fn watch(&self, _: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        futures::stream::pending().boxed()
    }
}

impl Registry for Odd {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        let registration = Registration::new(service.clone(), endpoint, self.clone());
        async { Ok(registration) }.boxed()
    }
}

const CONVERGENCE: Duration = Duration::from_secs(5);

/// How a server left, after how long it stopped to accept, and whether its entry was given up.
async fn leave(update: Does, deregister: Does) -> (Goodbye, Duration, bool) {
    let odd = Odd {
        update,
        deregister,
        released: watch::Sender::new(false),
    };
    let service = "users".parse().expect("it is a name");
    let endpoint = Endpoint::at("10.0.0.1:80").expect("it is an address");
    let lifecycle = Lifecycle::new().convergence(CONVERGENCE);
    let serving = lifecycle.register(&odd, &service, endpoint).await;
    let serving = serving.expect("it takes everybody");
    let (ready, stopping) = (serving.readiness(), serving.stopping());
    let began = Instant::now();
    let leaving = tokio::spawn(serving.shutdown());
    stopping.await;
    let stopped = began.elapsed();
    assert!(!ready.is_ready());
    let goodbye = leaving.await.expect("no panic");
    (goodbye, stopped, *odd.released.borrow())
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_keeps_no_server_from_leaving() {
    for (update, deregister) in [
        (Does::Hangs, Does::Well),
        (Does::Well, Does::Hangs),
        (Does::Hangs, Does::Hangs),
    ] {
        let left = leave(update, deregister);
        let left = tokio::time::timeout(Duration::from_mins(2), left).await;
        let (goodbye, stopped, released) = left.expect("it leaves");
        assert!(!goodbye.is_clean() && goodbye.registry.is_some());
        assert!(stopped >= CONVERGENCE && stopped <= CONVERGENCE + Duration::from_secs(11));
        assert!(released, "the entry is given up without being waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_out_of_the_registry_left_cleanly_whatever_was_said_before() {
    let (goodbye, stopped, _) = leave(Does::Fails, Does::Well).await;
    assert!(goodbye.is_clean(), "{goodbye:?}");
    assert!(stopped >= CONVERGENCE);
    let (goodbye, stopped, _) = leave(Does::Well, Does::Fails).await;
    let told = goodbye.registry.as_ref().expect("it could not be told");
    assert!(told.is_registry() && !goodbye.is_clean(), "{told}");
    assert!(stopped >= CONVERGENCE);
}
