//! TLS. The certificates that the host trusts are read from `SSL_CERT_FILE`, which the test sets
//! for a process of its own.

use std::path::Path;
use std::process::Command;

use kvrail_node::directory::redis::{RedisConfig, RedisDirectory};
use kvrail_node::{Directory, DirectoryError};

use crate::directory_suite::{enough, owner, records, tags};
use crate::servers::{self, Folder, RedisServer};
use crate::single::look_up;

/// Where the process of the test finds the server.
const URL: &str = "KVRAIL_TEST_REDISS_URL";

/// Makes a certificate of `localhost` that signs itself.
fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(folder)
        .output();
    let made = made.expect("openssl makes the certificate: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_server_is_reached_over_tls_if_its_certificate_is_trusted() {
    if !servers::is_there() {
        return servers::skipped();
    }
    let folder = Folder::new();
    certificate(&folder.0);
    let path = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let tls = servers::free_port().to_string();
    let settings = ["--tls-port", &tls, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let settings = [&settings[..], &["--tls-auth-clients", "no"]].concat();
    let _server = RedisServer::new(false, &settings);
    let url = format!("rediss://localhost:{tls}");
    // This process does not trust the certificate.
    let directory = RedisDirectory::start(RedisConfig::new(&url).unwrap()).unwrap();
    let error = directory.owners(&[owner().epoch], enough()).unwrap_err();
    assert!(matches!(error, DirectoryError::Unreachable { .. }), "{error:?}");
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::in_a_process_that_trusts_the_certificate", "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", &cert)
        .env(URL, &url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
#[ignore = "the test above runs it in a process of its own"]
fn in_a_process_that_trusts_the_certificate() {
    let url = std::env::var(URL).unwrap();
    let directory = RedisDirectory::start(RedisConfig::new(&url).unwrap()).unwrap();
    let (own, tags) = (owner(), tags(200));
    let records = records(&own, &tags, 1);
    directory.announce(&own, &records, enough()).unwrap();
    let found = look_up(&directory, &tags);
    for (key, record) in records.iter().enumerate() {
        assert_eq!(found.records(key).unwrap(), [*record]);
    }
    // A name that is not in the certificate.
    let other = url.replace("localhost", "127.0.0.1");
    let directory = RedisDirectory::start(RedisConfig::new(&other).unwrap()).unwrap();
    assert!(look_up(&directory, &tags[..1]).records(0).is_err());
}
