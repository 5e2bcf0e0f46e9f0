//! How a call ended, as its answer or its error tells.

use std::error::Error as StdError;
use std::time::SystemTime;
use std::{fmt, io};

use http::header::{HeaderMap, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::error::Error;
use crate::resilience::Pushback;
use crate::stats::Outcome;

/// Tells the outcome of a call from its answer or its error.
///
/// [`HttpStatus`] is the default of the HTTP integrations, [`GrpcStatus`] that
/// of tonic's. A classifier of your own usually asks one of them first:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use waypost::Outcome;
/// use waypost::client::{Answered, Classify, HttpStatus};
///
/// /// A replica that is behind answers 409, and another may not be.
/// #[derive(Debug)]
/// struct Behind;
///
/// impl Classify for Behind {
///     fn answer(&self, status: StatusCode, headers: &HeaderMap) -> Answered {
///         let mut answered = HttpStatus.answer(status, headers);
///         if status == StatusCode::CONFLICT {
///             answered.outcome = Outcome::ServerError;
///         }
///         answered
///     }
/// }
///
/// let answered = Behind.answer(StatusCode::CONFLICT, &HeaderMap::new());
/// assert!(answered.outcome.is_failure());
/// ```
pub trait Classify: fmt::Debug + Send + Sync + 'static {
    /// Of the head of an answer.
    fn answer(&self, status: StatusCode, headers: &HeaderMap) -> Answered;

    /// Of the trailers behind its body, where they tell more than its head;
    /// none when they do not.
    fn trailers(&self, trailers: &HeaderMap) -> Option<Outcome> {
        let _ = trailers;
        None
    }

    /// Of a body that came to its end without trailers, by the head before it;
    /// none when such an answer is whole.
    fn without_trailers(&self, headers: &HeaderMap) -> Option<Outcome> {
        let _ = headers;
        None
    }

    /// Of an error instead of an answer. [`outcome_of_error`] knows the
    /// transports.
    fn error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        outcome_of_error(error)
    }
}

/// What the head of an answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// How the call ended, if its body ends as it should.
    pub outcome: Outcome,
    /// The gRPC status code, where the head carries it.
    pub grpc: Option<u32>,
    /// What the server says of retries.
    pub pushback: Pushback,
}

/// HTTP: a status of 500 and above is the endpoint's fault; 502, 503 and 504
/// are [gateway errors](Outcome::GatewayError).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpStatus;

impl Classify for HttpStatus {
    fn answer(&self, status: StatusCode, headers: &HeaderMap) -> Answered {
        let outcome = match status.as_u16() {
            502..=504 => Outcome::GatewayError,
            500..=599 => Outcome::ServerError,
            _ => Outcome::Success,
        };
        // A success asks for no retry, so that most answers cost no look.
        let told = (!status.is_success())
            .then(|| headers.get(RETRY_AFTER))
            .flatten();
        let told = told.and_then(|told| told.to_str().ok());
        Answered {
            outcome,
            grpc: None,
            pushback: told.map_or(Pushback::None, retry_after),
        }
    }
}

/// Seconds or a date in any of the three formats of RFC 9110.
fn retry_after(told: &str) -> Pushback {
    let Ok(date) = httpdate::parse_http_date(told) else {
        return Pushback::retry_after(told);
    };
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    };
    Pushback::retry_after_date(seconds(date), seconds(SystemTime::now()))
}

/// gRPC: the status is in the trailers, or in the head when there is nothing
/// else.
///
/// The endpoint's fault are `UNKNOWN`, `DEADLINE_EXCEEDED`,
/// `RESOURCE_EXHAUSTED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS`: those that
/// Envoy maps to 429 and to 5xx, but for `UNIMPLEMENTED`, which the caller can
/// mend. `UNAVAILABLE` and `DEADLINE_EXCEEDED`, which it maps to 503 and 504,
/// are [gateway errors](Outcome::GatewayError).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcStatus;

impl GrpcStatus {
    const HEADER: &'static str = "grpc-status";

    /// The code that a head or trailers carry; 2 (`UNKNOWN`) when it is no
    /// number, as gRPC has it.
    #[must_use]
    pub fn code(headers: &HeaderMap) -> Option<u32> {
        let code = headers.get(Self::HEADER)?;
        let code = code.to_str().ok().and_then(|code| code.parse().ok());
        Some(code.filter(|&code| code <= 16).unwrap_or(2))
    }

    fn outcome(code: u32) -> Outcome {
        match code {
            4 | 14 => Outcome::GatewayError,
            2 | 8 | 13 | 15 => Outcome::ServerError,
            _ => Outcome::Success,
        }
    }
}

impl Classify for GrpcStatus {
    fn answer(&self, status: StatusCode, headers: &HeaderMap) -> Answered {
        let grpc = Self::code(headers);
        let outcome = match grpc {
            Some(code) => Self::outcome(code),
            None if status == StatusCode::OK => Outcome::Success,
            // Something on the way that does not speak gRPC.
            None => match HttpStatus.answer(status, headers).outcome {
                Outcome::Success => Outcome::ServerError,
                failure => failure,
            },
        };
        let told = headers.get(Pushback::GRPC_HEADER).map(HeaderValue::to_str);
        Answered {
            outcome,
            grpc,
            pushback: told.map_or(Pushback::None, |told| {
                told.map_or(Pushback::Never, Pushback::grpc)
            }),
        }
    }

    fn trailers(&self, trailers: &HeaderMap) -> Option<Outcome> {
        Self::code(trailers).map(Self::outcome)
    }

    /// An answer that never told its status broke off.
    fn without_trailers(&self, headers: &HeaderMap) -> Option<Outcome> {
        Self::code(headers)
            .is_none()
            .then_some(Outcome::Interrupted)
    }
}

/// How a call ended that has no answer, from the errors below the client's own.
///
/// Provably not sent are: a connection that was refused or never made, a
/// request that hyper dropped before it wrote any of it, and an HTTP/2 stream
/// that the server refused (`REFUSED_STREAM`, RFC 9113, 8.7) or went away
/// without (`GOAWAY`, 6.8). A request body that fails is its caller's fault,
/// and the call counts as cancelled.
#[must_use]
pub fn outcome_of_error(error: &(dyn StdError + 'static)) -> Outcome {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(outcome) = known(error) {
            return outcome;
        }
        next = error.source();
    }
    Outcome::Interrupted
}

fn known(error: &(dyn StdError + 'static)) -> Option<Outcome> {
    #[cfg(feature = "hyper-util")]
    if let Some(outcome) = hyper(error) {
        return Some(outcome);
    }
    #[cfg(feature = "tonic")]
    if error.is::<tonic::ConnectError>() {
        return Some(Outcome::NotSent);
    }
    #[cfg(feature = "tonic")]
    if error.is::<tonic::TimeoutExpired>() {
        return Some(Outcome::TimedOut);
    }
    if error.is::<tokio::time::error::Elapsed>() {
        return Some(Outcome::TimedOut);
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return error.is_timed_out().then_some(Outcome::TimedOut);
    }
    let error = error.downcast_ref::<io::Error>()?;
    match error.kind() {
        // Only making a connection ends so.
        io::ErrorKind::ConnectionRefused => Some(Outcome::NotSent),
        io::ErrorKind::TimedOut => Some(Outcome::TimedOut),
        _ => None,
    }
}

#[cfg(feature = "hyper-util")]
fn hyper(error: &(dyn StdError + 'static)) -> Option<Outcome> {
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect().then_some(Outcome::NotSent);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        if error.is_canceled() {
            return Some(Outcome::NotSent);
        }
        return error.is_user().then_some(Outcome::Cancelled);
    }
    let error = error.downcast_ref::<h2::Error>()?;
    // Of streams that a server which goes away has begun with, h2 does not say so.
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away();
    let given_up = error.is_reset() && !error.is_remote() && !error.is_library();
    if error.is_remote() && refused {
        return Some(Outcome::NotSent);
    }
    given_up.then_some(Outcome::Cancelled)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = value.parse().expect("it is a value");
        HeaderMap::from_iter([(name.parse().expect("it is a name"), value)])
    }

    #[test]
    fn of_http_a_status_of_500_and_above_is_a_failure() {
        for status in 100..1_000 {
            let status = StatusCode::from_u16(status).unwrap();
            let answered = HttpStatus.answer(status, &HeaderMap::new());
            let server_error = (500..600).contains(&status.as_u16());
            assert_eq!(answered.outcome.is_failure(), server_error, "{status}");
            let gateway = answered.outcome == Outcome::GatewayError;
            assert_eq!(gateway, (502..=504).contains(&status.as_u16()), "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let told = |value: &str| {
            let headers = headers("retry-after", value);
            let well = HttpStatus.answer(StatusCode::OK, &headers);
            assert_eq!(well.pushback, Pushback::None, "a success asks for no retry");
            HttpStatus
                .answer(StatusCode::SERVICE_UNAVAILABLE, &headers)
                .pushback
        };
        assert_eq!(told("3"), Pushback::After(Duration::from_secs(3)));
        let past = "Sunday, 06-Nov-94 08:49:37 GMT";
        assert_eq!(told(past), Pushback::After(Duration::ZERO));
        let soon = SystemTime::now() + Duration::from_mins(2);
        let Pushback::After(wait) = told(&httpdate::fmt_http_date(soon)) else {
            panic!("a date is a time to come back");
        };
        assert!(wait.as_secs().abs_diff(120) <= 2, "{wait:?}");
        assert_eq!(told("tomorrow"), Pushback::None);
    }

    #[test]
    fn of_grpc_the_code_counts_wherever_it_is() {
        for code in 0..=16 {
            let told = headers("grpc-status", &code.to_string());
            let answered = GrpcStatus.answer(StatusCode::OK, &told);
            assert_eq!(answered.grpc, Some(code));
            let fault = [2, 4, 8, 13, 14, 15].contains(&code);
            assert_eq!(answered.outcome.is_failure(), fault, "{code}");
            let gateway = answered.outcome == Outcome::GatewayError;
            assert_eq!(gateway, [4, 14].contains(&code), "{code}");
            assert_eq!(GrpcStatus.trailers(&told), Some(answered.outcome));
        }
        for nonsense in ["-1", "17", "x", "4294967296"] {
            let told = headers("grpc-status", nonsense);
            assert_eq!(GrpcStatus::code(&told), Some(2), "{nonsense}");
        }
        let head = GrpcStatus.answer(StatusCode::OK, &HeaderMap::new());
        assert_eq!((head.outcome, head.grpc), (Outcome::Success, None));
        let proxy = GrpcStatus.answer(StatusCode::BAD_GATEWAY, &HeaderMap::new());
        assert!(proxy.outcome.is_failure());
        assert_eq!(GrpcStatus.trailers(&HeaderMap::new()), None);
        let told = headers("grpc-retry-pushback-ms", "-1");
        let answered = GrpcStatus.answer(StatusCode::OK, &told);
        assert_eq!(answered.pushback, Pushback::Never);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_cause_is_looked_for_through_all_layers() {
        for (kind, outcome) in [
            (io::ErrorKind::ConnectionRefused, Outcome::NotSent),
            (io::ErrorKind::TimedOut, Outcome::TimedOut),
            (io::ErrorKind::ConnectionReset, Outcome::Interrupted),
            (io::ErrorKind::UnexpectedEof, Outcome::Interrupted),
        ] {
            assert_eq!(outcome_of_error(&Outer(kind.into())), outcome, "{kind}");
        }
    }
}
