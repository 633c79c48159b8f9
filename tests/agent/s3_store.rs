//! A store of other make in this process (s3s over a directory), and URLs for it that rusty-s3 signs.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rusty_s3::actions::CreateMultipartUpload;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;

const BUCKET: &str = "backups";
const KEY_ID: &str = "AKS3STEST";
const SECRET: &str = "known to the control plane alone";

/// How long a URL lives that nobody wants dead.
pub const ALIVE: Duration = Duration::from_secs(600);
/// A URL that is dead when it arrives.
pub const DEAD: Duration = Duration::ZERO;

/// Serves on loopback as long as the test's process lives.
pub struct S3 {
    root: PathBuf,
    bucket: Bucket,
    signer: Credentials,
}

impl S3 {
    pub fn start(root: &Path) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = builder.build();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || serve(listener, service));
        let bucket = Bucket::new(endpoint.parse().unwrap(), UrlStyle::Path, BUCKET, "us-east-1").unwrap();
        Self { root: root.to_owned(), bucket, signer: Credentials::new(KEY_ID, SECRET) }
    }

    /// For one PUT with that content type.
    pub fn put_url(&self, key: &str, content_type: &str, life: Duration) -> String {
        let mut action = self.bucket.put_object(Some(&self.signer), key);
        action.headers_mut().insert("content-type", content_type.to_owned());
        action.sign(life).into()
    }

    /// Begins an upload in parts; its name.
    pub async fn begin(&self, key: &str) -> String {
        let url = self.bucket.create_multipart_upload(Some(&self.signer), key).sign(ALIVE);
        let mut answer = awc::Client::default().post(url.as_str()).send().await.unwrap();
        let body = answer.body().await.unwrap();
        CreateMultipartUpload::parse_response(std::str::from_utf8(&body).unwrap())
            .unwrap()
            .upload_id()
            .to_owned()
    }

    pub fn part_url(&self, key: &str, upload: &str, number: u16, life: Duration) -> String {
        self.bucket.upload_part(Some(&self.signer), key, number, upload).sign(life).into()
    }

    pub fn complete_url(&self, key: &str, upload: &str) -> String {
        let none = std::iter::empty::<&str>();
        self.bucket.complete_multipart_upload(Some(&self.signer), key, upload, none).sign(ALIVE).into()
    }

    pub fn abort_url(&self, key: &str, upload: &str) -> String {
        self.bucket.abort_multipart_upload(Some(&self.signer), key, upload).sign(ALIVE).into()
    }

    /// Where the object is.
    pub fn object(&self, key: &str) -> PathBuf {
        self.root.join(BUCKET).join(key)
    }

    /// What there is of uploads that were begun and not ended.
    pub fn unfinished(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("upload")).collect()
    }
}

fn serve(listener: std::net::TcpListener, service: S3Service) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let http = Builder::new(TokioExecutor::new());
                // A client that goes away is what some of the tests are about.
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
}
