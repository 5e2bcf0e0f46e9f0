//! How a call ended.

/// How a call ended, as far as balancing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It was answered, and the answer is no fault of the endpoint.
    Success,
    /// It was answered with an error of the endpoint, such as a status of 500.
    ServerError,
    /// It was answered by what stands before the endpoint, or by the endpoint in
    /// its stead, with a status of 502, 503 or 504, or gRPC's `UNAVAILABLE` or
    /// `DEADLINE_EXCEEDED`: bad gateway, unavailable, timed out on the way.
    GatewayError,
    /// It never left the client: no connection could be made. Safe to send
    /// elsewhere whatever the call does.
    NotSent,
    /// It broke off after it may have reached the endpoint.
    Interrupted,
    /// It took longer than it was allowed to.
    TimedOut,
    /// Its caller gave it up, which says nothing about the endpoint.
    Cancelled,
}

impl Outcome {
    /// Whether the endpoint, or the way to it, is to blame.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Success | Self::Cancelled => false,
            Self::ServerError
            | Self::GatewayError
            | Self::NotSent
            | Self::Interrupted
            | Self::TimedOut => true,
        }
    }

    /// Whether the call surely had no effect, so that sending it elsewhere
    /// cannot do anything twice.
    #[must_use]
    pub const fn is_not_sent(self) -> bool {
        matches!(self, Self::NotSent)
    }

    /// Whether the time it took is the time the endpoint needs for an answer.
    pub(crate) const fn is_answer(self) -> bool {
        matches!(self, Self::Success | Self::ServerError | Self::GatewayError)
    }
}
