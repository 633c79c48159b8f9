//! The REST face (protocol section 8), for people, scripts and tests.
//!
//! Own additions to the contract: `GET /v1/agents/:id/messages?kind=` (what came, newest first),
//! `POST /v1/jobs/:id/cancel`, and `GET /healthz` without a token.

mod agents;
mod page;
mod runs;

use super::error::{ApiError, Code};
use super::plane::Plane;
use super::{keys, link, object_http, object_parts_http};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::de::DeserializeOwned;

/// A configuration of an agent fits into one message to it, and so does its JSON into this.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Everything that is served.
pub fn routes(app: &mut web::ServiceConfig) {
    app.app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
        .route("/healthz", web::get().to(healthz))
        .route("/v1/agents/connect", web::get().to(link::connect))
        .service(
            web::resource("/objects/{object:.*}")
                .app_data(web::PayloadConfig::new(object_parts_http::MAX_LIST_BYTES))
                .route(web::put().to(object_http::put))
                .route(web::get().to(object_http::get))
                .route(web::head().to(object_http::get))
                .route(web::post().to(object_parts_http::complete))
                .route(web::delete().to(object_parts_http::abort)),
        )
        .service(
            web::scope("/v1")
                .wrap(from_fn(admin_only))
                .configure(agents::routes)
                .configure(runs::routes)
                .default_service(web::to(nothing)),
        )
        .default_service(web::to(nothing));
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({"status": "ok"}))
}

async fn nothing(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let message = format!("there is no {} {}", request.method(), request.path());
    Err(ApiError::new(Code::NotFound, message))
}

async fn admin_only(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let allowed = request.app_data::<web::Data<Plane>>().is_some_and(|plane| {
        link::bearer(request.request())
            .is_some_and(|token| keys::same_secret(token.as_bytes(), plane.admin_token.expose().as_bytes()))
    });
    if !allowed {
        let message = "the Authorization header must carry the admin token as a Bearer";
        return Err(ApiError::new(Code::AuthFailed, message).into());
    }
    next.call(request).await
}

/// The JSON of a body; an empty one is that type's default.
fn body<T: DeserializeOwned + Default>(bytes: &web::Bytes) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| ApiError::invalid(format!("body: {error}")))
}

/// The query of a request.
fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    web::Query::<T>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .map_err(|error| ApiError::invalid(format!("query: {error}")))
}

/// The base of URLs, as the caller sees this server.
fn caller_base(request: &HttpRequest) -> String {
    let info = request.connection_info();
    format!("{}://{}", info.scheme(), info.host())
}
