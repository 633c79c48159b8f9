//! What the store answers instead: S3's codes in S3's form.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use std::borrow::Cow;

/// A refusal.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
}

impl Refused {
    /// With S3's code, and a message for people, free of markup.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The client's fault.
    pub fn bad(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// There is no such upload, any more or at all.
    pub fn no_such_upload() -> Self {
        let message = "the upload does not exist: it was completed, aborted, or has expired";
        Self::new(StatusCode::NOT_FOUND, "NoSuchUpload", message)
    }

    /// The run of the object is over.
    pub fn settled() -> Self {
        let message = "the run is over: its object is not replaced any more";
        Self::new(StatusCode::CONFLICT, "OperationAborted", message)
    }

    /// Our fault; the log has why.
    pub fn internal(message: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The server is ending.
    pub fn ending() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the store is ending: try again")
    }
}

impl From<Refused> for HttpResponse {
    fn from(refused: Refused) -> Self {
        let Refused { status, code, message } = refused;
        tracing::warn!(status = status.as_u16(), code, %message, "object request refused");
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self::build(status).insert_header((CONTENT_TYPE, "application/xml")).body(body)
    }
}
