//! As much of HTTP/1.1 as a probe needs.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::HttpProbe;
use super::probe::{Connection, Said};

/// As much of a head as is read; what is longer is no health page.
const HEAD: usize = 16 * 1024;

/// As much of a body as is looked through, as in Envoy.
const BODY: usize = 1_024;

pub(super) async fn ask(
    probe: &HttpProbe,
    host: &str,
    mut connection: Box<dyn Connection>,
) -> io::Result<Said> {
    connection
        .write_all(request(probe, host).as_bytes())
        .await?;
    let mut received = Vec::new();
    let mut chunk = [0; 2_048];
    loop {
        let head = head_of(&received);
        let enough = match head {
            None => received.len() >= HEAD,
            Some(head) => probe.body.is_none() || received.len() - head >= BODY,
        };
        let read = if enough {
            0
        } else {
            connection.read(&mut chunk).await?
        };
        if read == 0 {
            break;
        }
        received.extend_from_slice(&chunk[..read]);
        // A body that is there already need not be waited for.
        if let Some(head) = head_of(&received)
            && holds(probe, &received[head..])
        {
            break;
        }
    }
    judge(probe, &received)
}

fn request(probe: &HttpProbe, host: &str) -> String {
    let path = &probe.path;
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in &probe.headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request + "\r\n"
}

/// Where the body begins.
fn head_of(received: &[u8]) -> Option<usize> {
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

fn holds(probe: &HttpProbe, body: &[u8]) -> bool {
    let body = &body[..body.len().min(BODY)];
    let text = probe.body.as_deref().unwrap_or_default().as_bytes();
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

fn judge(probe: &HttpProbe, received: &[u8]) -> io::Result<Said> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP/1 response");
    let end = head_of(received).ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&received[..end]);
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| {
        let (version, rest) = line.split_once(' ')?;
        let status = rest.get(..3)?.parse().ok()?;
        version.starts_with("HTTP/1.").then_some(status)
    });
    let status: u16 = status.ok_or_else(broken)?;
    let names = lines.filter_map(|line| line.split_once(':'));
    let mut names = names.map(|(name, _)| name.trim());
    let told_to_leave =
        names.any(|name| name.eq_ignore_ascii_case("x-envoy-immediate-health-check-fail"));
    Ok(if !probe.statuses.contains(&status) {
        Err(format!("it answered with status {status}"))
    } else if told_to_leave {
        Err("it says itself that it fails".into())
    } else if !holds(probe, &received[end..]) {
        Err("its body does not hold the text".into())
    } else {
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> HttpProbe {
        HttpProbe {
            path: "/healthz".into(),
            host: None,
            headers: vec![("x-probe".into(), "1".into())],
            statuses: 200..=299,
            body: None,
        }
    }

    /// Whether it is well; none of what is no answer.
    fn judged(probe: &HttpProbe, response: &str) -> Option<bool> {
        let said = judge(probe, response.as_bytes()).ok()?;
        Some(said.is_ok())
    }

    #[test]
    fn statuses_bodies_and_the_order_to_leave_decide() {
        let any = probe();
        let ready = HttpProbe {
            body: Some("ready".into()),
            ..probe()
        };
        for (probe, response, answer) in [
            (&any, "HTTP/1.1 200 OK\r\n\r\n", Some(true)),
            (&any, "HTTP/1.0 204 No Content\r\n\r\n", Some(true)),
            (&any, "HTTP/1.1 503 No\r\n\r\n", Some(false)),
            (&any, "HTTP/1.1 302 Found\r\n\r\n", Some(false)),
            (
                &any,
                "HTTP/1.1 200 OK\r\nX-Envoy-Immediate-Health-Check-Fail: true\r\n\r\n",
                Some(false),
            ),
            (&ready, "HTTP/1.1 200 OK\r\n\r\nis ready", Some(true)),
            (&ready, "HTTP/1.1 200 OK\r\n\r\nwarming", Some(false)),
            (&any, "SSH-2.0-OpenSSH_9\r\n\r\n", None),
            (&any, "HTTP/1.1 20", None),
            (&any, "", None),
        ] {
            assert_eq!(judged(probe, response), answer, "{response:?}");
        }
    }

    #[test]
    fn the_request_names_host_and_headers() {
        assert_eq!(
            request(&probe(), "10.0.0.1:80"),
            "GET /healthz HTTP/1.1\r\nhost: 10.0.0.1:80\r\nconnection: close\r\nx-probe: 1\r\n\r\n"
        );
    }
}
