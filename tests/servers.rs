//! The harness starts, kills, pauses and restarts every server that is there.

mod server_common;

use server_common::{Launch, consul_cluster, etcd_cluster, http_get, zookeeper_cluster};

#[tokio::test]
async fn a_killed_server_is_gone_and_comes_back_on_its_port() {
    for name in ["consul", "etcd", "etcd34", "zookeeper", "knot"] {
        let Some(launch) = Launch::of(name) else {
            continue;
        };
        let mut server = launch.start().await;
        let port = server.port();
        server.kill();
        if name != "knot" {
            let gone = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            assert!(gone.is_err(), "{name} was killed");
        }
        server.restart().await;
        assert_eq!(server.port(), port);
    }
}

#[tokio::test]
async fn a_paused_server_is_silent_until_it_is_resumed() {
    let Some(launch) = Launch::of("consul") else {
        return;
    };
    let server = launch.start().await;
    server.pause().await;
    let ask = http_get(server.port(), "/v1/status/leader");
    let silence = tokio::time::timeout(std::time::Duration::from_millis(300), ask).await;
    assert!(
        silence.is_err(),
        "a paused server answers nothing: {silence:?}"
    );
    server.resume();
    let (status, _) = http_get(server.port(), "/v1/status/leader").await.unwrap();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_cluster_of_three_agrees() {
    if let Some(consul) = consul_cluster().await {
        let leader = http_get(consul[0].port(), "/v1/status/leader")
            .await
            .unwrap();
        assert_eq!(
            leader,
            http_get(consul[2].port(), "/v1/status/leader")
                .await
                .unwrap()
        );
    }
    if let Some(etcd) = etcd_cluster("etcd").await {
        assert_eq!(etcd.len(), 3);
    }
    if let Some(zookeeper) = zookeeper_cluster().await {
        assert_eq!(zookeeper.len(), 3);
    }
}
