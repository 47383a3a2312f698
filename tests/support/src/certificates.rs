//! An authority of one's own, and certificates of it for servers on 127.0.0.1 and for their clients.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::process::program;

/// Certificates and keys, as files in PEM.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them.
    pub fn make() -> Self {
        let folder = tempfile::Builder::new().prefix("worker-drain-tls-").tempdir().expect("a temporary folder");
        let made = Self { folder };
        let (authority, authority_key) = (made.authority(), made.file("authority.key"));
        run(&["-subj", "/CN=test authority"], &authority_key, &authority);
        for name in ["server", "client"] {
            let subject = format!("/CN={name}");
            let authority = [path(&authority), path(&authority_key)];
            let mut arguments = vec!["-subj", &subject, "-CA", &authority[0], "-CAkey", &authority[1]];
            arguments.extend(["-addext", "subjectAltName=IP:127.0.0.1"]);
            arguments.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
            run(&arguments, &made.file(&format!("{name}.key")), &made.file(&format!("{name}.pem")));
        }
        made
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.file("authority.pem")
    }

    /// A server's certificate, and its key.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        (self.file("server.pem"), self.file("server.key"))
    }

    /// A client's certificate, and its key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file("client.pem"), self.file("client.key"))
    }

    /// What redis-server needs to speak TLS on this port.
    pub fn redis_arguments(&self, port: u16, wants_clients_certificate: bool) -> Vec<String> {
        let ((certificate, key), authority) = (self.server(), self.authority());
        let auth = if wants_clients_certificate { "yes" } else { "no" };
        let port = port.to_string();
        let arguments = [
            ["--tls-port", &port],
            ["--tls-cert-file", &path(&certificate)],
            ["--tls-key-file", &path(&key)],
            ["--tls-ca-cert-file", &path(&authority)],
            ["--tls-auth-clients", auth],
        ];
        arguments.as_flattened().iter().map(ToString::to_string).collect()
    }

    /// What RabbitMQ needs in its configuration to speak TLS on this port.
    pub fn rabbitmq_configuration(&self, port: u16, wants_clients_certificate: bool) -> Vec<String> {
        let ((certificate, key), authority) = (self.server(), self.authority());
        vec![
            format!("listeners.ssl.1 = 127.0.0.1:{port}"),
            format!("ssl_options.cacertfile = {}", path(&authority)),
            format!("ssl_options.certfile = {}", path(&certificate)),
            format!("ssl_options.keyfile = {}", path(&key)),
            format!("ssl_options.verify = {}", if wants_clients_certificate { "verify_peer" } else { "verify_none" }),
            format!("ssl_options.fail_if_no_peer_cert = {wants_clients_certificate}"),
        ]
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn run(arguments: &[&str], key: &Path, certificate: &Path) {
    let mut command = Command::new(program("openssl", "openssl"));
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(arguments).arg("-keyout").arg(key).arg("-out").arg(certificate);
    let output = command.output().expect("openssl can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
