//! A way to a server that can be cut while the server lives on.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They reach the server.
    Open,
    /// They are closed as soon as they are made.
    Cut,
    /// They stay open, those that are open already too, and nothing comes.
    Silent,
    /// They are answered with what is no answer.
    Garbage,
}

/// It ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    serving: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, told) = watch::channel(Mode::Open);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One that is cut off ends with an error, as it should.
                tokio::spawn(serve(stream, server.clone(), told.clone()));
            }
        });
        Self {
            address,
            mode,
            serving,
        }
    }

    /// Holds for new connections; those that are open end, or fall silent.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    server: String,
    mut told: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mode = *told.borrow_and_update();
    match mode {
        Mode::Silent => {
            // An error says that the test is over.
            drop(told.changed().await);
            Ok(())
        }
        Mode::Open => {
            let mut server = TcpStream::connect(server).await?;
            tokio::select! {
                done = tokio::io::copy_bidirectional(&mut client, &mut server) => return done.map(drop),
                _ = told.changed() => {}
            }
            if *told.borrow_and_update() == Mode::Silent {
                drop(told.changed().await);
            }
            Ok(())
        }
        Mode::Cut => Ok(()),
        Mode::Garbage => client.write_all(b"\x00\xffno answer at all\r\n\r\n").await,
    }
}
