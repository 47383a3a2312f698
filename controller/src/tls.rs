//! TLS to brokers and workers of any kind: whom we trust, and who we are. Neutral ground: every adapter that speaks TLS
//! takes its configuration from here.
//!
//! Everything is read and checked before anything is connected to, so that what is wrong is reported at once, with the name
//! of the field or file. The libraries' own errors about a PEM text quote it, as text or as the decimal values of its
//! bytes, and one line of it may be a whole key: no such error is passed on (docs/decisions/0013).
//!
//! Authorities that are given are trusted instead of the system's, never besides them.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error;

/// Whom we trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificates of authorities to trust instead of the system's.
    pub authorities: Option<Pem>,
    /// Our own certificate, with those that lead to its authority, for a server that wants one.
    pub certificate: Option<Pem>,
    /// Its key, without a password.
    pub key: Option<Pem>,
}

impl TlsSettings {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings, and `url`'s for each that is missing here.
    pub(crate) fn or(&self, url: Self) -> Self {
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
    /// The bytes. Errors: the file cannot be read.
    pub(crate) fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::File(path) => fs::read(path).map_err(|error| self.unusable(error.to_string())),
            Self::Text { text, .. } => Ok(text.clone().into_bytes()),
        }
    }

    fn unusable(&self, why: impl Into<String>) -> TlsError {
        TlsError { what: self.to_string(), why: why.into() }
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

/// A certificate or a key that cannot be used. The message holds nothing of its content, in any form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} cannot be used for TLS: {why}")]
pub struct TlsError {
    /// Which: a file, or a field.
    what: String,
    /// Why not.
    why: String,
}

/// The configuration of a client. With `trusts_any_certificate` the server's certificate is not checked.
///
/// Errors: a certificate or key cannot be read, or the two do not belong together.
pub(crate) fn configuration(tls: &TlsSettings, trusts_any_certificate: bool) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has cipher suites for TLS 1.2 and 1.3");
    let builder = if trusts_any_certificate {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
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

fn roots(authorities: Option<&Pem>) -> Result<RootCertStore, TlsError> {
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

/// What PEM is, for the message.
const FORM: &str = "PEM is expected, each -----BEGIN …----- and -----END …----- on its own line";

// The library's error is dropped here and in `private_key`: it quotes the text.
fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = pem.read()?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| pem.unusable(format!("it cannot be read; {FORM}")))?;
    if certificates.is_empty() {
        return Err(pem.unusable(format!("it holds no certificate; {FORM}")));
    }
    Ok(certificates)
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = pem.read()?;
    let has_password = |line: &str| line.starts_with("-----BEGIN ENCRYPTED") || line == "Proc-Type: 4,ENCRYPTED";
    if String::from_utf8_lossy(&text).lines().any(|line| has_password(line.trim())) {
        return Err(pem.unusable("its key has a password; give one without"));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| pem.unusable(format!("it holds no key that can be read; {FORM}")))
}

/// Trusts every certificate, as a URL with `ssl_cert_reqs=none` asks for. The server must still have its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rstest::rstest;

    use super::{Pem, TlsSettings, configuration};

    fn text(called: &str, text: &str) -> Pem {
        Pem::Text { called: called.into(), text: text.into() }
    }

    /// Whether a message holds part of `content` as text, as the decimal values of its bytes, or as base64.
    fn shows(message: &str, content: &str) -> bool {
        let decimal = |part: &[u8]| part.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        content.as_bytes().windows(6).any(|part| {
            let as_text = String::from_utf8_lossy(part);
            message.contains(&*as_text) || message.contains(&decimal(part)) || message.contains(&STANDARD.encode(part))
        })
    }

    #[rstest]
    #[case::nothing("", "hunter2")]
    #[case::no_pem("hunter2", "hunter2")]
    // A variable of the environment, say, that lost its line ends.
    #[case::all_on_one_line("-----BEGIN CERTIFICATE----- hunter2 -----END CERTIFICATE-----", "hunter2")]
    #[case::key_on_one_line("-----BEGIN PRIVATE KEY----- hunter2 -----END PRIVATE KEY-----", "hunter2")]
    #[case::begins_on_one_line("-----BEGIN PRIVATE KEY-----hunter2\n-----END PRIVATE KEY-----\n", "hunter2")]
    #[case::cut_off("-----BEGIN CERTIFICATE-----\nhunter2", "hunter2")]
    #[case::ends_otherwise("-----BEGIN hunter2-----\nAAAA\n-----END CERTIFICATE-----\n", "hunter2")]
    #[case::no_base64("-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n", "hunter2")]
    #[case::no_certificate("-----BEGIN CERTIFICATE-----\nhunter2=\n-----END CERTIFICATE-----\n", "hunter2")]
    fn what_cannot_be_read_is_named_and_never_shown(#[case] pem: &str, #[case] content: &str) {
        let wrong = [
            TlsSettings { authorities: Some(text("caFrom", pem)), ..TlsSettings::default() },
            TlsSettings {
                certificate: Some(text("certificateFrom", pem)),
                key: Some(text("keyFrom", pem)),
                authorities: None,
            },
        ];
        for (tls, field) in wrong.iter().zip(["caFrom", "From"]) {
            let error = configuration(tls, false).map(|_| ()).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(field) && message.contains("cannot be used"), "{message}");
            for shown in [message, format!("{error:?}"), format!("{tls:?}")] {
                assert!(!shows(&shown, content), "{shown}");
            }
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
