//! The background task that follows a registry.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::task::AbortHandle;

use super::updater::Updater;
use crate::endpoint::EndpointSet;
use crate::error::Error;

/// Ends the task when the last clone of the balancer is dropped.
#[derive(Debug)]
pub(super) struct Driver(pub(super) AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers that are ready at once are taken as one: only the last of them is
/// applied. The bound keeps a source that is always ready from starving it.
const COALESCED: usize = 64;

/// How long a state that threads still read waits for the next look.
const COLLECT: Duration = Duration::from_secs(1);

pub(super) async fn run(
    mut updater: Updater,
    answers: BoxStream<'static, Result<EndpointSet, Error>>,
) {
    let mut answers = answers.fuse();
    let mut leftovers = false;
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            () = tokio::time::sleep(COLLECT), if leftovers => {
                leftovers = updater.collect();
                continue;
            }
        };
        let Some(answer) = answer else {
            let reason = "its stream of sets ended; the last set goes on serving";
            updater.fail(Error::registry("registry", reason));
            break;
        };
        let (mut set, mut error) = (None, None);
        let more = std::iter::from_fn(|| answers.next().now_or_never().flatten());
        for answer in std::iter::once(answer).chain(more.take(COALESCED)) {
            match answer {
                Ok(newer) => (set, error) = (Some(newer), None),
                Err(newer) => error = Some(newer),
            }
        }
        if let Some(set) = set {
            updater.apply(set);
        }
        if let Some(error) = error {
            updater.fail(error);
        }
        leftovers = updater.collect();
        tokio::task::yield_now().await;
    }
    while updater.collect() {
        tokio::time::sleep(COLLECT).await;
    }
}
