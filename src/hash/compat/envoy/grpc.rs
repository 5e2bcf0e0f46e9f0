//! gRPC's `ring_hash` ([A42], [A76]): Envoy's ring, with sizes that the client caps.
//!
//! [A42]: https://github.com/grpc/proposal/blob/master/A42-xds-ring-hash-lb-policy.md
//! [A76]: https://github.com/grpc/proposal/blob/master/A76-ring-hash-improvements.md

use super::EnvoyRingBuilder;

/// The cap of a client that doesn't set another (`grpc.lb.ring_hash.ring_size_cap`).
const CAP: u64 = 4096;

impl EnvoyRingBuilder {
    /// Sizes as gRPC's policy `ring_hash` takes them: both are capped at 4096, which is also the
    /// maximum if none is set.
    ///
    /// Proven against gRPC's C core, which builds its ring in the order of the addresses, as Envoy
    /// does, for addresses of equal weight: a target names no others. grpc-go (read, not run) sorts
    /// them first, so give them sorted to agree with it.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::compat::envoy::EnvoyRing;
    ///
    /// // {"ring_hash_experimental": {"minRingSize": 1024, "requestHashHeader": "x-user"}}
    /// let ring = EnvoyRing::builder()
    ///     .minimum_ring_size(1024)
    ///     .maximum_ring_size(8192)
    ///     .capped_as_in_grpc()
    ///     .build([("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])?;
    /// assert!(ring.lookup_key(b"user-7").is_some());
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    #[must_use]
    pub fn capped_as_in_grpc(mut self) -> Self {
        self.minimum = self.minimum.min(CAP);
        self.maximum = self.maximum.min(CAP);
        self
    }
}
