//! What can go wrong at start, and what a caller of the REST face hears.

use super::keys;
use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error("{0}")]
    Config(String),
    /// The data directory cannot be made or written.
    #[error(
        "data directory {path}: {error}: give another one with --data-dir, or its owner the right to write"
    )]
    DataDir {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another control plane works on it.
    #[error("data directory {path}: a control plane (pid {pid}) works on it already")]
    InUse {
        /// Where.
        path: PathBuf,
        /// Whose.
        pid: String,
    },
    /// What is in the data directory cannot be used.
    #[error("state in {path}: {error}: nothing was overwritten")]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The certificate or its key cannot be used or made.
    #[error("TLS: {0}")]
    Tls(String),
    /// The address cannot be listened on.
    #[error("listen on {listen}: {error}")]
    Bind {
        /// What was asked.
        listen: String,
        /// Why.
        error: io::Error,
    },
}

/// The contract's codes (protocol section 8) that can come up here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No or a wrong token.
    AuthFailed,
    /// No such thing.
    NotFound,
    /// The request is at fault.
    Validation,
    /// The thing is not in a state for it.
    Conflict,
    /// Something must come first.
    Precondition,
    /// Our fault.
    Internal,
    /// Not now.
    Unavailable,
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    message: String,
    details: Value,
}

impl ApiError {
    /// With a message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Value::Null }
    }

    /// With details for programs.
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// There is no such thing.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} {id:?}"))
    }

    /// The request is at fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Validation, message)
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "a change could not be made durable");
        let message = "the control plane cannot write its state; its log says why";
        Self::new(Code::Unavailable, message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Seconds after which a caller may try again.
const RETRY_AFTER_S: u32 = 5;

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self.code {
            Code::AuthFailed => StatusCode::UNAUTHORIZED,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Validation => StatusCode::BAD_REQUEST,
            Code::Conflict => StatusCode::CONFLICT,
            Code::Precondition => StatusCode::PRECONDITION_FAILED,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let code = match self.code {
            Code::AuthFailed => "AUTH_FAILED",
            Code::NotFound => "RESOURCE_NOT_FOUND",
            Code::Validation => "VALIDATION_ERROR",
            Code::Conflict => "CONFLICT",
            Code::Precondition => "PRECONDITION_FAILED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "SERVICE_UNAVAILABLE",
        };
        let trace_id = keys::random_hex::<8>().unwrap_or_default();
        tracing::info!(code, trace_id, message = self.message, "request refused");
        let mut response = HttpResponse::build(self.status_code());
        match self.code {
            Code::AuthFailed => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            Code::Unavailable => {
                response.insert_header((RETRY_AFTER, RETRY_AFTER_S));
            }
            Code::NotFound | Code::Validation | Code::Conflict | Code::Precondition | Code::Internal => {}
        }
        let (message, details) = (&self.message, &self.details);
        response.json(json!({
            "error": {"code": code, "message": message, "details": details, "trace_id": trace_id}
        }))
    }
}
