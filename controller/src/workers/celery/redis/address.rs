//! Where a Redis broker is, read from a URL as Celery reads it.

use std::{borrow::Cow, fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use redis::{Client, ConnectionAddr, TlsCertificates};
use url::Url;
use worker_drain_plan::observation::Failure;

use super::{
    error::Problem,
    sentinel::Sentinels,
    target::{Target, at},
    tls,
};
use crate::{
    tls::{Pem, TlsSettings},
    workers::celery::settings::{CelerySettings, SettingsError},
};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// Where a Redis broker is.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) database: u32,
    has_password: bool,
    at: String,
}

/// Where its server is.
#[derive(Clone)]
pub(super) enum Place {
    /// Always there.
    Server(Box<Client>),
    /// Where the Sentinels say.
    Sentinels(Box<Sentinels>),
}

impl Place {
    /// A client of the server that is in use now.
    pub(super) async fn client(&self, bound: Duration) -> Result<Client, Problem> {
        match self {
            Self::Server(client) => Ok(Client::clone(client)),
            Self::Sentinels(sentinels) => sentinels.master(bound).await,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis at {}, database {}", self.at, self.database)
    }
}

impl Address {
    pub(super) fn parse(settings: &CelerySettings) -> Result<Self, SettingsError> {
        let url = settings.url.expose().trim();
        let scheme = settings.url.scheme()?;
        if scheme == "sentinel" {
            return sentinels(settings);
        }
        if let Some(several) = several(url) {
            return Err(SettingsError::SeveralUrls { count: several });
        }
        if settings.tls.is_some() && scheme != "rediss" {
            return Err(SettingsError::NoTls { scheme, instead: "rediss://" });
        }
        let target = match scheme.as_str() {
            "redis" | "rediss" => over_tcp(url, DEFAULT_PORT)?.target(scheme == "rediss", settings)?,
            "unix" | "redis+socket" => over_socket(url)?,
            _ => return Err(SettingsError::Scheme { scheme }),
        };
        Ok(Self {
            place: Place::Server(Box::new(target.client()?)),
            database: target.database,
            has_password: target.password.is_some(),
            at: target.at(),
        })
    }

    /// What went wrong with it, for the one who asked: the kind decides what is done about it, the words are for a person.
    pub(super) fn failure(&self, problem: &Problem) -> Failure {
        let (kind, why) = problem.explain(self.has_password);
        Failure::new(kind, format!("{self}: {why}"))
    }
}

/// Celery takes `redis://a;redis://b` as one broker and its replacement. A `;` elsewhere may be part of a password.
fn several(url: &str) -> Option<usize> {
    let count = url.split(';').filter(|part| part.contains("://")).count();
    (count > 1).then_some(count)
}

/// `sentinel://[user][:password@]host[:port][/db];…`. Host and port are each Sentinel's own; all else is for the Redis
/// servers, and kombu takes it from the URL that it connects with: from the first, and after a failure from the next.
fn sentinels(settings: &CelerySettings) -> Result<Address, SettingsError> {
    let master_name = settings.sentinel.master_name.clone().ok_or(SettingsError::NoMasterName)?;
    let mut parts = Vec::new();
    for url in settings.url.list() {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
        if scheme != "sentinel" {
            return Err(SettingsError::Mixed { scheme, first: "sentinel" });
        }
        parts.push(over_tcp(url, DEFAULT_SENTINEL_PORT)?);
    }
    let first = parts.first().ok_or(SettingsError::NoUrl)?;
    for other in &parts[1..] {
        let differ = |what| Err(SettingsError::SentinelsDiffer { what });
        match () {
            () if other.database != first.database => return differ("databases"),
            () if other.username != first.username => return differ("users"),
            () if other.password != first.password => return differ("passwords"),
            () => {}
        }
    }
    let servers = first.target(settings.tls.is_some() || first.query.wants_tls(), settings)?;
    let at = parts.iter().map(OverTcp::at).collect::<Vec<_>>().join(", ");
    let askable = parts.iter().map(|part| part.sentinel(settings)).collect::<Result<_, _>>()?;
    Ok(Address {
        database: servers.database,
        has_password: servers.password.is_some(),
        at: format!("the master {master_name} of the Sentinels at {at}"),
        place: Place::Sentinels(Box::new(Sentinels::new(master_name, askable, servers))),
    })
}

/// What a URL of a server on the network says.
struct OverTcp {
    host: String,
    port: u16,
    database: u32,
    username: Option<String>,
    password: Option<String>,
    query: Query,
}

fn over_tcp(url: &str, default_port: u16) -> Result<OverTcp, SettingsError> {
    let url = Url::parse(url).map_err(|why| SettingsError::Url { why: why.to_string() })?;
    // A password with one of these characters ends too early, and its rest would be taken, and shown, for something else.
    if url.fragment().is_some() || [url.path(), url.query().unwrap_or_default()].iter().any(|part| part.contains('@')) {
        return Err(SettingsError::Url { why: "/, ? and # in a password must be written %2F, %3F and %23".into() });
    }
    let host = match url.host() {
        Some(url::Host::Domain(host)) => decoded(host)?,
        Some(url::Host::Ipv4(address)) => address.to_string(),
        Some(url::Host::Ipv6(address)) => address.to_string(),
        None => return Err(SettingsError::Url { why: "it has no host".into() }),
    };
    let query = Query::of(url.query().unwrap_or_default());
    if let Some(class) = query.get("credential_provider") {
        let why = format!(
            "credential_provider={class} is a Python class of the application, which cannot be run here (ElastiCache with IAM): give \
             worker-drain a user of its own, with a password"
        );
        return Err(SettingsError::Url { why });
    }
    let database = query.database().unwrap_or_else(|| url.path().trim_matches('/').to_owned());
    Ok(OverTcp {
        host,
        port: url.port().unwrap_or(default_port),
        database: parse_database(&database)?,
        username: some_decoded(url.username())?,
        password: url.password().map(some_decoded).transpose()?.flatten().or_else(|| query.get("password")),
        query,
    })
}

impl OverTcp {
    fn at(&self) -> String {
        at(&self.host, self.port)
    }

    fn target(&self, tls: bool, settings: &CelerySettings) -> Result<Target, SettingsError> {
        let (addr, certificates) = self.addr(tls, settings)?;
        Ok(Target {
            addr,
            database: self.database,
            username: self.username.clone(),
            password: self.password.clone(),
            certificates,
        })
    }

    /// The Sentinel there. It has no databases, and its own user and password.
    fn sentinel(&self, settings: &CelerySettings) -> Result<Target, SettingsError> {
        let (addr, certificates) = self.addr(settings.sentinel.tls, settings)?;
        let (username, password) = (settings.sentinel.username.clone(), settings.sentinel.password.clone());
        Ok(Target { addr, database: 0, username, password, certificates })
    }

    fn addr(
        &self,
        tls: bool,
        settings: &CelerySettings,
    ) -> Result<(ConnectionAddr, Option<TlsCertificates>), SettingsError> {
        if !tls {
            return Ok((ConnectionAddr::Tcp(self.host.clone(), self.port), None));
        }
        let insecure = self.query.allows_any_certificate();
        let certificates = tls::certificates(&settings.tls.clone().unwrap_or_default().or(self.query.tls()), insecure)?;
        let addr = ConnectionAddr::TcpTls { host: self.host.clone(), port: self.port, insecure, tls_params: None };
        Ok((addr, certificates))
    }
}

/// `redis+socket://[:password@]/path?virtual_host=1` as Celery has it, or `unix:///path?db=1` as Redis' own clients do.
fn over_socket(url: &str) -> Result<Target, SettingsError> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = Query::of(query);
    let (user, path) = match rest.split_once('@') {
        Some((user, path)) if !user.contains('/') => (user, path),
        _ => ("", rest),
    };
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let path = decoded(path)?;
    if !path.starts_with('/') {
        return Err(SettingsError::Url {
            why: "the path of a socket begins with /, as in unix:///run/redis.sock".into(),
        });
    }
    Ok(Target {
        addr: ConnectionAddr::Unix(PathBuf::from(path)),
        database: parse_database(&query.database().unwrap_or_default())?,
        username: some_decoded(username)?.or_else(|| query.get("user")),
        password: some_decoded(password)?.or_else(|| query.get("password")).or_else(|| query.get("pass")),
        certificates: None,
    })
}

struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn get(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    fn database(&self) -> Option<String> {
        self.get("virtual_host").or_else(|| self.get("db"))
    }

    fn tls(&self) -> TlsSettings {
        let file = |key| self.get(key).map(|path| Pem::File(path.into()));
        TlsSettings { authorities: file("ssl_ca_certs"), certificate: file("ssl_certfile"), key: file("ssl_keyfile") }
    }

    /// Any option of TLS turns it on where the scheme does not say, as it does in kombu.
    fn wants_tls(&self) -> bool {
        self.0.iter().any(|(name, _)| name.starts_with("ssl_"))
    }

    /// Celery requires this option in the URL of a `rediss://` broker, as `required`, `optional` or `none`.
    fn allows_any_certificate(&self) -> bool {
        self.get("ssl_cert_reqs").is_some_and(|value| matches!(&*value.to_lowercase(), "none" | "cert_none"))
    }
}

fn parse_database(text: &str) -> Result<u32, SettingsError> {
    let text = text.trim_matches('/');
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| SettingsError::Database { value: text.to_owned() })
}

fn decoded(text: &str) -> Result<String, SettingsError> {
    let why = || SettingsError::Url { why: "what stands after a % in it is no UTF-8".into() };
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| why())
}

fn some_decoded(text: &str) -> Result<Option<String>, SettingsError> {
    Ok(Some(decoded(text)?).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use redis::ConnectionAddr;
    use rstest::rstest;

    use super::{Address, Place};
    use crate::workers::celery::settings::CelerySettings;

    fn parse(url: &str) -> Result<Address, String> {
        let mut settings = CelerySettings::new(url);
        settings.sentinel.master_name = url.starts_with("sentinel").then(|| "main".into());
        Address::parse(&settings).map_err(|error| error.to_string())
    }

    fn client(address: &Address) -> redis::Client {
        match &address.place {
            Place::Server(client) => *client.clone(),
            Place::Sentinels(_) => panic!("these are Sentinels"),
        }
    }

    #[rstest]
    #[case("redis://cache", "Redis at cache:6379, database 0")]
    #[case("redis://cache:6380/", "Redis at cache:6380, database 0")]
    #[case("redis://:pw@my_cache:6380/3", "Redis at my_cache:6380, database 3")]
    #[case("redis://[::1]:6380/3", "Redis at [::1]:6380, database 3")]
    #[case("redis://cache?virtual_host=4", "Redis at cache:6379, database 4")]
    #[case("redis://cache/1?db=4", "Redis at cache:6379, database 4")]
    #[case("rediss://cache/1?ssl_cert_reqs=required", "Redis at cache:6379, database 1")]
    #[case("unix:///run/redis.sock?db=2", "Redis at unix:///run/redis.sock, database 2")]
    #[case("redis+socket:///run/redis.sock?virtual_host=2", "Redis at unix:///run/redis.sock, database 2")]
    #[case("redis+socket://:pw@/run/redis.sock", "Redis at unix:///run/redis.sock, database 0")]
    #[case("sentinel://a", "Redis at the master main of the Sentinels at a:26379, database 0")]
    #[case("sentinel://a:1/3;sentinel://b:2/3", "Redis at the master main of the Sentinels at a:1, b:2, database 3")]
    #[case(
        "sentinel://:pw@a/;sentinel://:pw@[::1]/0",
        "Redis at the master main of the Sentinels at a:26379, [::1]:26379, database 0"
    )]
    fn urls_are_read_as_celery_reads_them(#[case] url: &str, #[case] shown: &str) {
        let address = parse(url).map(|address| address.to_string());
        assert_eq!(address.as_deref(), Ok(shown));
    }

    #[rstest]
    #[case("redis://app:p%40ss@cache", Some("app"), Some("p@ss"))]
    #[case("redis://:p%40ss@cache", None, Some("p@ss"))]
    #[case("redis://cache", None, None)]
    #[case("redis://:@cache/0", None, None)]
    #[case("redis+socket://:p%40ss@/run/redis.sock", None, Some("p@ss"))]
    fn credentials_are_decoded(#[case] url: &str, #[case] username: Option<&str>, #[case] password: Option<&str>) {
        let address = parse(url).unwrap_or_else(|error| panic!("{error}"));
        let client = client(&address);
        let redis = client.get_connection_info().redis_settings();
        assert_eq!((redis.username(), redis.password()), (username, password));
        assert_eq!(address.has_password, password.is_some());
    }

    #[test]
    fn only_a_url_that_says_so_trusts_any_certificate() {
        let insecure =
            |url| match client(&parse(url).unwrap_or_else(|error| panic!("{error}"))).get_connection_info().addr() {
                ConnectionAddr::TcpTls { insecure, .. } => *insecure,
                _ => panic!("not over TLS"),
            };
        assert!(!insecure("rediss://cache"));
        assert!(!insecure("rediss://cache?ssl_cert_reqs=CERT_REQUIRED"));
        assert!(insecure("rediss://cache?ssl_cert_reqs=CERT_NONE"));
    }

    #[rstest]
    #[case(" ", "is empty")]
    #[case("cache:6379", "it has no scheme")]
    #[case("redis://", "it has no host")]
    #[case("redis://cache:port", "cannot be read: invalid port number")]
    #[case("redis://cache/first", "\"first\" is not a database")]
    #[case("redis://cache/-1", "\"-1\" is not a database")]
    #[case("unix://redis.sock", "begins with /")]
    #[case("kafka://a", "kafka:// is not a broker that is known")]
    #[case("redis://a;redis://b", "is a list of 2")]
    #[case("rediss://cache?ssl_ca_certs=/there/is/none.pem", "/there/is/none.pem cannot be used")]
    #[case("sentinel://a;sentinel://b/5", "name different databases")]
    #[case("sentinel://:x@a;sentinel://b", "name different passwords")]
    #[case("sentinel://x:@a;sentinel://b", "name different users")]
    #[case("redis://cache/0?credential_provider=app.Iam", "is a Python class of the application")]
    #[case("sentinel://a;redis://b", "redis:// among URLs of the same broker that begin with sentinel://")]
    fn what_is_wrong_is_said(#[case] url: &str, #[case] expected: &str) {
        let error = parse(url).map(|address| address.to_string()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn no_error_holds_a_password() {
        for url in [
            "redis://:hunter2@cache/x",
            "amqp://u:hunter2@a",
            "redis://u:hunter2@",
            "rediss://:hunter2@c:x",
            "redis://u:12/hunter2@cache",
            "redis://u:12#hunter2@cache",
            "redis://u:12?hunter2@cache",
            "redis://:hunter2/@cache",
            "sentinel://:hunter2@a;sentinel://b",
            "sentinel://a;redis://:hunter2@b",
        ] {
            let error = parse(url).map(|address| address.to_string()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
