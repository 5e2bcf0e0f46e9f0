//! Endpoints by number, for the tests that need many of them.

use waypost::{Endpoint, EndpointSet};

/// The endpoint of that number; ids sort as the numbers do.
pub(crate) fn endpoint(number: usize) -> Endpoint {
    Endpoint::builder(format!("10.0.{}.{}:80", number / 256, number % 256))
        .id(format!("{number:05}"))
        .build()
        .expect("the parts are well-formed")
}

/// Endpoints 0, 1, 2 … of these weights.
pub(crate) fn weighted(weights: &[u32]) -> EndpointSet {
    let endpoints = (0..).zip(weights);
    EndpointSet::new(endpoints.map(|(number, &weight)| endpoint(number).with_weight(weight)))
        .expect("numbers differ")
}
