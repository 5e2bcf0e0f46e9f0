//! An entry, kept by a lease.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tonic::{Code, Status};

use super::Shared;
use super::layout::prefix_of;
use super::servers::{Failure, GRANT, KEEP_ALIVE, PUT, RANGE, REVOKE};
use super::wire::{
    Done, LeaseGrantRequest, LeaseKeepAliveResponse, LeaseRequest, PutRequest, RangeRequest,
    RangeResponse,
};
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::registry::announce::{Announcer, Beat};
use crate::rng::Rng;

pub(super) struct Entry {
    shared: Arc<Shared>,
    key: Vec<u8>,
    /// Chosen here, so that a grant whose answer was lost can be asked for
    /// again, and a key's lease tells whose entry it is.
    lease: i64,
    is_granted: bool,
    rng: Rng,
}

impl Entry {
    pub(super) fn new(
        shared: Arc<Shared>,
        service: &ServiceName,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        // What cannot be written is refused before anything is sent.
        shared.layout.write(endpoint)?;
        let key = prefix_of(&shared.prefix, service) + endpoint.id().as_str();
        let mut rng = Rng::from_entropy();
        Ok(Self {
            shared,
            key: key.into_bytes(),
            lease: lease_id(&mut rng),
            is_granted: false,
            rng,
        })
    }

    async fn grant(&mut self) -> Result<(), Failure> {
        if self.is_granted {
            return Ok(());
        }
        let question = LeaseGrantRequest {
            ttl: self.shared.ttl.as_secs().cast_signed(),
            id: self.lease,
        };
        let granted: Result<Done, _> = self.shared.servers.ask(GRANT, &question).await;
        match granted {
            Ok(_) => {}
            // Ours, from a try whose answer did not arrive.
            Err(failure) if failure.code == Code::FailedPrecondition => {}
            Err(failure) => return Err(failure),
        }
        self.is_granted = true;
        Ok(())
    }

    fn forget_lease(&mut self) {
        self.lease = lease_id(&mut self.rng);
        self.is_granted = false;
    }

    /// Whether the lease lives on.
    async fn renew(&self) -> Result<bool, Error> {
        let question = LeaseRequest { id: self.lease };
        let servers = &self.shared.servers;
        let (member, mut answers) = servers
            .stream::<_, LeaseKeepAliveResponse>(KEEP_ALIVE, &question, false)
            .await?;
        let first = async {
            let ended = Status::unavailable("the stream ended before its answer");
            answers.next().await.unwrap_or(Err(ended))
        };
        match servers.in_time(member, KEEP_ALIVE, first).await {
            Ok(answer) => Ok(answer.ttl > 0),
            Err(failure) if failure.code == Code::NotFound => Ok(false),
            Err(failure) => {
                servers.turn_from(member);
                Err(failure.error)
            }
        }
    }

    /// The lease of the entry that is there; none when there is none.
    async fn whose(&self) -> Result<Option<i64>, Error> {
        let question = RangeRequest {
            key: self.key.clone(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let found: RangeResponse = self.shared.servers.ask(RANGE, &question).await?;
        Ok(found.kvs.first().map(|kv| kv.lease))
    }
}

/// Any positive number; that two of a cluster's leases have the same one is as
/// likely as that a random key is guessed.
fn lease_id(rng: &mut Rng) -> i64 {
    ((rng.bits() >> 1) | 1).cast_signed()
}

impl Announcer for Entry {
    fn origin(&self) -> String {
        self.shared.servers.origin(self.shared.servers.current())
    }

    async fn enter(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let value = self.shared.layout.write(endpoint)?;
        self.grant().await?;
        let put = async |entry: &Self| -> Result<Done, Failure> {
            let question = PutRequest {
                key: entry.key.clone(),
                value: value.clone(),
                lease: entry.lease,
            };
            entry.shared.servers.ask(PUT, &question).await
        };
        match put(self).await {
            // The lease ended in the meantime, or the cluster forgot it.
            Err(failure) if failure.code == Code::NotFound => {
                self.forget_lease();
                self.grant().await?;
                put(self).await?;
            }
            done => {
                done?;
            }
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<Beat, Error> {
        let is_alive = self.renew().await?;
        let found = match self.whose().await? {
            Some(lease) if lease != self.lease => Beat::Replaced,
            Some(_) if is_alive => Beat::Alive,
            _ => Beat::Forgotten,
        };
        if !is_alive {
            self.forget_lease();
        }
        Ok(found)
    }

    /// The entry goes with its lease; one that another registration has put in
    /// its place hangs on another lease.
    async fn leave(&mut self) -> Result<(), Error> {
        let question = LeaseRequest { id: self.lease };
        let revoked: Result<Done, _> = self.shared.servers.ask(REVOKE, &question).await;
        match revoked {
            Err(failure) if failure.code != Code::NotFound => Err(failure.error),
            _ => Ok(()),
        }
    }

    fn interval(&self) -> Duration {
        self.shared.ttl / 3
    }
}
