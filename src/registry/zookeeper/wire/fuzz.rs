//! What a server sends, from the first byte of a connection on.

use bytes::BytesMut;

use super::{Hello, NoMessage, Reader, Stat, Writer, message};

/// The longest message that is taken here.
const MOST: usize = 1 << 16;

pub(crate) fn messages(data: &[u8]) -> bool {
    let mut input = BytesMut::from(data);
    let mut read = 0;
    let mut is_taken = false;
    loop {
        match message(&mut input, MOST) {
            Ok(Some(message)) => {
                assert!(message.len() <= MOST);
                read += 4 + message.len();
                is_taken |= hello(&message) | answer(&message);
            }
            Ok(None) | Err(NoMessage::Nonsense) => break,
            Err(NoMessage::TooLong(length)) => {
                assert!(length > MOST);
                break;
            }
        }
    }
    assert_eq!(
        read + input.len(),
        data.len(),
        "no byte is read twice, or lost"
    );
    is_taken
}

/// Every message may be the first.
fn hello(message: &[u8]) -> bool {
    let Some(hello) = Hello::read(message) else {
        return false;
    };
    let written = Writer::default().int(0).int(hello.timeout);
    let written = written.long(hello.session).bytes(hello.password);
    assert_eq!(Hello::read(&written.0), Some(hello));
    true
}

/// What it answers is not in the message; so it is read as each of them.
fn answer(message: &[u8]) -> bool {
    let mut read = Reader(message);
    let Some(head) = read.head() else {
        return false;
    };
    let written = Writer::default()
        .int(head.xid)
        .long(head.zxid)
        .int(head.code);
    assert_eq!(Reader(&written.0).head(), Some(head));
    let body = read;
    if let Some(path) = { body }.event() {
        assert!(path.len() <= message.len());
    }
    if let Some(names) = { body }.texts() {
        let bytes: usize = names.iter().map(|name| 4 + name.len()).sum();
        assert!(bytes <= message.len(), "names are never more than was sent");
    }
    let (mut one, mut other) = (body, body);
    if let (Some(data), Some(Stat { created, .. })) = (one.bytes(), one.stat()) {
        let text = std::str::from_utf8(data).ok();
        assert_eq!(text, other.text());
        assert_eq!(other.stat().map(|stat| stat.created), Some(created));
    }
    { body }.replaced();
    true
}
