//! placeholder
/// x
#[derive(Debug)]
pub struct Directory;
