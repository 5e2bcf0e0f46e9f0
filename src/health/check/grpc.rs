//! The gRPC health protocol, as much of it as a probe needs: one unary call of
//! `grpc.health.v1.Health/Check`.

use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{HeaderMap, Request, StatusCode};

use super::probe::{Connection, Said};
use crate::load::protobuf::{Reader, Value, prefixed};

/// As much of an answer as is read: its one message has two bytes.
const BODY: usize = 1_024;

/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

pub(super) async fn ask(service: &str, server: &str, io: Box<dyn Connection>) -> io::Result<Said> {
    let (mut sender, connection) = h2::client::handshake(io).await.map_err(io::Error::other)?;
    let call = async {
        let request = Request::post(format!("{server}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(io::Error::other)?;
        poll_fn(|cx| sender.poll_ready(cx))
            .await
            .map_err(io::Error::other)?;
        let (response, mut body) = sender
            .send_request(request, false)
            .map_err(io::Error::other)?;
        body.send_data(question(service), true)
            .map_err(io::Error::other)?;
        read(response.await.map_err(io::Error::other)?).await
    };
    match select(pin!(call), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((ended, _)) => {
            ended.map_err(io::Error::other)?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}

async fn read(response: http::Response<h2::RecvStream>) -> io::Result<Said> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Ok(Err(format!("it answered with HTTP status {}", head.status)));
    }
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(io::Error::other)?;
        drop(body.flow_control().release_capacity(chunk.len()));
        message.extend_from_slice(&chunk);
        if message.len() > BODY {
            return Err(io::Error::other("it is longer than an answer can be"));
        }
    }
    let trailers = body.trailers().await.map_err(io::Error::other)?;
    Ok(judge(&head.headers, trailers.as_ref(), &message))
}

/// The service by its name, in a message of the protocol's.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        prefixed(&mut message, 1, service.as_bytes());
    }
    // Not compressed, and so long.
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Well is who serves; whoever says anything else says that it does not.
fn judge(head: &HeaderMap, trailers: Option<&HeaderMap>, framed: &[u8]) -> Said {
    let status = trailers.unwrap_or(head).get("grpc-status");
    let status = status.map_or(&b""[..], |status| status.as_bytes());
    if status != b"0" {
        let status = String::from_utf8_lossy(status);
        return Err(format!("it answered with gRPC status {status:?}"));
    }
    // Five bytes say that it is not compressed, and how long it is.
    let message = framed
        .split_at_checked(5)
        .filter(|(frame, _)| frame[0] == 0);
    match message.and_then(|(_, message)| status_of(message)) {
        Some(SERVING) => Ok(()),
        Some(status) => Err(format!("it does not serve: its health status is {status}")),
        None => Err("its answer is no health status".into()),
    }
}

/// Field 1 of a message, 0 where it has none; none of what is no message.
fn status_of(message: &[u8]) -> Option<u64> {
    let mut status = 0;
    let mut left = Reader(message);
    while let Some(field) = left.field()? {
        if let (1, Value::Varint(value)) = field {
            status = value;
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static(status),
        )])
    }

    #[test]
    fn only_who_serves_is_well() {
        let (none, ok) = (HeaderMap::new(), headers("0"));
        let serving = [0, 0, 0, 0, 2, 8, 1];
        for (trailers, message, answer) in [
            (Some(&ok), &serving[..], true),
            (None, &serving, false),
            (Some(&headers("5")), &[], false),
            (Some(&ok), &[0, 0, 0, 0, 2, 8, 2], false),
            (Some(&ok), &[0, 0, 0, 0, 0], false),
            (Some(&ok), &[1, 0, 0, 0, 2, 8, 1], false),
            (Some(&ok), &[0, 0, 0, 0, 2, 8], false),
            (Some(&ok), &[0, 0], false),
            (Some(&ok), &[], false),
        ] {
            assert_eq!(
                judge(&none, trailers, message).is_ok(),
                answer,
                "{message:?}"
            );
        }
        assert!(judge(&headers("12"), None, &[]).is_err());
    }

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(
            question("ab").as_ref(),
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
    }
}
