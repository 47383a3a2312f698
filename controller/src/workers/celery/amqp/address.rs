//! Where a RabbitMQ broker is, read from URLs as Celery reads them.

use std::{fmt, sync::Arc};

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use url::Url;

use crate::{
    tls::{self, Pem, TlsSettings},
    workers::celery::settings::{CelerySettings, SettingsError},
};

/// Seconds between two heartbeats, unless the URL says otherwise. A connection that is silent for twice as long is dead.
const HEARTBEAT: u16 = 10;

/// Where one broker is.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) uri: AMQPUri,
    /// Set for `amqps://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Whether the URL names a user; if not, it is Celery's default, `guest`.
    pub(super) has_user: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPAuthority { host, port, .. } = &self.uri.authority;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "RabbitMQ at {host}:{port}, virtual host {}", self.uri.vhost)
    }
}

impl Address {
    /// The brokers of the settings: replacements for one another, the first one first. At least one.
    pub(super) fn parse_all(settings: &CelerySettings) -> Result<Vec<Self>, SettingsError> {
        settings.url.list().into_iter().map(|url| Self::parse(url, settings)).collect()
    }

    fn parse(text: &str, settings: &CelerySettings) -> Result<Self, SettingsError> {
        let unusable = |why: String| SettingsError::AmqpUrl { why };
        let url = Url::parse(text).map_err(|why| unusable(why.to_string()))?;
        // A password with one of these characters ends too early, and its rest would be taken, and shown, for something else.
        if url.fragment().is_some()
            || [url.path(), url.query().unwrap_or_default()].iter().any(|part| part.contains('@'))
        {
            return Err(unusable("/, ? and # in a password must be written %2F, %3F and %23, @ elsewhere %40".into()));
        }
        let scheme = match url.scheme() {
            "amqp" | "pyamqp" => AMQPScheme::AMQP,
            "amqps" => AMQPScheme::AMQPS,
            scheme => return Err(SettingsError::Mixed { scheme: scheme.to_owned(), first: "amqp" }),
        };
        let host = match url.host() {
            Some(url::Host::Domain(host)) => decoded(host)?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        if host.contains([',', ';']) {
            return Err(unusable("each URL of a list begins with its scheme, such as amqp://".into()));
        }
        let query = Query(url.query_pairs().into_owned().collect());
        let tls = match scheme {
            AMQPScheme::AMQP if settings.tls.is_some() => {
                return Err(SettingsError::NoTls { scheme: url.scheme().to_owned(), instead: "amqps://" });
            }
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => {
                let tls = settings.tls.clone().unwrap_or_default().or(query.tls());
                Some(Arc::new(tls::configuration(&tls, query.trusts_any_certificate())?))
            }
        };
        let uri = AMQPUri {
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: or(decoded(url.username())?, "guest"),
                    password: or(decoded(url.password().unwrap_or_default())?, "guest"),
                },
                // Celery's defaults.
                host: or(host, "localhost"),
                port: url.port().unwrap_or_else(|| scheme.default_port()),
            },
            scheme,
            vhost: virtual_host(url.path())?,
            query: AMQPQueryString {
                heartbeat: Some(query.heartbeat()?),
                auth_mechanism: query.mechanism()?,
                ..AMQPQueryString::default()
            },
        };
        Ok(Self { uri, tls, has_user: !url.username().is_empty() })
    }
}

/// One `/` parts it from the host, and nothing means the default one, `/`: so that `//` and `/%2F` mean it too.
fn virtual_host(path: &str) -> Result<String, SettingsError> {
    Ok(or(decoded(path.strip_prefix('/').unwrap_or(path))?, "/"))
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

fn decoded(text: &str) -> Result<String, SettingsError> {
    let why = || SettingsError::AmqpUrl { why: "what stands after a % in it is no UTF-8".into() };
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| why())
}

/// Celery's own names first, then those of RabbitMQ's URI specification.
struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, keys: [&str; 2]) -> Option<&str> {
        let one = |key: &str| self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        keys.into_iter().find_map(one)
    }

    fn tls(&self) -> TlsSettings {
        let file = |keys| self.get(keys).map(|path| Pem::File(path.into()));
        TlsSettings {
            authorities: file(["ssl_ca_certs", "cacertfile"]),
            certificate: file(["ssl_certfile", "certfile"]),
            key: file(["ssl_keyfile", "keyfile"]),
        }
    }

    fn trusts_any_certificate(&self) -> bool {
        self.get(["ssl_cert_reqs", "verify"])
            .is_some_and(|value| matches!(&*value.to_lowercase(), "none" | "cert_none" | "verify_none"))
    }

    fn heartbeat(&self) -> Result<u16, SettingsError> {
        let Some(value) = self.get(["heartbeat", "heartbeat"]) else { return Ok(HEARTBEAT) };
        value.parse().map_err(|_| SettingsError::AmqpUrl { why: format!("{value:?} is not a heartbeat in seconds") })
    }

    fn mechanism(&self) -> Result<Option<SASLMechanism>, SettingsError> {
        let Some(value) = self.get(["login_method", "auth_mechanism"]) else { return Ok(None) };
        let unknown = || SettingsError::AmqpUrl {
            why: format!("{value:?} is not a way to log in that is known: PLAIN, AMQPLAIN and EXTERNAL are"),
        };
        match value.to_lowercase().as_str() {
            "plain" => Ok(Some(SASLMechanism::Plain)),
            "amqplain" => Ok(Some(SASLMechanism::AMQPlain)),
            "external" => Ok(Some(SASLMechanism::External)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use lapin::uri::SASLMechanism;
    use rstest::rstest;

    use super::{Address, CelerySettings};

    fn parse(url: &str) -> Result<Vec<Address>, String> {
        Address::parse_all(&CelerySettings::new(url)).map_err(|error| error.to_string())
    }

    fn parse_one(url: &str) -> Address {
        let mut addresses = parse(url).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(addresses.len(), 1);
        addresses.remove(0)
    }

    #[rstest]
    #[case("amqp://", "RabbitMQ at localhost:5672, virtual host /")]
    #[case("amqp://rabbit", "RabbitMQ at rabbit:5672, virtual host /")]
    #[case("amqp://rabbit/", "RabbitMQ at rabbit:5672, virtual host /")]
    #[case("amqp://rabbit//", "RabbitMQ at rabbit:5672, virtual host /")]
    #[case("amqp://rabbit/%2F", "RabbitMQ at rabbit:5672, virtual host /")]
    #[case("pyamqp://u:p@rabbit:5673/media", "RabbitMQ at rabbit:5673, virtual host media")]
    #[case("amqp://u:p@rabbit//media", "RabbitMQ at rabbit:5672, virtual host /media")]
    #[case("amqp://u:p@rabbit/a%20b", "RabbitMQ at rabbit:5672, virtual host a b")]
    #[case("amqps://rabbit/media", "RabbitMQ at rabbit:5671, virtual host media")]
    #[case("amqp://[::1]:5673/media", "RabbitMQ at [::1]:5673, virtual host media")]
    fn urls_are_read_as_celery_reads_them(#[case] url: &str, #[case] shown: &str) {
        assert_eq!(parse_one(url).to_string(), shown);
    }

    #[rstest]
    #[case("amqp://app:p%40ss@rabbit", "app", "p@ss", true)]
    #[case("amqp://app:a;b,c@rabbit", "app", "a;b,c", true)]
    #[case("amqp://app@rabbit", "app", "guest", true)]
    #[case("amqp://rabbit", "guest", "guest", false)]
    fn credentials_are_decoded(#[case] url: &str, #[case] user: &str, #[case] password: &str, #[case] told: bool) {
        let address = parse_one(url);
        let info = &address.uri.authority.userinfo;
        assert_eq!((info.username.as_str(), info.password.as_str()), (user, password));
        assert_eq!(address.has_user, told);
    }

    #[rstest]
    #[case("amqp://a:1/x;amqp://u:p@b:2/y")]
    #[case("amqp://a:1/x,amqp://u:p@b:2/y")]
    #[case(" amqp://a:1/x ; amqp://u:p@b:2/y ;")]
    fn several_urls_are_replacements_for_one_another(#[case] url: &str) {
        let shown: Vec<String> = parse(url).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["RabbitMQ at a:1, virtual host x", "RabbitMQ at b:2, virtual host y"]);
    }

    #[test]
    fn options_are_read() {
        let query = parse_one("amqp://a?heartbeat=30&login_method=EXTERNAL").uri.query;
        assert_eq!((query.heartbeat, query.auth_mechanism), (Some(30), Some(SASLMechanism::External)));
        let query = parse_one("amqp://a").uri.query;
        assert_eq!((query.heartbeat, query.auth_mechanism), (Some(10), None));
    }

    #[rstest]
    #[case("amqp://rabbit:port", "cannot be read: invalid port number")]
    #[case("amqp://a;b", "each URL of a list begins with its scheme")]
    #[case("amqp://a;redis://b", "redis:// among URLs")]
    #[case("amqp://a?heartbeat=often", "\"often\" is not a heartbeat")]
    #[case("amqp://a?login_method=magic", "\"magic\" is not a way to log in")]
    #[case("amqps://a?ssl_ca_certs=/there/is/none.pem", "/there/is/none.pem cannot be used")]
    #[case("amqps://a?ssl_certfile=/there/is/none.pem", "without its key")]
    fn what_is_wrong_is_said(#[case] url: &str, #[case] expected: &str) {
        let error = parse(url).map(|addresses| addresses.len()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn no_error_holds_a_password() {
        for url in [
            "amqp://u:hunter2@a:x",
            "amqp://u:hunter2@a;b",
            "amqp://a;redis://u:hunter2@b",
            "amqp://u:hun%FFter2@b",
            "amqp://u:12/hunter2@b",
            "amqp://u:12#hunter2@b",
            "amqp://u:12?hunter2@b",
        ] {
            let error = parse(url).map(|addresses| addresses.len()).unwrap_err();
            assert!(!error.contains("ter2"), "{error}");
        }
    }
}
