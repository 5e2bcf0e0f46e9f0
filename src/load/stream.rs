//! gRPC's stream of reports apart from calls (gRFC A51): its names and messages, for those who ask and
//! those who answer.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::protobuf::{Reader, Value, prefixed, varint};
use super::{LoadReport, wrong};
use crate::error::Error;

/// The service, of one method.
pub(crate) const SERVICE: &str = "xds.service.orca.v3.OpenRcaService";
pub(crate) const PATH: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// How often a report is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Duration);

/// A message of the stream.
pub(crate) trait Message: Sized + Send + 'static {
    fn write(&self) -> Vec<u8>;

    fn read(bytes: &[u8]) -> Result<Self, Error>;
}

impl Message for LoadReport {
    fn write(&self) -> Vec<u8> {
        self.to_protobuf()
    }

    fn read(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_protobuf(bytes)
    }
}

/// `OrcaLoadReportRequest`: field 1 is a `google.protobuf.Duration`, whose fields are seconds and
/// nanoseconds.
impl Message for Interval {
    fn write(&self) -> Vec<u8> {
        let mut duration = Vec::new();
        for (number, value) in [(1, self.0.as_secs()), (2, u64::from(self.0.subsec_nanos()))] {
            varint(&mut duration, number << 3);
            varint(&mut duration, value);
        }
        let mut bytes = Vec::new();
        prefixed(&mut bytes, 1, &duration);
        bytes
    }

    /// What is left out is 0, by which a server takes its own interval.
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let broken = || wrong("report_interval", "", "is no duration of 0 or more");
        let (mut seconds, mut nanos) = (0, 0);
        let mut left = Reader(bytes);
        while let Some(field) = left.field().ok_or_else(broken)? {
            let (1, Value::Bytes(duration)) = field else {
                continue;
            };
            let mut left = Reader(duration);
            while let Some(field) = left.field().ok_or_else(broken)? {
                match field {
                    (1, Value::Varint(value)) => seconds = value,
                    (2, Value::Varint(value)) => nanos = value,
                    _ => {}
                }
            }
        }
        // Below 0, they have their highest bit.
        let nanos = u32::try_from(nanos).ok().filter(|&nanos| nanos < 1 << 30);
        match nanos {
            Some(nanos) if i64::try_from(seconds).is_ok() => Ok(Self(
                Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())),
            )),
            _ => Err(broken()),
        }
    }
}

/// Writes messages of one kind and reads those of the other. One that cannot be read is an item of
/// the stream, and not its end.
pub(crate) struct Wire<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Wire<E, D> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Message, D: Message> Codec for Wire<E, D> {
    type Encode = E;
    type Decode = Result<D, Error>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<E: Message, D> Encoder for Wire<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message.write());
        Ok(())
    }
}

impl<E, D: Message> Decoder for Wire<E, D> {
    type Item = Result<D, Error>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(D::read(&bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_what_protobuf_has_for_it() {
        let interval = Interval(Duration::from_millis(2_500));
        // As `protoc --encode` writes it: `report_interval { seconds: 2 nanos: 500000000 }`.
        let bytes = [0x0a, 8, 0x08, 2, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01];
        assert_eq!(interval.write(), bytes);
        assert_eq!(Interval::read(&bytes).unwrap(), interval);
        assert_eq!(Interval::read(&[]).unwrap(), Interval(Duration::ZERO));
        // Names of request costs are passed over.
        assert_eq!(
            Interval::read(&[0x12, 1, b'x', 0x0a, 2, 0x08, 7]).unwrap(),
            Interval(Duration::from_secs(7))
        );
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        for number in [0x08, 0x10] {
            let mut bytes = vec![0x0a, 11, number];
            bytes.extend(minus_one);
            assert!(Interval::read(&bytes).unwrap_err().is_invalid());
        }
        assert!(Interval::read(&[0x0a, 200]).is_err());
    }
}
