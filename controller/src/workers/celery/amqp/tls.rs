//! TLS to RabbitMQ: whom we trust, and who we are.
//!
//! lapin's own configuration trusts a given authority besides the system's, and fails where the system has none. Ours
//! trusts what it is told and nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::workers::celery::settings::SettingsError;

/// Files of certificates and keys, PEM.
#[derive(Default)]
pub(super) struct Files {
    /// Authorities to trust instead of the system's.
    pub(super) authorities: Option<PathBuf>,
    /// Our own certificate, and those that lead from it to its authority.
    pub(super) certificate: Option<PathBuf>,
    /// Its key, not encrypted.
    pub(super) key: Option<PathBuf>,
}

/// Reads the files here rather than when connecting, so that a wrong path is told at once, with its name.
pub(super) fn configuration(files: &Files, trusts_anybody: bool) -> Result<ClientConfig, SettingsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError::AmqpUrl { why: error.to_string() })?;
    let builder = if trusts_anybody {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(files.authorities.as_deref())?)
    };
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let unusable = |why: rustls::Error| unusable(certificate, &why.to_string());
            builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(unusable)
        }
        (Some(certificate), None) => Err(unusable(certificate, "it is given without its key")),
        (None, Some(key)) => Err(unusable(key, "it is a key without its certificate")),
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(file, &error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let pem = fs::read(file).map_err(|error| unusable(file, &error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(file, &error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(file, "it holds none; PEM is expected"));
    }
    Ok(certificates)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, SettingsError> {
    let pem = fs::read(file).map_err(|error| unusable(file, &error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        unusable(file, &format!("it holds no key that can be read ({error}); one without a password is expected"))
    })
}

fn unusable(file: &Path, why: &str) -> SettingsError {
    SettingsError::Certificates { file: file.display().to_string(), why: why.to_owned() }
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
