//! TLS as the Redis client takes it: it makes its connections itself, from the PEM texts.

use redis::{ClientTlsConfig, TlsCertificates};

use crate::tls::{Pem, TlsError, TlsSettings, configuration};

/// The certificates and the key. Checked as [`configuration`] checks them, so that the client's own words on them, which
/// may quote them, never come up. `None`: there are none.
pub(super) fn certificates(
    tls: &TlsSettings,
    trusts_any_certificate: bool,
) -> Result<Option<TlsCertificates>, TlsError> {
    configuration(tls, trusts_any_certificate)?;
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            Some(ClientTlsConfig { client_cert: certificate.read()?, client_key: key.read()? })
        }
        _ => None,
    };
    let root_cert = tls.authorities.as_ref().filter(|_| !trusts_any_certificate).map(Pem::read).transpose()?;
    Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}
