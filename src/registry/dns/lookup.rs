//! One round of questions, and what the answers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{self, RData, Record, RecordType};

use super::builder::{DnsBuilder, Families};
use crate::endpoint::{Endpoint, Skipped};
use crate::error::Error;
use crate::registry::follow::Answer;

pub(super) struct Lookup {
    resolver: TokioResolver,
    pub(super) settings: DnsBuilder,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Miss {
    /// DNS says that there is none.
    Negative(Error, Duration),
    /// DNS says nothing.
    Failed(Error),
}

/// What a round of questions brought, and for how long it holds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) answer: Answer,
    pub(super) ttl: Duration,
}

/// SRV targets that are resolved at once.
const AT_ONCE: usize = 8;

/// What weight 0 is beside others: RFC 2782 gives it "a very small chance".
const HARDLY: u32 = 100;

impl Lookup {
    pub(super) fn new(resolver: TokioResolver, settings: DnsBuilder) -> Self {
        Self { resolver, settings }
    }

    pub(super) async fn ask(&self, name: &rr::Name) -> Result<Found, Miss> {
        match self.settings.port {
            Some(port) => {
                let mut found = Collected::default();
                for ip in self.addresses(name, &mut found).await? {
                    found.take(Endpoint::at(SocketAddr::new(ip, port)));
                }
                Ok(found.done())
            }
            None => self.services(name).await,
        }
    }

    async fn services(&self, name: &rr::Name) -> Result<Found, Miss> {
        let mut found = Collected::default();
        let mut records = Vec::new();
        for record in self.records(name, RecordType::SRV).await? {
            if let RData::SRV(srv) = &record.data {
                found.lives(&record);
                // The root as target: "decidedly not available" (RFC 2782).
                if !srv.target.is_root() {
                    records.push(srv.clone());
                }
            }
        }
        // Of two records with one address and port, the better priority is used.
        records
            .sort_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
        let targets: BTreeSet<_> = records.iter().map(|srv| srv.target.clone()).collect();
        let resolving = targets.into_iter().map(|target| async move {
            let mut lives = Collected::default();
            let ips = self.addresses(&target, &mut lives).await;
            (target, ips, lives.ttl)
        });
        let resolved: Vec<_> = stream::iter(resolving)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut ips = BTreeMap::new();
        for (target, answer, ttl) in resolved {
            match answer {
                Ok(answer) => {
                    found.ttl = shorter(found.ttl, ttl);
                    ips.insert(target, answer);
                }
                Err(Miss::Negative(error, _)) => Skipped::count(&mut found.answer.skipped, error),
                // Half of an answer would take the other half away.
                Err(failed) => return Err(failed),
            }
        }
        for srv in &records {
            let alike = records
                .iter()
                .filter(|other| other.priority == srv.priority);
            let all_zero = alike.clone().all(|other| other.weight == 0);
            let some_zero = alike.clone().any(|other| other.weight == 0);
            let weight = match u32::from(srv.weight) {
                0 => 1,
                weight if some_zero && !all_zero => weight * HARDLY,
                weight => weight,
            };
            let authority = srv.target.to_ascii();
            for ip in ips.get(&srv.target).into_iter().flatten() {
                let endpoint = Endpoint::builder(SocketAddr::new(*ip, srv.port))
                    .weight(weight)
                    .priority(srv.priority.into())
                    .authority(format!("{}:{}", authority.trim_end_matches('.'), srv.port));
                found.take(endpoint.build());
            }
        }
        Ok(found.done())
    }

    /// The addresses of a name, by the families that are wanted.
    async fn addresses(&self, name: &rr::Name, found: &mut Collected) -> Result<Vec<IpAddr>, Miss> {
        let (first, second) = match self.settings.families {
            Families::PreferV4 => (RecordType::A, Some(RecordType::AAAA)),
            Families::PreferV6 => (RecordType::AAAA, Some(RecordType::A)),
            Families::V4 => (RecordType::A, None),
            Families::V6 => (RecordType::AAAA, None),
            Families::Both => {
                let (v4, v6) = futures::join!(
                    self.records(name, RecordType::A),
                    self.records(name, RecordType::AAAA),
                );
                let both = match (v4, v6) {
                    (Ok(v4), Ok(v6)) => [v4, v6].concat(),
                    (Ok(one), Err(Miss::Negative(..))) | (Err(Miss::Negative(..)), Ok(one)) => one,
                    (Err(failed @ Miss::Failed(_)), _) | (_, Err(failed)) => return Err(failed),
                };
                return Ok(found.ips(&both));
            }
        };
        let records = match (self.records(name, first).await, second) {
            (Err(Miss::Negative(..)), Some(second)) => self.records(name, second).await?,
            (records, _) => records?,
        };
        Ok(found.ips(&records))
    }

    async fn records(&self, name: &rr::Name, kind: RecordType) -> Result<Vec<Record>, Miss> {
        let error = match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => return Ok(lookup.answers().to_vec()),
            Err(error) => error,
        };
        let origin = format!("dns {kind} {name}");
        Err(match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => {
                let ttl = none.negative_ttl.unwrap_or(0);
                let reason = format!("there is no such record ({})", none.response_code);
                let error = Error::registry(origin, reason);
                Miss::Negative(error, Duration::from_secs(ttl.into()))
            }
            error => {
                let reason = format!("no server answers: {error}");
                Miss::Failed(Error::registry_because(origin, reason, error))
            }
        })
    }
}

/// Endpoints as they come, and the shortest time that a record lives.
#[derive(Default)]
struct Collected {
    answer: Answer,
    ttl: Option<Duration>,
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

impl Collected {
    fn lives(&mut self, record: &Record) {
        let ttl = Duration::from_secs(record.ttl.into());
        self.ttl = shorter(self.ttl, Some(ttl));
    }

    fn ips(&mut self, records: &[Record]) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for record in records {
            // An alias on the way lives for its own time.
            self.lives(record);
            match &record.data {
                RData::A(ip) => ips.push(ip.0.into()),
                RData::AAAA(ip) => ips.push(ip.0.into()),
                _ => {}
            }
        }
        ips
    }

    fn take(&mut self, endpoint: Result<Endpoint, Error>) {
        match endpoint {
            Ok(endpoint) => self.answer.endpoints.push(Arc::new(endpoint)),
            Err(error) => Skipped::count(&mut self.answer.skipped, error),
        }
    }

    fn done(self) -> Found {
        Found {
            answer: self.answer,
            ttl: self.ttl.unwrap_or_default(),
        }
    }
}
