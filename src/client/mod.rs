//! Around the client: pick, send, classify, record.
mod directory;
pub use directory::Directory;
