//! A balancer from a configuration: what is read, what is refused, and that the
//! reference says it all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use waypost::client::CallSettings;
use waypost::config::{
    Config, FixedConfig, REFERENCE, RegistryConfig, Secret, Sources, StrategyConfig,
};
use waypost::{Balancer, Error, Fixed, InMemory};

fn toml(text: &str) -> Result<Config, Error> {
    Config::from_toml(text)
}

/// The settings as they are, through whatever they are made by.
fn shown(of: &impl std::fmt::Debug) -> String {
    format!("{of:#?}")
}

#[test]
fn a_configuration_that_says_nothing_has_the_builders_defaults() {
    let config = toml("service = 'users'").expect("it is one");
    let builder = config.builder().expect("it has a name");
    assert_eq!(shown(&builder), shown(&Balancer::builder("users")));
    let calls = config.settings().expect("defaults are valid");
    assert_eq!(shown(&calls), shown(&CallSettings::new()));
}

const BALANCER: &str = r#"
service = "users"
first_answer = "1s"
latency = false
removal_guard = { left = 30, hold = "1m" }
slow_start = { window = "1m", aggression = 2.0, min_weight = 0.2 }

[strategy.ring_hash]
vnodes = 100
unit_weight = 10
missing_key = "refuse"
bounded = 1.5

[outlier_ejection]
consecutive_failures = 1
consecutive_errors = 2
consecutive_gateway_errors = 13
consecutive_unanswered = 3
success_rate = 1.5
failure_percentage = 60
latency_factor = 7.0
min_hosts = 4
volume = 6
interval = "8s"
base_time = "9s"
max_time = "10s"
jitter = "11ms"
max_percent = 12

[health_check]
path = "/up"
host = "users"
headers = { a = "b" }
statuses = [200, 299]
body_contains = "well"
timeout = "100ms"
interval = "1s"
unhealthy_interval = "2s"
edge_interval = "3s"
no_traffic_interval = "14s"
jitter = "4ms"
healthy_threshold = 5
unhealthy_threshold = 6
port = 7
keep_absent = false
ends_ejection = "never"

[topology]
overprovisioning = 150
panic_threshold = 40
zone = "a"
clients = { a = 1 }
min_hosts = 2
force_local = 3
split = [{ metadata = { v = "1" }, weight = 4 }]
fallback.to = { v = "2" }
subsetting.aperture = { client = 1, clients = 2, least = 3 }
"#;

#[test]
fn every_setting_of_a_balancer_reaches_its_builder() {
    use waypost::health::{check::HealthCheck, outlier::OutlierEjection, slow_start::SlowStart};
    use waypost::registry::RemovalGuard;
    use waypost::strategy::{MissingKey, RingHash};
    use waypost::topology::{Fallback, Selector, Topology, subset::Subsetting};

    let config = toml(BALANCER).expect("it is one");
    let seconds = Duration::from_secs;
    let millis = Duration::from_millis;
    let ring = RingHash::new()
        .vnodes(100)
        .and_then(|ring| ring.unit_weight(10))
        .and_then(|ring| ring.missing_key(MissingKey::Refuse).bounded(1.5));
    let by_hand = Balancer::builder("users")
        .first_answer(seconds(1))
        .latency(false)
        .removal_guard(RemovalGuard::new(30, seconds(60)).expect("it is one"))
        .slow_start(SlowStart::new(seconds(60)).aggression(2.0).min_weight(0.2))
        .strategy(ring.expect("it is one"))
        .outlier_ejection(
            OutlierEjection::new()
                .consecutive_failures(1)
                .consecutive_errors(2)
                .consecutive_gateway_errors(13)
                .consecutive_unanswered(3)
                .success_rate(Some(1.5))
                .failure_percentage(Some(60))
                .latency_factor(Some(7.0))
                .min_hosts(4)
                .volume(6)
                .interval(seconds(8))
                .base_time(seconds(9))
                .max_time(seconds(10))
                .jitter(millis(11))
                .max_percent(12),
        )
        .health_check(
            HealthCheck::http("/up")
                .host("users")
                .header("a", "b")
                .statuses(200..=299)
                .body_contains("well")
                .timeout(millis(100))
                .interval(seconds(1))
                .unhealthy_interval(seconds(2))
                .edge_interval(seconds(3))
                .no_traffic_interval(seconds(14))
                .jitter(millis(4))
                .healthy_threshold(5)
                .unhealthy_threshold(6)
                .port(7)
                .keep_absent(false)
                .ends_ejection(false),
        )
        .topology(
            Topology::new()
                .overprovisioning(150)
                .panic_threshold(Some(40))
                .zone("a")
                .clients([("a".into(), 1)])
                .min_hosts(2)
                .force_local(3)
                .split([(Selector::new("v", "1"), 4)])
                .fallback(Fallback::To(Selector::new("v", "2")))
                .subsetting(Subsetting::Aperture {
                    client: 1,
                    clients: 2,
                    least: 3,
                }),
        );
    assert_eq!(shown(&config.builder().expect("valid")), shown(&by_hand));
}

const CALLS: &str = r#"
[calls]
timeout = "1s"
per_try_timeout = "2s"
wait = "3s"
key = [{ header = "x-user", terminal = true }, { cookie = "c" }, { source = true }]
subset = [{ header = "x-version", metadata = "version" }, { header = "x-stage", metadata = "stage" }]
sticky.cookie = { name = "at", path = "/", lasts = "1h" }
addresses.loopback = false
hedge = { beyond = 0.9, budget.percent = 1 }
limits = { in_flight = 1, pending = 2, retries = 3, per_endpoint = 4 }
adaptive_limit.aimd = { min = 1, max = 2, timeout = "3s" }
throttle = { k = 3.0, window = "1m" }
observe = { tracing = true, metrics = true, by_endpoint = true }

[calls.retry]
attempts = 5
backoff = "1ms"
max_backoff = "2ms"
statuses = [500]
grpc_codes = [8]
any_method = true
max_wait = "3ms"
max_body = 4
budget.throttle = { max_tokens = 100, token_ratio = 0.5 }
"#;

#[test]
fn every_setting_of_calls_reaches_its_builder() {
    use waypost::client::http::{RequestKey, RequestSubset, Sticky};
    use waypost::endpoint::AddressPolicy;
    use waypost::observe::{Metered, Traced};
    use waypost::resilience::{Aimd, Attempts, Hedge, Limits, Retry, RetryBudget, Throttle};

    let config = toml(CALLS).expect("it is one");
    let seconds = Duration::from_secs;
    let millis = Duration::from_millis;
    let key = RequestKey::header("x-user").expect("a name").terminal();
    let key = key
        .and(RequestKey::cookie("c").expect("a name"))
        .and(RequestKey::source());
    let version = RequestSubset::header("x-version", "version").expect("a name");
    let stage = RequestSubset::header("x-stage", "stage").expect("a name");
    let sticky = Sticky::cookie("at").and_then(|sticky| sticky.path("/"));
    let sticky = sticky.expect("a name and a path");
    let budget = RetryBudget::share(1).expect("a share").min_per_second(1);
    // What is left out of a hedge's budget is the hedge's, not a retry's.
    let hedge = Hedge::beyond(0.9).expect("a share").budget(budget);
    let retry = Retry::new()
        .attempts(Attempts::at_most(5))
        .backoff(millis(1), millis(2))
        .statuses([500])
        .and_then(|retry| retry.grpc_codes([8]))
        .expect("they are codes")
        .any_method()
        .max_wait(millis(3))
        .max_body(4)
        .budget(RetryBudget::throttle(100, 0.5).expect("tokens"));
    let limits = Limits::default()
        .in_flight(1)
        .and_then(|limits| limits.pending(2).retries(3).per_endpoint(4));
    let by_hand = CallSettings::new()
        .timeout(seconds(1))
        .per_try_timeout(seconds(2))
        .wait(seconds(3))
        .key(key)
        .subset(version.and(&stage))
        .sticky(sticky.lasts(seconds(3_600)))
        .addresses(AddressPolicy::default().without_loopback())
        .hedge(hedge)
        .limits(limits.expect("they are limits"))
        .adaptive_limit(Aimd::within(1, 2, seconds(3)))
        .throttle(Throttle::at(3.0).expect("a K").window(seconds(60)))
        .observe(Traced)
        .observe(Metered::default().by_endpoint())
        .retry(retry);
    assert_eq!(shown(&config.settings().expect("valid")), shown(&by_hand));
}

#[tokio::test]
async fn one_structure_from_toml_yaml_json_and_the_environment() {
    let from_toml = "service = 'users'\nstrategy = 'ring_hash'\n\
                     registry.fixed.addresses = ['10.0.0.1:80', '10.0.0.2:80']\n\
                     health_check = true\noutlier_ejection = false\n\
                     [calls]\ntimeout = '1m30s'\nretry.statuses = [503, 504]\n";
    let from_yaml = "
service: users
strategy: ring_hash
registry: {fixed: {addresses: ['10.0.0.1:80', '10.0.0.2:80']}}
health_check: true
outlier_ejection: null
calls: {timeout: 90s, retry: {statuses: [503, 504]}}
";
    let from_json = r#"{"service": "users", "strategy": {"ring_hash": {}},
        "registry": {"fixed": {"addresses": ["10.0.0.1:80", "10.0.0.2:80"]}},
        "health_check": {}, "outlier_ejection": null,
        "calls": {"timeout": "90s", "retry": {"statuses": [503, 504]}}}"#;
    let variables = [
        ("WAYPOST__SERVICE", "users"),
        ("WAYPOST__STRATEGY", "ring_hash"),
        (
            "WAYPOST__REGISTRY__FIXED__ADDRESSES",
            "10.0.0.1:80, 10.0.0.2:80",
        ),
        ("WAYPOST__HEALTH_CHECK", "True"),
        ("WAYPOST__OUTLIER_EJECTION", "FALSE"),
        ("WAYPOST__LATENCY", "TRUE"),
        ("WAYPOST__CALLS__TIMEOUT", "90s"),
        ("WAYPOST__CALLS__RETRY__STATUSES", "[503, 504]"),
        ("WAYPOST_REQUIRE_SERVERS", "none of ours: one underscore"),
        ("PATH", "/bin"),
    ];
    let read = toml(from_toml).expect("TOML");
    assert_eq!(Config::from_yaml(from_yaml).expect("YAML"), read);
    assert_eq!(Config::from_json(from_json).expect("JSON"), read);
    // Serde's own way, for those who embed it.
    let embedded = from_json.replace("true", "{}");
    let embedded: Config = serde_json::from_str(&embedded).expect("strict JSON");
    assert_eq!(embedded, read);
    let environment: Result<Config, _> = Sources::new().variables("WAYPOST", variables).read();
    assert_eq!(environment.expect("variables"), read);

    assert_eq!(read.strategy, StrategyConfig::RingHash(<_>::default()));
    assert_eq!(read.health_check, Some(<_>::default()));
    assert_eq!(read.outlier_ejection, None);
    assert_eq!(read.calls.timeout, Some(Duration::from_secs(90)));
    let (users, _calls) = read.build().await.expect("it is complete");
    assert_eq!(users.current().len(), 2);
}

#[test]
fn later_sources_say_what_is_different_key_by_key() {
    let read = |variables: &[(&str, &str)]| {
        let first = "service = 'a'\n[registry.file]\npath = 'a.toml'\n[calls]\ntimeout = '1s'\n\
                     wait = '2s'\n[calls.retry]\nstatuses = [500, 501]\n";
        Sources::new()
            .toml(first)
            .variables("APP", variables.iter().copied())
            .read::<Config>()
    };
    let config = read(&[
        ("APP__CALLS__TIMEOUT", "false"),
        ("APP__CALLS__RETRY__STATUSES", "599"),
        ("APP__STRATEGY__LEAST_CONN__CHOICES", "3"),
    ])
    .expect("valid");
    assert_eq!(config.service, "a");
    assert_eq!(
        (config.calls.timeout, config.calls.wait),
        (None, Duration::from_secs(2))
    );
    let retry = config.calls.retry.expect("it is on");
    assert_eq!((retry.statuses, retry.attempts), (vec![599], 3));

    // A kind is replaced by switching the other off.
    let both = read(&[("APP__REGISTRY__DNS__PORT", "80")]).expect_err("two kinds");
    let said = "it can be one thing only, and is both `dns` and `file`";
    assert!(both.to_string().contains(said), "{both}");
    let other = [
        ("APP__REGISTRY__DNS__PORT", "80"),
        ("APP__REGISTRY__FILE", "false"),
    ];
    let config = read(&other).expect("one kind");
    assert!(matches!(config.registry, Some(RegistryConfig::Dns(dns)) if dns.port == Some(80)));
}

#[test]
fn an_application_has_balancers_in_its_own_structure() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct App {
        port: u16,
        users: Config,
    }
    let text = "port = 80\n[users]\nservice = 'users'\n";
    let app: App = Sources::new().toml(text).read().expect("valid");
    assert_eq!((app.port, &*app.users.service), (80, "users"));
    let wrong = format!("{text}calls.retry.any_methods = true\n");
    let error = Sources::new().toml(&wrong).read::<App>().map(|_| ());
    let error = error.expect_err("a key is wrong").to_string();
    assert!(error.contains("users.calls.retry.any_methods: "), "{error}");
    assert!(error.contains("did you mean `any_method`?"), "{error}");
}

/// Lines of TOML, the path that is wrong in it, and what is said.
fn lines_of(
    table: &'static str,
) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    table.trim().lines().map(|line| {
        let mut columns = line.split(" => ");
        let mut next = || columns.next().expect("there are three columns");
        (next(), next(), next())
    })
}

const UNKNOWN: &str = r"
servise = 'a' => servise => did you mean `service`?
calls.retry.atempts = 2 => calls.retry.atempts => did you mean `attempts`?
calls.retry.budget.share.percentage = 2 => calls.retry.budget.share.percentage => did you mean `percent`?
strategy = 'p3c' => strategy => did you mean `p2c`?
strategy.ringhash = {} => strategy.ringhash => did you mean `ring_hash`?
strategy.p2c.choices = 3 => strategy.p2c.choices => it has no settings
registry.consul.datacentre = 'a' => registry.consul.datacentre => did you mean `datacenter`?
registry.nacos = {} => registry.nacos => is unknown
topology.split = [{weigth = 1}] => topology.split.0.weigth => did you mean `weight`?
calls.key = [{header = 'a'}, {headr = 'a'}] => calls.key.1.headr => did you mean `header`?
registry.merge.sources = [{name = 'a', of.fixed.adresses = []}] => registry.merge.sources.0.of.fixed.adresses => did you mean `addresses`?
registry.consul.token.fille = 'a' => registry.consul.token.fille => did you mean `file`?
";

#[test]
fn unknown_keys_are_refused_with_their_path_and_the_nearest_that_is_known() {
    for (text, path, said) in lines_of(UNKNOWN) {
        let error = toml(text).expect_err(text);
        let told = error.to_string();
        assert!(error.is_invalid() && !error.is_transient(), "{told}");
        assert!(
            told.starts_with(&format!("configuration: {path}: ")),
            "{told}"
        );
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn it_says_where_a_wrong_key_was_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users.yaml");
    std::fs::write(&path, "service: users\ncalls: {tiemout: 1s}\n").expect("it is written");
    let error = Config::open(&path).expect_err("a key is wrong").to_string();
    let place = format!("configuration: calls.tiemout (in {}): ", path.display());
    assert!(error.starts_with(&place), "{error}");

    std::fs::write(&path, "service: users\n").expect("it is written");
    let over = |name: &'static str, value: &'static str| {
        let sources = Sources::new().file(&path).variables("W", [(name, value)]);
        let error = sources.read::<Config>().expect_err("it is wrong");
        error.to_string()
    };
    let error = over("W__CALLS__TIEMOUT", "1s");
    assert!(
        error.contains("calls.tiemout (in W__CALLS__TIEMOUT): "),
        "{error}"
    );
    let error = over("W__CALLS__RETRY__STATUSES", "503,many");
    assert!(
        error.contains("calls.retry.statuses.1 (in W__CALLS__RETRY__STATUSES): "),
        "{error}"
    );
    assert!(error.contains("a whole number"), "{error}");

    let error = Config::open(folder.path().join("gone.toml")).expect_err("no file");
    assert!(
        error.is_invalid() && error.to_string().contains("gone.toml"),
        "{error}"
    );
    let error = Config::open("users.ini")
        .expect_err("no format")
        .to_string();
    assert!(error.contains("`.toml`"), "{error}");
    let error = toml("service = 'a'\n[calls\n")
        .expect_err("no TOML")
        .to_string();
    assert!(error.contains("line 2"), "{error}");
    let error = Config::from_json(r#"{"service": "a", "service": "b"}"#).expect_err("twice");
    assert!(
        error.to_string().contains("`service` is there twice"),
        "{error}"
    );
    let twice = [
        ("W__STRATEGY", "p2c"),
        ("W__STRATEGY__MAGLEV__BOUNDED", "2"),
    ];
    let error = Sources::new().variables("W", twice).read::<Config>();
    let error = error.expect_err("they exclude each other").to_string();
    assert!(
        error.contains("W__STRATEGY__MAGLEV__BOUNDED: it says more"),
        "{error}"
    );
}

const REFUSED: &str = r"
calls.timeout = 30 => calls.timeout => write `30s` or `30ms`
calls.timeout = 'soon' => calls.timeout => such as `1m30s`
calls.timeout = '0s' => calls.timeout => `false` switches it off
calls.wait = true => calls.wait => expected a time
latency = 'yes' => latency => expected a boolean
topology.min_hosts = -1 => topology.min_hosts => -1
calls.retry.attempts = 0 => calls.retry.attempts => sent once
calls.retry.statuses = [200] => calls.retry.statuses => `200` is refused
calls.retry.grpc_codes = [0] => calls.retry.grpc_codes => 1 to 16
calls.retry.budget.share.percent = 1001 => calls.retry.budget.share.percent => ten retries
calls.retry.budget.share.ttl = '1h' => calls.retry.budget.share.ttl => from 1s to 1m
calls.retry.budget.throttle.max_tokens = 0 => calls.retry.budget.throttle.max_tokens => as gRPC
calls.retry.budget.throttle.token_ratio = 0 => calls.retry.budget.throttle.token_ratio => for a success
calls.hedge = true => calls.hedge => either `after`
calls.hedge.beyond = 1.5 => calls.hedge.beyond => from 0.5
calls.hedge = {after = '1s', budget.percent = 2000} => calls.hedge.budget.percent => at most 1000
calls.limits.in_flight = 0 => calls.limits.in_flight => no call could
calls.limits.per_endpoint = 0 => calls.limits.per_endpoint => no endpoint could
calls.adaptive_limit.aimd.min = 0 => calls.adaptive_limit.aimd.min => at least 1
calls.adaptive_limit.gradient2 = {min = 9, max = 8} => calls.adaptive_limit.gradient2.min => which is 8
calls.throttle.k = 0.5 => calls.throttle.k => 1 to 100
calls.observe.by_endpoint = true => calls.observe.by_endpoint => set `metrics = true`
calls.key = [{path = true, source = true}] => calls.key.0 => it is one place
calls.key = [{header = 'a b'}] => calls.key.0.header => hyphens
strategy.ring_hash.vnodes = 0 => strategy.ring_hash.vnodes => `0` is refused
strategy.maglev.table_size = 4 => strategy.maglev.table_size => prime
strategy.block_hrw.bounded = 0.5 => strategy.block_hrw.bounded => 1.25 is usual
strategy.least_conn.choices = 1 => strategy.least_conn.choices => `1` is refused
topology.overprovisioning = 99 => topology.overprovisioning => at least 100
topology.force_local = 0 => topology.force_local => take no calls
topology.split = [{weight = 1}] => topology.split.0.metadata => it is empty
topology.fallback = {to = {}} => topology.fallback.to => it is empty
topology.subsetting.aperture.clients = 0 => topology.subsetting => must have endpoints
outlier_ejection.interval = '0s' => outlier_ejection.interval => longer than nothing
outlier_ejection.max_percent = 101 => outlier_ejection.max_percent => at most 100
slow_start.min_weight = 0 => slow_start.min_weight => above 0
removal_guard.left = 90 => removal_guard.left => from 1 to 85
removal_guard.hold = '2d' => removal_guard.hold => up to a day
health_check.interval = '0s' => health_check.interval => more than nothing
health_check.path = 'up' => health_check.path => begin with `/`
health_check.host = 'a' => health_check.host => goes with `path`
health_check = {grpc = 'a', statuses = [1, 2]} => health_check.statuses => goes with `path`
health_check = {grpc = 'a', path = '/'} => health_check.grpc => excludes
health_check.no_traffic_interval = '0s' => health_check.no_traffic_interval => more than nothing
calls.subset = [{header = 'a b', metadata = 'a'}] => calls.subset.0.header => `a b` is refused
calls.subset = [{header = 'a'}] => calls.subset.0.metadata => it is empty
health_check = {path = '/', statuses = [300, 200]} => health_check.statuses => no status
registry = false => registry => say where
registry.fixed.addresses = [] => registry.fixed => there is no endpoint
registry.fixed.addresses = ['10.0.0.1'] => registry.fixed.addresses.0 => 10.0.0.1
registry.fixed.endpoints = [{address = '10.0.0.1:80', wight = 1}] => registry.fixed.endpoints.0.wight => `weight`
registry.file.path = 'a.ini' => registry.file.path => `.toml`
registry.dns.port = 0 => registry.dns.port => port 0
registry.consul.wait = '1ms' => registry.consul.wait => it must be from 1s
registry.consul.tls.key = 'a' => registry.consul.tls => go together
registry.consul.tls.authorities = '/run/ca.pem' => registry.consul.tls.authorities => `{ file =
registry.etcd.tls.authorities = '-----BEGIN CERTIFICATE-----' => registry.etcd.tls.authorities => certificate
registry.eureka.tls = {certificate = 'a', key = 'b'} => registry.eureka.tls.certificate => no PEM
registry.zookeeper.tls = {certificate = '-----BEGIN A-----', key = '-----BEGIN A-----'} => registry.zookeeper.tls => certificate
registry.dns = {port = 80, servers = ['ns1']} => registry.dns.servers.0 => `10.0.0.53:5353`
registry.fixed.addresses = ['http://10.0.0.1:80'] => registry.fixed.addresses.0 => it is a URL
registry.fixed = ['10.0.0.1:80'] => registry.fixed => a section of keys, of which there are `addresses`
registry.etcd.lease_ttl = '1s' => registry.etcd.lease_ttl => 2 s to a day
registry.etcd.user = 'a' => registry.etcd => go together
registry.etcd = {user = 'a', password.env = 'WAYPOST_NO_SUCH_VARIABLE'} => registry.etcd.password => it is not set
registry.zookeeper.server = 'here' => registry.zookeeper.server => host:port
registry.zookeeper.session_timeout = '1ms' => registry.zookeeper.session_timeout => 1 s to an hour
registry.eureka.lease = '31s' => registry.eureka.lease => two renewals
registry.merge = {} => registry.merge.sources => there is none
registry.merge.sources = [{of.dns = {}}] => registry.merge.sources.0.name => it has none
registry.fallback.first.fixed.addresses = ['a:1'] => registry.fallback.second => there is no registry
registry.filter.of.fixed.addresses = ['a:1'] => registry.filter => leaves nothing out
registry.snapshot.of.consul.wait = '1ms' => registry.snapshot.folder => name a folder
registry.snapshot = {folder = '/', of.consul.wait = '1ms'} => registry.snapshot.of.consul.wait => 1s
";

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_path_and_the_reason() {
    for (text, path, said) in lines_of(REFUSED) {
        let registry = "registry.fixed.addresses = ['10.0.0.1:80']";
        let with = if text.starts_with("registry") {
            ""
        } else {
            registry
        };
        let service = "service = 'users'";
        let outcome = match toml(&format!("{service}\n{with}\n{text}\n")) {
            Ok(config) => config.build().await.map(|_| ()),
            Err(error) => Err(error),
        };
        let error = outcome.expect_err(text);
        let told = error.to_string();
        assert!(error.is_invalid(), "{told}");
        assert!(
            told.starts_with(&format!("configuration: {path}: ")),
            "{text}: {told}"
        );
        assert!(told.contains(said), "{text}: {told}");
    }
    let nameless = Config::default().builder().expect_err("it has no name");
    assert!(
        nameless.to_string().starts_with("configuration: service: "),
        "{nameless}"
    );
}

#[test]
fn secrets_come_by_value_file_or_environment_and_are_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2\r\n").expect("it is written");
    let of = |token: &str| {
        toml(&format!(
            "service = 'users'\nregistry.consul = {{ url = 'http://127.0.0.1:1', token = {token} }}"
        ))
    };
    let open = |config: &Config| {
        let registry = config.registry.as_ref().expect("it is set");
        registry.open().map(|_| ())
    };
    for token in [
        "'hunter2'".to_owned(),
        format!("{{ file = {file:?} }}"),
        // Set wherever tests run; its value is no secret, and takes any header.
        "{ env = 'CARGO_MANIFEST_DIR' }".to_owned(),
    ] {
        let config = of(&token).expect("it is one");
        open(&config).expect("it can be read");
        let shown = format!("{config:?}{}", config.to_toml().expect("TOML"));
        let json = serde_json::to_string(&config).expect("JSON");
        assert!(!(shown + &json).contains("hunter2"));
    }
    // A token that no header takes was read, and is not shown.
    let wrong = of("\"hunter2\\nhunter2\"").expect("it is text");
    let error = open(&wrong).expect_err("it has a line break").to_string();
    assert!(
        error.starts_with("configuration: registry.consul.token: "),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
    for (token, said) in [
        ("12345678", "must be a text"),
        ("true", "must be a text"),
        ("'(hidden)'", "prints in place of"),
        ("{ file = '/nowhere/token' }", "/nowhere/token"),
        ("{ env = 'WAYPOST_NO_SUCH_VARIABLE' }", "it is not set"),
        ("''", "it is empty"),
    ] {
        let error = of(token).and_then(|config| open(&config));
        let error = error.expect_err(token).to_string();
        assert!(
            error.starts_with("configuration: registry.consul.token: "),
            "{error}"
        );
        assert!(
            error.contains(said) && !error.contains("12345678"),
            "{error}"
        );
    }
    let sources = Sources::new().toml("registry.consul.token = 'hunter2'");
    assert!(!format!("{sources:?}").contains("hunter2"));
    assert_eq!(format!("{:?}", Secret::text("hunter2")), "(hidden)");
}

#[test]
fn a_registry_by_configuration_takes_entries_or_says_that_it_does_not() {
    let consul = toml("registry.consul = true").expect("valid").registry;
    assert!(consul.expect("it is set").open_registry().is_ok());
    let here = toml("registry.in_memory.ttl = '1ms'").expect("valid");
    let error = here.registry.expect("it is set").open_registry();
    let error = error.map(|_| ()).expect_err("no timer is as fine");
    let path = "configuration: registry.in_memory.ttl: ";
    assert!(error.to_string().starts_with(path), "{error}");
    let fixed = RegistryConfig::Fixed(FixedConfig {
        addresses: vec!["10.0.0.1:80".into()],
        endpoints: Vec::new(),
    });
    let error = fixed.open_registry().map(|_| ()).expect_err("it is a list");
    assert!(error.to_string().contains("can only be read"), "{error}");
}

#[tokio::test]
async fn registries_made_of_registries() {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = folder.path().display();
    let text = format!(
        r#"
        service = "users"
        [registry.snapshot]
        folder = "{snapshots}"
        [registry.snapshot.of.merge]
        sources = [
            {{ name = "list", of.fixed.addresses = ["10.0.0.1:80"] }},
            {{ name = "zone", of.filter = {{ zone = "a", of.fixed.endpoints = [
                {{ address = "10.0.0.2:80", locality = {{ zone = "a" }} }},
                {{ address = "10.0.0.3:80", locality = {{ zone = "b" }} }},
            ] }} }},
            {{ name = "spare", of.fallback = {{
                first.fixed.addresses = ["10.0.0.4:80"],
                second.fixed.addresses = ["10.0.0.5:80"],
            }} }},
        ]"#
    );
    let (users, _calls) = toml(&text).expect("valid").build().await.expect("complete");
    let addresses: Vec<String> = users
        .current()
        .iter()
        .map(|endpoint| endpoint.address().to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"]);
}

#[tokio::test]
async fn a_registry_of_ones_own_is_given_to_the_builder() {
    let config = toml("service = 'users'\nfirst_answer = '1ms'").expect("valid");
    let builder = config.builder().expect("valid");
    let users = builder.build(InMemory::new()).await.expect("it starts");
    assert_eq!(users.service().as_str(), "users");
    let fixed = Fixed::addresses(["10.0.0.1:80"]).expect("an address");
    let builder = config.builder().expect("valid");
    assert!(
        builder
            .build(fixed)
            .await
            .expect("it starts")
            .pick()
            .is_ok()
    );
}

#[test]
fn what_is_printed_reads_back() {
    let mut config = toml("service = 'users'\nstrategy.maglev.bounded = 1.25").expect("valid");
    config.registry = Some(RegistryConfig::Consul(<_>::default()));
    config.health_check = Some(<_>::default());
    config.calls.limits = Some(<_>::default());
    let printed = config.to_toml().expect("TOML");
    assert!(printed.contains("\ntimeout = false\n"), "{printed}");
    assert_eq!(toml(&printed).expect("it reads"), config, "{printed}");
}

/// What a builder learns later is missed here.
#[test]
fn every_setting_of_a_builder_is_a_key() {
    use waypost::health::{outlier::OutlierEjection, slow_start::SlowStart};

    let second = Duration::from_secs(1);
    for (section, builder) in [
        ("outlier_ejection", shown(&OutlierEjection::new())),
        ("slow_start", shown(&SlowStart::new(second))),
        ("topology", shown(&waypost::topology::Topology::new())),
    ] {
        let keys = keys(&[section.to_owned()]);
        let fields = builder.lines().filter_map(|line| {
            // Those of the builder itself, and not of what is in it.
            let field = line.strip_prefix("    ")?.split_once(": ")?.0;
            (!field.starts_with(' ')).then(|| field.to_owned())
        });
        let fields: BTreeSet<String> = fields.collect();
        assert!(!fields.is_empty());
        assert_eq!(fields, keys.into_iter().collect(), "{section}");
    }
}

// ---- The reference ---------------------------------------------------------

/// The reference with its commented settings as settings, which together are no
/// configuration: kinds exclude each other.
fn everything() -> Value {
    let mut text = String::new();
    let mut sections = BTreeSet::new();
    for line in REFERENCE.lines() {
        let setting = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with('[') || rest.split(' ').nth(1) == Some("="));
        let line = setting.unwrap_or(line);
        sections.extend(
            line.strip_prefix('[')
                .and_then(|rest| rest.split(']').next()),
        );
        writeln!(text, "{line}").expect("a string can be written");
    }
    // `health_check = false` is where `[health_check]` is not.
    let mut section = "";
    let kept = text.lines().filter(|line| {
        if let Some(rest) = line.strip_prefix('[') {
            section = rest.trim_start_matches('[').split(']').next().unwrap_or("");
        }
        let key = line.split(' ').next().unwrap_or("");
        let path = [section, key].join(".");
        let path = path.trim_start_matches('.');
        let is_section = |name: &&str| {
            let name = name.trim_start_matches('[');
            name == path || name.starts_with(&format!("{path}."))
        };
        line.starts_with(['[', '#']) || key.is_empty() || !sections.iter().any(is_section)
    });
    let text = kept.collect::<Vec<_>>().join("\n");
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What serde says when there is nothing but this at `path`.
fn at(path: &[String], inner: Value) -> Value {
    path.iter().rev().fold(inner, |inner, part| {
        if part == "[]" {
            json!([inner])
        } else {
            Value::Object(Map::from_iter([(part.clone(), inner)]))
        }
    })
}

/// The keys below `path`, from what serde would have expected in the place of
/// one that is not there; none if it is no table.
fn keys(path: &[String]) -> Vec<String> {
    let wrong = at(path, json!({ "?": 0 }));
    let Err(error) = serde_json::from_value::<Config>(wrong) else {
        // A map that takes any key, and this value.
        return Vec::new();
    };
    let error = error.to_string();
    let unknown =
        error.starts_with("unknown field `?`") || error.starts_with("unknown variant `?`");
    let list = error.split_once("expected ").map_or("", |(_, list)| list);
    let names = list.split('`').skip(1).step_by(2).map(str::to_owned);
    if unknown { names.collect() } else { Vec::new() }
}

/// Every path there is. A registry of a registry is a registry.
fn schema() -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let mut below: Vec<String> = keys(&path);
        if below.is_empty() {
            let of_one: Vec<String> = [path.clone(), vec!["[]".into()]].concat();
            if !keys(&of_one).is_empty() {
                below.push("[]".into());
            }
        }
        for key in below {
            let path = [path.clone(), vec![key.clone()]].concat();
            let again = path.len() > 1 && ["of", "first", "second"].contains(&&*key);
            // An endpoint is the model's business; a secret is one value.
            let whole = path.ends_with(&["endpoints".into(), "[]".into()])
                || ["token", "password", "authorities", "certificate", "key"].contains(&&*key)
                    && (path.first().is_some_and(|first| first == "registry")
                        || path.contains(&"tls".to_owned()));
            if !again && !whole {
                open.push(path.clone());
            }
            if !whole || key != "[]" {
                found.insert(path);
            }
        }
    }
    found
}

fn look<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, part| match part.as_str() {
            "[]" => value.get(0),
            _ => value.get(part),
        })
}

#[test]
fn the_reference_is_a_configuration_of_nothing_but_defaults() {
    let config = toml(REFERENCE).expect("it is one");
    let addresses = ["10.0.0.1:80", "10.0.0.2:80"].map(str::to_owned).to_vec();
    let registry = RegistryConfig::Fixed(FixedConfig {
        addresses,
        endpoints: Vec::new(),
    });
    let defaults = Config {
        service: "users".into(),
        registry: Some(registry),
        ..Config::default()
    };
    assert_eq!(config, defaults);
}

#[test]
fn the_guides_configuration_is_one() {
    let guide = include_str!("../docs/guide.md");
    let (_, rest) = guide.split_once("```toml\n").expect("it has one");
    let (block, _) = rest.split_once("```").expect("it ends");
    let config = toml(block).expect("its keys are right");
    drop(config.builder().expect("its balancer is valid"));
    drop(config.settings().expect("its calls are"));
}

#[test]
fn the_reference_has_every_key() {
    let (everything, schema) = (everything(), schema());
    assert!(schema.len() > 150, "the schema was found: {}", schema.len());
    // Kinds without settings are told in a comment.
    let missing: Vec<String> = schema
        .iter()
        .filter(|path| look(&everything, path).is_none())
        .map(|path| path.join("."))
        .filter(|path| {
            let kind = path.rsplit('.').next().unwrap_or(path);
            !REFERENCE.contains(&format!("\"{kind}\""))
        })
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_reference_states_each_default() {
    let everything = everything();
    let mut compared = 0;
    for path in schema() {
        let (Some((key, section)), Some(stated)) = (path.split_last(), look(&everything, &path))
        else {
            continue;
        };
        // The section alone, and what it comes to.
        let Ok(config) = serde_json::from_value::<Config>(at(section, json!({}))) else {
            // One kind of several.
            continue;
        };
        let config = serde_json::to_value(config).expect("JSON");
        let default = look(&config, section).and_then(|section| section.get(key));
        let Some(default) = default.filter(|value| !value.is_object()) else {
            continue;
        };
        if stated.is_object() {
            // Its kinds, one by one; or what is off.
            continue;
        }
        // An example stands where the default is nothing.
        let nothing = json!([]) == *default || json!("") == *default || default.is_null();
        assert!(
            nothing || default == stated,
            "{}: {stated} is stated, {default} is so",
            path.join(".")
        );
        compared += usize::from(!nothing);
    }
    assert!(compared > 80, "{compared}");
}

// ---- a directory, and TLS -----------------------------------------------------

#[tokio::test]
async fn a_directory_has_the_settings_for_each_service() {
    let text = "strategy.rendezvous.missing_key = 'refuse'\n\
                registry.fixed.addresses = ['10.0.0.1:80', '10.0.0.2:80']\n\
                directory = { max_services = 2, idle = '1m' }";
    let (directory, _calls) = toml(text).expect("valid").directory().expect("it can be");
    for name in ["users", "carts"] {
        let balancer = directory
            .balancer(&name.parse().expect("a name"))
            .expect("there is room");
        balancer
            .ready(Duration::from_secs(5))
            .await
            .expect("they are up");
        assert!(balancer.pick().is_err(), "a call without a key is refused");
        let keyed = waypost::PickOptions::new().hash(7);
        assert!(balancer.pick_with(&keyed).is_ok());
    }
    let third = directory.balancer(&"orders".parse().expect("a name"));
    assert!(
        third
            .expect_err("two are the most")
            .to_string()
            .contains('2')
    );
}

#[test]
fn a_directory_that_cannot_be_is_refused_when_it_is_made() {
    let registry = "registry.fixed.addresses = ['10.0.0.1:80']";
    for (text, expected) in [
        (format!("service = 'users'\n{registry}"), "service"),
        ("strategy = 'p2c'".to_owned(), "registry"),
        (
            format!("{registry}\nstrategy.ring_hash.vnodes = 0"),
            "vnodes",
        ),
    ] {
        let error = toml(&text).and_then(|config| config.directory().map(drop));
        let error = error.expect_err("it cannot be");
        assert!(
            error.is_invalid() && error.to_string().contains(expected),
            "{error}"
        );
    }
}

#[test]
fn endpoints_are_checked_as_the_configuration_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let ca = rcgen::CertificateParams::new(vec!["ca".into()]).expect("a name");
    let ca = ca.self_signed(&key).expect("a certificate").pem();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [
        ("ca.pem", &ca),
        ("cert.pem", &ca),
        ("key.pem", &key.serialize_pem()),
    ] {
        std::fs::write(path(name), text).expect("it is written");
    }
    let (authorities, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let whole = format!(
        "[calls.tls]\nauthorities = {{ file = '{authorities}' }}\ncertificate = '{cert}'\n\
         key = '{key}'\nspiffe = ['spiffe://a.org/users', 'spiffe://a.org/old/*']"
    );
    let built = toml(&whole)
        .expect("valid")
        .endpoint_tls()
        .expect("it can be");
    let (tls, identity) = built.expect("it is set");
    let shown = format!("{tls:?}");
    assert!(shown.contains("spiffe://a.org/users") && shown.contains("spiffe://a.org/old/"));
    let identity = identity.expect("there is one");
    assert!(
        !identity.reload().expect("the files are there"),
        "it is the same"
    );
    assert!(
        toml("")
            .expect("valid")
            .endpoint_tls()
            .expect("nothing is wrong")
            .is_none()
    );

    for (text, expected) in [
        ("calls.tls = {}".to_owned(), "calls.tls.authorities"),
        (
            "calls.tls.authorities = 'no PEM'".to_owned(),
            "holds no certificate",
        ),
        (whole.replace("\nkey", "\n#key"), "go together"),
        (
            whole.replace("spiffe://a.org/old", "http://a.org"),
            "calls.tls.spiffe.1",
        ),
        (whole.replace("key.pem", "nowhere.pem"), "nowhere.pem"),
    ] {
        let error = toml(&text).and_then(|config| config.endpoint_tls().map(drop));
        let error = error.expect_err("it cannot be");
        assert!(
            error.is_invalid() && error.to_string().contains(expected),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_address_policy_holds_for_all_that_goes_to_the_registrys_endpoints() {
    let text = "service = 'users'\n\
                registry.fixed.addresses = ['10.0.0.1:80', '169.254.169.254:80']\n";
    for (policy, left) in [("", 2), ("calls.addresses = {}\n", 1)] {
        let config = toml(&format!("{text}{policy}")).expect("it is valid");
        let (users, _) = config.build().await.expect("it is complete");
        assert_eq!(users.current().len(), left);
    }
}
