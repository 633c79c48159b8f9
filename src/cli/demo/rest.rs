//! The control plane's REST face, as a script of an operator would use it.

use crate::model::Secret;
use anyhow::{Context, Result, anyhow, bail};
use awc::http::Method;
use awc::{Client, Connector};
use futures_util::StreamExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Loopback answers at once, or something is wrong.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Answers are small.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A caller with the admin token, who trusts nothing but the demo's own CA.
pub struct Rest {
    client: Client,
    base: String,
    token: Secret,
}

impl Rest {
    /// For the control plane with this data directory.
    ///
    /// # Errors
    /// When the CA or the token cannot be read.
    pub fn new(base: String, data_dir: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = data_dir.join("tls/ca.pem");
        roots.add(CertificateDer::from_pem_file(&ca).with_context(|| ca.display().to_string())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let token_file = data_dir.join("admin.token");
        let token = std::fs::read_to_string(&token_file).with_context(|| token_file.display().to_string())?;
        let client = Client::builder()
            .connector(Connector::new().rustls_0_23(Arc::new(config)))
            .timeout(ANSWER_WITHIN)
            .finish();
        Ok(Self { client, base, token: Secret::from(token.trim()) })
    }

    /// GET of a path below `/v1`, or of `/healthz`.
    ///
    /// # Errors
    /// What the control plane says, or why it cannot be reached.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// POST of a body.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let what = format!("{method} {path}");
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.bearer_auth(self.token.expose());
        let sent = match body {
            Some(body) => request.send_json(&body).await,
            None => request.send().await,
        };
        // awc's errors are not `Send`.
        let mut answer = sent.map_err(|error| anyhow!("{what}: {error}"))?;
        let bytes =
            answer.body().limit(MAX_ANSWER_BYTES).await.map_err(|error| anyhow!("{what}: {error}"))?;
        if !answer.status().is_success() {
            bail!("{what}: {} {}", answer.status(), String::from_utf8_lossy(&bytes));
        }
        serde_json::from_slice(&bytes).with_context(|| format!("{what}: no JSON came"))
    }

    /// Fetches a download URL into a file. The URL is a secret: no error shows it.
    ///
    /// # Errors
    /// When it is refused, or the disk is full.
    pub async fn download(&self, url: &str, to: &Path) -> Result<u64> {
        // Without the token: the URL carries its own authorisation, and an object store has no use for ours.
        let mut answer = self
            .client
            .get(url)
            .no_decompress()
            .send()
            .await
            .map_err(|error| anyhow!("the object: {error}"))?;
        if !answer.status().is_success() {
            bail!("the object: {}", answer.status());
        }
        let mut file = File::create_new(to).with_context(|| to.display().to_string())?;
        let mut bytes = 0;
        while let Some(piece) = answer.next().await {
            let piece = piece.map_err(|error| anyhow!("the object: {error}"))?;
            file.write_all(&piece)?;
            bytes += piece.len() as u64;
        }
        Ok(bytes)
    }
}
