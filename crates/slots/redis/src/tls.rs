//! Whom to trust at the other end of a TLS connection.

use std::{path::Path, sync::Arc};

use fred::{
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
    rustls_native_certs::load_native_certs,
    types::config::{TlsConfig, TlsConnector, TlsHostMapping},
};
use prism_slot::Result;

use crate::error::misconfigured;

/// Trusts the authorities in a PEM file, or those of the system.
pub(crate) fn tls(authorities: Option<&Path>) -> Result<TlsConfig> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let unusable = |what: String| misconfigured(format!("`ca_file` {}: {what}", path.display()));
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| unusable(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(misconfigured(
            "there is no certificate authority to trust; name a file in `ca_file`",
        ));
    }
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| misconfigured(format!("`tls` cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConfig {
        connector: TlsConnector::from(client),
        // Cluster nodes announce themselves by addresses, which certificates seldom name.
        hostnames: TlsHostMapping::DefaultHost,
    })
}
