//! One call to one worker, on its own connection, bounded in time and size. Redirects are not followed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    contract::{Complaint, Order, clip},
    error::CallError,
    settings::{HttpSettings, Scheme, SettingsError},
};
use crate::{
    secret::Secret,
    tls::{TlsSettings, configuration},
};

/// A thousand jobs of each kind, with names of a usual length, are a third of it.
const LONGEST_BODY: usize = 1024 * 1024;

/// What is asked for, under the path of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    State,
    Cancel,
    Resume,
}

impl Place {
    fn suffix(self) -> &'static str {
        match self {
            Self::State => "",
            Self::Cancel => "/cancel",
            Self::Resume => "/resume",
        }
    }
}

/// Calls workers.
pub(super) struct Caller {
    port: u16,
    path: String,
    tls: Option<Tls>,
    tokens: Vec<HeaderValue>,
    bound: Duration,
}

struct Tls {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl Caller {
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, SettingsError> {
        let HttpSettings { port, path, scheme, token, reply_bound } = settings;
        if *port == 0 {
            return Err(SettingsError::Port);
        }
        let is_path =
            path.starts_with('/') && path.bytes().all(|sign| sign.is_ascii_graphic() && !b"?#".contains(&sign));
        if !is_path {
            return Err(SettingsError::Path { path: path.clone() });
        }
        if *reply_bound < Duration::from_millis(10) || *reply_bound > Duration::from_secs(10) {
            return Err(SettingsError::Bound { bound: *reply_bound });
        }
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { port: *port, path, tls: tls(scheme)?, tokens: tokens(token)?, bound: *reply_bound })
    }

    /// How a place is called in messages.
    pub(super) fn url(&self, address: IpAddr, place: Place) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", SocketAddr::new(address, self.port), self.target(place))
    }

    fn target(&self, place: Place) -> String {
        let target = format!("{}{}", self.path, place.suffix());
        if target.is_empty() { "/".into() } else { target }
    }

    /// The body of what the worker says of itself.
    pub(super) async fn get(&self, address: IpAddr) -> Result<Vec<u8>, CallError> {
        let (status, body) = self.call(address, Place::State, Method::GET, Bytes::new()).await?;
        if status == StatusCode::OK { Ok(body) } else { Err(self.bad_status(address, Place::State, status, &body)) }
    }

    /// Tells the worker something. `Ok`: it does it, or has.
    pub(super) async fn post(&self, address: IpAddr, place: Place, order: &Order<'_>) -> Result<(), CallError> {
        let body = serde_json::to_vec(order).unwrap_or_default();
        let (status, body) = self.call(address, place, Method::POST, body.into()).await?;
        match status {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                let said = Complaint::read(&body);
                let why = format!("{}{}{said}", status.as_u16(), if said.is_empty() { "" } else { ": " });
                Err(CallError::Refused { url: self.url(address, place), why })
            }
            _ => Err(self.bad_status(address, place, status, &body)),
        }
    }

    fn bad_status(&self, address: IpAddr, place: Place, status: StatusCode, body: &[u8]) -> CallError {
        let url = self.url(address, place);
        let code = status.as_u16();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                CallError::Denied { url, status: code, with_token: !self.tokens.is_empty() }
            }
            StatusCode::NOT_FOUND => CallError::NotServed { url },
            _ if status.is_redirection() => CallError::Redirect { url, status: code },
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                CallError::NotNow { url, status: code, why: Complaint::read(body) }
            }
            _ => CallError::Invalid { url, why: format!("the status is {code}") },
        }
    }

    /// Shows the tokens one after another, until one is not refused; within the bound altogether.
    async fn call(
        &self,
        address: IpAddr,
        place: Place,
        method: Method,
        body: Bytes,
    ) -> Result<(StatusCode, Vec<u8>), CallError> {
        let all = async {
            let (last, before) = match self.tokens.split_last() {
                Some((last, before)) => (Some(last), before),
                None => (None, [].as_slice()),
            };
            for token in before {
                let said = self.exchange(address, place, method.clone(), body.clone(), Some(token)).await?;
                if !matches!(said.0, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    return Ok(said);
                }
            }
            self.exchange(address, place, method.clone(), body.clone(), last).await
        };
        let silent = |_| CallError::Silent { url: self.url(address, place), bound: self.bound };
        timeout(self.bound, all).await.map_err(silent)?
    }

    async fn exchange(
        &self,
        address: IpAddr,
        place: Place,
        method: Method,
        body: Bytes,
        token: Option<&HeaderValue>,
    ) -> Result<(StatusCode, Vec<u8>), CallError> {
        let url = || self.url(address, place);
        let socket = SocketAddr::new(address, self.port);
        let connect = |error: std::io::Error| CallError::Connect { url: url(), why: plain(&error) };
        let stream = TcpStream::connect(socket).await.map_err(connect)?;
        let host = HeaderValue::try_from(socket.to_string()).map_err(|error| self.broken(address, place, &error))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.target(place).parse().map_err(|error| self.broken(address, place, &error))?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static("worker-drain"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        match &self.tls {
            None => self.send(address, place, stream, request).await,
            Some(Tls { connector, name }) => {
                let name = name.clone().unwrap_or_else(|| ServerName::from(address));
                let failed = |error: std::io::Error| CallError::Tls { url: url(), why: plain(&error) };
                let stream = connector.connect(name, stream).await.map_err(failed)?;
                self.send(address, place, stream, request).await
            }
        }
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        address: IpAddr,
        place: Place,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Vec<u8>), CallError> {
        let broken = |error: hyper::Error| self.broken(address, place, &error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let talk = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            match Limited::new(response.into_body(), LONGEST_BODY).collect().await {
                Ok(body) => Ok((status, body.to_bytes().to_vec())),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(CallError::TooLong { url: self.url(address, place), limit: LONGEST_BODY })
                }
                Err(error) => Err(self.broken(address, place, error.as_ref())),
            }
        };
        tokio::pin!(talk, connection);
        // Together, and not in a separate task: giving up on the call closes the connection.
        let mut closed = false;
        loop {
            tokio::select! {
                said = &mut talk => return said,
                // The talk gets its error, too; its end may come before the talk has read what it left.
                _ = &mut connection, if !closed => closed = true,
            }
        }
    }

    /// No HTTP, or half of it.
    fn broken(&self, address: IpAddr, place: Place, error: &(dyn std::error::Error + 'static)) -> CallError {
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        CallError::Invalid {
            url: self.url(address, place),
            why: clip(&format!("no whole HTTP answer: {error}{cause}")),
        }
    }
}

/// An error of the operating system or of TLS in words alone, without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or_else(|| text.clone(), |(words, _)| words.to_owned())
}

fn tokens(token: &Secret) -> Result<Vec<HeaderValue>, SettingsError> {
    let header = |token: &str| {
        let fits = token.bytes().all(|sign| sign.is_ascii_graphic());
        let value = fits.then(|| HeaderValue::try_from(format!("Bearer {token}")).ok()).flatten();
        let mut value = value.ok_or(SettingsError::Token)?;
        value.set_sensitive(true);
        Ok(value)
    };
    token.expose().lines().map(str::trim).filter(|line| !line.is_empty()).map(header).collect()
}

fn tls(scheme: &Scheme) -> Result<Option<Tls>, SettingsError> {
    let Scheme::Https { server_name, authorities } = scheme else { return Ok(None) };
    let trust = TlsSettings { authorities: authorities.clone(), ..TlsSettings::default() };
    let configuration = configuration(&trust, false)?;
    let named = |name: &String| {
        ServerName::try_from(name.clone()).map_err(|_| SettingsError::ServerName { name: name.clone() })
    };
    let name = server_name.as_ref().map(named).transpose()?;
    Ok(Some(Tls { connector: TlsConnector::from(Arc::new(configuration)), name }))
}
