//! A Redis server or a Sentinel, and the user that we connect as.

use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};

use crate::workers::celery::settings::SettingsError;

/// A server, and the user that we connect as.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) addr: ConnectionAddr,
    pub(super) database: u32,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) certificates: Option<TlsCertificates>,
}

impl Target {
    /// Where it is, for a person.
    pub(super) fn at(&self) -> String {
        match &self.addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => at(host, *port),
            ConnectionAddr::Unix(path) => format!("unix://{}", path.display()),
            other => other.to_string(),
        }
    }

    /// The same at another place.
    pub(super) fn moved_to(&self, new_host: &str, new_port: u16) -> Self {
        let mut moved = self.clone();
        match &mut moved.addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                new_host.clone_into(host);
                *port = new_port;
            }
            _ => {}
        }
        moved
    }

    pub(super) fn client(&self) -> Result<Client, SettingsError> {
        let unusable = |why: redis::RedisError| SettingsError::Url { why: why.to_string() };
        let mut redis = RedisConnectionInfo::default().set_db(self.database.into());
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password);
        }
        let info = self.addr.clone().into_connection_info();
        let info: ConnectionInfo = info.map_err(unusable)?.set_redis_settings(redis);
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
        .map_err(unusable)
    }
}

/// Host and port as a URL has them.
pub(super) fn at(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
