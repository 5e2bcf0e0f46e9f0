//! Three servers that agree.

use super::{Launch, Server, free_port};

/// Three Consul servers (Raft), each ready; none where Consul is not there.
pub(crate) async fn consul_cluster() -> Option<Vec<Server>> {
    let launches = three("consul")?;
    let join: Vec<String> = launches
        .iter()
        .map(|launch| format!("127.0.0.1:{}", launch.get("SERF_PORT")))
        .collect();
    let launches = launches
        .into_iter()
        .map(|launch| launch.var("EXPECT", "3").var("JOIN", join.join(" ")));
    Some(started(launches).await)
}

/// Three members of etcd (Raft), each ready; none where it is not there.
/// `server` is `etcd` or `etcd34`.
pub(crate) async fn etcd_cluster(server: &'static str) -> Option<Vec<Server>> {
    let launches = three(server)?;
    let members: Vec<String> = launches
        .iter()
        .zip(0..)
        .map(|(launch, i)| format!("n{i}=http://127.0.0.1:{}", launch.get("PEER_PORT")))
        .collect();
    let members = members.join(",");
    let launches = launches.into_iter().zip(0..).map(|(launch, i)| {
        launch
            .var("NODE", format!("n{i}"))
            .var("CLUSTER", members.clone())
    });
    Some(started(launches).await)
}

/// A ZooKeeper ensemble of three, each ready; none where it is not there.
pub(crate) async fn zookeeper_cluster() -> Option<Vec<Server>> {
    let launches = three("zookeeper")?;
    let members: Vec<String> = launches
        .iter()
        .zip(1..)
        .map(|(launch, id)| {
            let (peer, election) = (free_port(), free_port());
            format!("{id}=127.0.0.1:{peer}:{election}:{}", launch.get("PORT"))
        })
        .collect();
    let members = members.join(" ");
    let launches = launches.into_iter().zip(1..).map(|(launch, id)| {
        launch
            .var("ID", id.to_string())
            .var("ENSEMBLE", members.clone())
    });
    Some(started(launches).await)
}

fn three(server: &'static str) -> Option<Vec<Launch>> {
    (0..3).map(|_| Launch::of(server)).collect()
}

/// Starts all, then waits for each: none is ready before most are there.
async fn started(launches: impl Iterator<Item = Launch>) -> Vec<Server> {
    let mut servers: Vec<Server> = launches.map(Launch::spawn).collect();
    for server in &mut servers {
        server.wait().await;
    }
    servers
}

/// Tests that take a version: each of these, on etcd 3.5 and on 3.4.
macro_rules! on_both_etcds {
    ($($name:ident)*) => {
        mod etcd_3_5 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name("etcd").await;
            })*
        }
        mod etcd_3_4 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name("etcd34").await;
            })*
        }
    };
}
pub(crate) use on_both_etcds;
