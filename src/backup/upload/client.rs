//! awc, set up for object stores.

use super::{Options, UploadError};
use crate::trust;
use awc::Connector;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// What connections to the store are made with.
pub struct Client {
    tls: Option<Arc<ClientConfig>>,
    connect: Duration,
}

impl Client {
    /// Loads the certificate authorities, where they are needed.
    pub fn new(secure: bool, options: &Options) -> Result<Self, UploadError> {
        let tls = if secure {
            let config = trust::client_config(options.ca_file.as_deref());
            Some(Arc::new(config.map_err(|cause| UploadError::Roots { cause })?))
        } else {
            None
        };
        Ok(Self { tls, connect: options.timing.connect })
    }

    /// A client without a connection: no try inherits the state of the one before.
    pub fn fresh(&self) -> awc::Client {
        let mut connector = Connector::new().timeout(self.connect).handshake_timeout(self.connect);
        if let Some(tls) = &self.tls {
            connector = connector.rustls_0_23(Arc::clone(tls));
        }
        // The whole request has no time limit: a large object on a thin line may take hours, and standing still
        // is noticed apart. Presigned requests bear no headers but the signed ones.
        awc::Client::builder()
            .connector(connector)
            .disable_timeout()
            .disable_redirects()
            .no_default_headers()
            .finish()
    }
}
