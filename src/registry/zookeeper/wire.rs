//! Requests and answers of ZooKeeper's client protocol, as `zookeeper.jute` of
//! 3.5 writes them: numbers are big-endian, texts and bytes begin with their
//! length, and nothing has a name.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use bytes::{Buf as _, Bytes, BytesMut};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) code: i32,
    pub(super) name: &'static str,
}

pub(super) const CREATE_ONLY: Op = op(1, "create");
pub(super) const DELETE: Op = op(2, "delete");
pub(super) const EXISTS: Op = op(3, "exists");
pub(super) const GET_DATA: Op = op(4, "getData");
pub(super) const SET_DATA: Op = op(5, "setData");
pub(super) const GET_CHILDREN: Op = op(8, "getChildren");
pub(super) const PING: Op = op(11, "ping");
pub(super) const MULTI: Op = op(14, "multi");
pub(super) const CREATE: Op = op(15, "create2");
pub(super) const CREATE_CONTAINER: Op = op(19, "createContainer");
pub(super) const AUTH: Op = op(100, "auth");
pub(super) const CLOSE: Op = op(-11, "closeSession");

const fn op(code: i32, name: &'static str) -> Op {
    Op { code, name }
}

/// What stands for a request's number in the answers to others.
pub(super) const XID_EVENT: i32 = -1;
pub(super) const XID_PING: i32 = -2;
pub(super) const XID_AUTH: i32 = -4;

/// Why a request failed.
pub(super) const NO_NODE: i32 = -101;
pub(super) const NO_AUTH: i32 = -102;
pub(super) const NODE_EXISTS: i32 = -110;

pub(super) fn reason(code: i32) -> (&'static str, &'static str) {
    match code {
        -4 => ("ConnectionLoss", ""),
        -6 => ("Unimplemented", "; ZooKeeper 3.5 or later is needed"),
        -8 => ("BadArguments", ""),
        NO_NODE => ("NoNode", ""),
        NO_AUTH => ("NoAuth", "; give the user that may do so with `digest`"),
        -108 => ("NoChildrenForEphemerals", "; a service has a node's name"),
        NODE_EXISTS => ("NodeExists", ""),
        -112 => ("SessionExpired", ""),
        -114 => ("InvalidACL", ""),
        -115 => ("AuthFailed", "; check the user and the password"),
        -118 => ("SessionMoved", ""),
        -119 => ("NotReadOnly", ""),
        -125 => ("QuotaExceeded", ""),
        _ => ("an error", ""),
    }
}

/// A message that is written.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn flag(mut self, value: bool) -> Self {
        self.0.push(value.into());
        self
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        let length = i32::try_from(value.len()).expect("no value has 2 GiB");
        self = self.int(length);
        self.0.extend(value);
        self
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }
}

/// A message that is read; `None` where it ends too early or makes no sense.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn int(&mut self) -> Option<i32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*value))
    }

    pub(super) fn long(&mut self) -> Option<i64> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i64::from_be_bytes(*value))
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        let (value, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*value != 0)
    }

    /// Bytes; a length of -1, nothing at all, is as good as none.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.int()?;
        if length == -1 {
            return Some(&[]);
        }
        let (value, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(value)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn texts(&mut self) -> Option<Vec<String>> {
        let count = self.int()?;
        if count < -1 {
            return None;
        }
        // It is not trusted with memory: each text is read.
        (0..count).map(|_| Some(self.text()?.to_owned())).collect()
    }

    pub(super) fn stat(&mut self) -> Option<Stat> {
        let created = self.long()?;
        let (_changed, _ctime, _mtime) = (self.long()?, self.long()?, self.long()?);
        let (_version, _cversion, _aversion) = (self.int()?, self.int()?, self.int()?);
        let owner = self.long()?;
        let (_length, _children, _pzxid) = (self.int()?, self.int()?, self.long()?);
        Some(Stat { created, owner })
    }
}

/// Why a message cannot be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoMessage {
    /// Its length is below zero.
    Nonsense,
    /// So many bytes are more than are taken.
    TooLong(usize),
}

/// Takes the first whole message, if one has arrived, of at most that many bytes.
pub(super) fn message(input: &mut BytesMut, most: usize) -> Result<Option<Bytes>, NoMessage> {
    let Some(length) = input.first_chunk() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length).map_err(|_| NoMessage::Nonsense)?;
    if length > most {
        return Err(NoMessage::TooLong(length));
    }
    if input.len() < 4 + length {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}

/// The first answer on a connection: the session that it goes on with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello<'a> {
    /// Of the session, in milliseconds; 0 when it has expired.
    pub(super) timeout: i32,
    pub(super) session: i64,
    pub(super) password: &'a [u8],
}

impl<'a> Hello<'a> {
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let mut read = Reader(message);
        let _version = read.int()?;
        Some(Self {
            timeout: read.int()?,
            session: read.long()?,
            password: read.bytes()?,
        })
    }
}

/// What every later message begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the request that it answers, or what stands for one.
    pub(super) xid: i32,
    /// The newest transaction that the server knows; 0 or less in events.
    pub(super) zxid: i64,
    /// 0, or why the request failed.
    pub(super) code: i32,
}

impl Reader<'_> {
    pub(super) fn head(&mut self) -> Option<Head> {
        Some(Head {
            xid: self.int()?,
            zxid: self.long()?,
            code: self.int()?,
        })
    }

    /// The path of what happened to a node.
    pub(super) fn event(&mut self) -> Option<&str> {
        let (_kind, _state) = (self.int()?, self.int()?);
        self.text()
    }

    /// What came of a deletion and a creation in one transaction: nothing, or
    /// why none of the two was done, which the first that is an error tells.
    pub(super) fn replaced(&mut self) -> Option<Result<(), i32>> {
        let (op, is_done, _code) = (self.int()?, self.flag()?, self.int()?);
        if is_done {
            return None;
        }
        match op {
            code if code == DELETE.code => Some(Ok(())),
            -1 => {
                let first = self.int()?;
                Some(Err(match (first, self.int(), self.flag(), self.int()) {
                    (0, Some(-1), Some(false), Some(second)) => second,
                    _ => first,
                }))
            }
            _ => None,
        }
    }
}

/// What is known of a node beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The transaction that made it (`czxid`).
    pub(super) created: i64,
    /// The session that it ends with (`ephemeralOwner`).
    pub(super) owner: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written = Writer::default().int(-7).long(1 << 40).flag(true);
        let written = written.text("größe").bytes(&[1, 2]).int(1).text("a");
        let mut read = Reader(&written.0);
        assert_eq!(read.int(), Some(-7));
        assert_eq!(read.long(), Some(1 << 40));
        assert_eq!(read.flag(), Some(true));
        assert_eq!(read.text(), Some("größe"));
        assert_eq!(read.bytes(), Some(&[1, 2][..]));
        assert_eq!(read.texts(), Some(vec!["a".to_owned()]));
        assert_eq!(read.int(), None);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for length in [-2, 5, i32::MAX, i32::MIN] {
            let written = Writer::default().int(length).int(0);
            assert_eq!(Reader(&written.0).bytes(), None, "{length}");
        }
        let many = Writer::default().int(i32::MAX).text("a");
        assert_eq!(Reader(&many.0).texts(), None);
        let negative = Writer::default().int(-2);
        assert_eq!(Reader(&negative.0).texts(), None, "it is not empty");
    }
}
