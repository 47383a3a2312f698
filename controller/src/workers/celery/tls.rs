//! TLS to a broker of any kind: whom we trust, and who we are.
//!
//! All of it is read and checked before anything is connected to, so that what is wrong is told at once, with its name.
//! What the libraries say of a PEM text may quote it, and a line of it may be a whole key: none of that is passed on.
//!
//! lapin's own configuration trusts a given authority besides the system's, and fails where the system has none. Ours
//! trusts what it is told and nobody else.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::settings::SettingsError;

/// Whom we trust, and who we are, for `rediss://`, `amqps://` and `sentinel://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificates of authorities to trust instead of the system's.
    pub authorities: Option<Pem>,
    /// Our own certificate, with those that lead to its authority, for a broker that wants one.
    pub certificate: Option<Pem>,
    /// Its key, without a password.
    pub key: Option<Pem>,
}

impl TlsSettings {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Settings come before what a URL says, each by itself.
    pub(super) fn or(&self, url: Self) -> Self {
        Self {
            authorities: self.authorities.clone().or(url.authorities),
            certificate: self.certificate.clone().or(url.certificate),
            key: self.key.clone().or(url.key),
        }
    }
}

/// Certificates or a key, as PEM has them. What is in it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// Here.
    Text {
        /// What messages call it, such as the field that it comes from.
        called: String,
        /// What it is.
        text: String,
    },
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, SettingsError> {
        match self {
            Self::File(path) => fs::read(path).map_err(|error| self.unusable(error.to_string())),
            Self::Text { text, .. } => Ok(text.clone().into_bytes()),
        }
    }

    fn unusable(&self, why: impl Into<String>) -> SettingsError {
        SettingsError::Certificates { what: self.to_string(), why: why.into() }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text { called, .. } => f.write_str(called),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

/// For a connection that we make ourselves.
pub(super) fn configuration(tls: &TlsSettings, trusts_anybody: bool) -> Result<ClientConfig, SettingsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError::AmqpUrl { why: error.to_string() })?;
    let builder = if trusts_anybody {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(tls.authorities.as_ref())?)
    };
    match (&tls.certificate, &tls.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let unusable = |why: rustls::Error| certificate.unusable(format!("with the key in {key}: {why}"));
            builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(unusable)
        }
        (Some(certificate), None) => Err(certificate.unusable("it is given without its key")),
        (None, Some(key)) => Err(key.unusable("it is a key without its certificate")),
    }
}

/// For the Redis client, which makes its connections itself. Checked as [`configuration`] checks it.
pub(super) fn for_redis(tls: &TlsSettings, trusts_anybody: bool) -> Result<Option<TlsCertificates>, SettingsError> {
    configuration(tls, trusts_anybody)?;
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            Some(ClientTlsConfig { client_cert: certificate.read()?, client_key: key.read()? })
        }
        _ => None,
    };
    let root_cert = tls.authorities.as_ref().filter(|_| !trusts_anybody).map(Pem::read).transpose()?;
    Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

fn roots(authorities: Option<&Pem>) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| pem.unusable(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

/// What PEM looks like, for one who has something else.
const FORM: &str = "PEM is expected, each -----BEGIN …----- and -----END …----- on a line of its own";

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let text = pem.read()?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| pem.unusable(format!("it cannot be read; {FORM}")))?;
    if certificates.is_empty() {
        return Err(pem.unusable(format!("it holds no certificate; {FORM}")));
    }
    Ok(certificates)
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, SettingsError> {
    let text = pem.read()?;
    let has_password = |line: &str| line.starts_with("-----BEGIN ENCRYPTED") || line == "Proc-Type: 4,ENCRYPTED";
    if String::from_utf8_lossy(&text).lines().any(|line| has_password(line.trim())) {
        return Err(pem.unusable("its key has a password; give one without"));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| pem.unusable(format!("it holds no key that can be read; {FORM}")))
}

/// Trusts every certificate, as a URL with `ssl_cert_reqs=none` asks for. Whoever has it must still hold its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Pem, TlsSettings, configuration, for_redis};

    fn text(called: &str, text: &str) -> Pem {
        Pem::Text { called: called.into(), text: text.into() }
    }

    #[rstest]
    #[case::nothing("")]
    #[case::no_pem("hunter2")]
    // A variable of the environment, say, that lost its line ends.
    #[case::all_on_one_line("-----BEGIN CERTIFICATE----- hunter2 -----END CERTIFICATE-----")]
    #[case::cut_off("-----BEGIN CERTIFICATE-----\nhunter2")]
    #[case::no_base64("-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n")]
    #[case::no_certificate("-----BEGIN CERTIFICATE-----\nhunter2=\n-----END CERTIFICATE-----\n")]
    fn what_is_no_certificate_is_told_and_never_shown(#[case] pem: &str) {
        let wrong = [
            TlsSettings { authorities: Some(text("caFrom", pem)), ..TlsSettings::default() },
            TlsSettings {
                certificate: Some(text("certificateFrom", pem)),
                key: Some(text("keyFrom", pem)),
                authorities: None,
            },
        ];
        for (tls, field) in wrong.iter().zip(["caFrom", "From"]) {
            let error = configuration(tls, false).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("cannot be used"), "{error}");
            assert!(!error.contains("unter"), "{error}");
            assert!(!format!("{tls:?}").contains("unter"));
            assert_eq!(for_redis(tls, false).map(|_| ()).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn certificate_and_key_go_together() {
        let alone = TlsSettings { certificate: Some(text("certificateFrom", "x")), ..TlsSettings::default() };
        assert!(configuration(&alone, false).unwrap_err().to_string().contains("without its key"));
        let alone = TlsSettings { key: Some(text("keyFrom", "x")), ..TlsSettings::default() };
        assert!(configuration(&alone, false).unwrap_err().to_string().contains("a key without its certificate"));
    }
}
