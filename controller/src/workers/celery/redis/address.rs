//! Where a Redis broker is, read from a URL as Celery reads it.

use std::{
    borrow::Cow,
    fmt, fs,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use url::Url;

use crate::workers::celery::settings::{CelerySettings, SettingsError};

const DEFAULT_PORT: u16 = 6379;

/// Where a Redis broker is.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) client: Client,
    pub(super) database: u32,
    pub(super) has_password: bool,
    at: String,
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
        if let Some(several) = several(url) {
            return Err(SettingsError::SeveralUrls { count: several });
        }
        let target = match scheme.as_str() {
            "redis" | "rediss" => over_tcp(url, scheme == "rediss", settings)?,
            "unix" | "redis+socket" => over_socket(url)?,
            _ => return Err(SettingsError::Scheme { scheme }),
        };
        target.into_address()
    }
}

/// Celery takes `redis://a;redis://b` as one broker and its replacement. A `;` elsewhere may be part of a password.
fn several(url: &str) -> Option<usize> {
    let count = url.split(';').filter(|part| part.contains("://")).count();
    (count > 1).then_some(count)
}

struct Target {
    addr: ConnectionAddr,
    at: String,
    database: u32,
    username: Option<String>,
    password: Option<String>,
    certificates: Option<TlsCertificates>,
}

impl Target {
    fn into_address(self) -> Result<Address, SettingsError> {
        let unusable = |why: redis::RedisError| SettingsError::Url { why: why.to_string() };
        let mut redis = RedisConnectionInfo::default().set_db(self.database.into());
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password);
        }
        let info: ConnectionInfo = self.addr.into_connection_info().map_err(unusable)?.set_redis_settings(redis);
        let client = match self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        };
        let client = client.map_err(unusable)?;
        Ok(Address { client, database: self.database, has_password: self.password.is_some(), at: self.at })
    }
}

fn over_tcp(url: &str, tls: bool, settings: &CelerySettings) -> Result<Target, SettingsError> {
    let url = Url::parse(url).map_err(|why| SettingsError::Url { why: why.to_string() })?;
    // A password with one of these signs ends too early, and its rest would be taken, and told, for something else.
    if url.fragment().is_some() || [url.path(), url.query().unwrap_or_default()].iter().any(|part| part.contains('@')) {
        return Err(SettingsError::Url { why: "/, ? and # in a password are to be written %2F, %3F and %23".into() });
    }
    let host = match url.host() {
        Some(url::Host::Domain(host)) => decoded(host)?,
        Some(url::Host::Ipv4(address)) => address.to_string(),
        Some(url::Host::Ipv6(address)) => address.to_string(),
        None => return Err(SettingsError::Url { why: "it has no host".into() }),
    };
    let port = url.port().unwrap_or(DEFAULT_PORT);
    let query = Query::of(url.query().unwrap_or_default());
    let database = query.database().unwrap_or_else(|| url.path().trim_matches('/').to_owned());
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let (addr, certificates) = if tls {
        let insecure = query.allows_any_certificate();
        let file = settings.tls_ca_file.clone().or_else(|| query.get("ssl_ca_certs").map(PathBuf::from));
        let certificates = file.filter(|_| !insecure).as_deref().map(certificates).transpose()?;
        (ConnectionAddr::TcpTls { host, port, insecure, tls_params: None }, certificates)
    } else {
        (ConnectionAddr::Tcp(host, port), None)
    };
    Ok(Target {
        addr,
        at,
        database: parse_database(&database)?,
        username: some_decoded(url.username())?,
        password: url.password().map(some_decoded).transpose()?.flatten().or_else(|| query.get("password")),
        certificates,
    })
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
        at: format!("unix://{path}"),
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

/// Read here rather than when connecting, so that a wrong path is told at once, with its name.
fn certificates(file: &Path) -> Result<TlsCertificates, SettingsError> {
    let unusable = |why: String| SettingsError::Certificates { file: file.display().to_string(), why };
    let pem = fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds none; PEM is expected".into()));
    }
    Ok(TlsCertificates { client_tls: None, root_cert: Some(pem) })
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

    use super::Address;
    use crate::workers::celery::settings::CelerySettings;

    fn parse(url: &str) -> Result<Address, String> {
        Address::parse(&CelerySettings::new(url)).map_err(|error| error.to_string())
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
    fn urls_are_read_as_celery_reads_them(#[case] url: &str, #[case] shown: &str) {
        let address = parse(url).map(|address| address.to_string());
        assert_eq!(address.as_deref(), Ok(shown));
    }

    #[rstest]
    #[case("redis://app:p%40ss@cache", Some("app"), Some("p@ss"))]
    #[case("redis://:p%40ss@cache", None, Some("p@ss"))]
    #[case("redis://cache", None, None)]
    #[case("redis+socket://:p%40ss@/run/redis.sock", None, Some("p@ss"))]
    fn credentials_are_decoded(#[case] url: &str, #[case] username: Option<&str>, #[case] password: Option<&str>) {
        let address = parse(url).map_err(|error| panic!("{error}")).unwrap();
        let redis = address.client.get_connection_info().redis_settings();
        assert_eq!((redis.username(), redis.password()), (username, password));
        assert_eq!(address.has_password, password.is_some());
    }

    #[test]
    fn only_a_url_that_says_so_trusts_any_certificate() {
        let insecure =
            |url| match parse(url).map_err(|error| panic!("{error}")).unwrap().client.get_connection_info().addr() {
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
        ] {
            let error = parse(url).map(|address| address.to_string()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
