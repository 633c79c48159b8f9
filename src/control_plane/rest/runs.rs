//! Runs, their objects and their keys.

use super::super::error::{ApiError, Code};
use super::super::plane::Plane;
use super::super::records::{Run, RunResult, RunStatus};
use super::super::runs::RunRequest;
use super::super::{presign, token};
use super::page::{Order, PageQuery};
use super::{body, caller_base, query};
use crate::model::unix_ms;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

type Answer = Result<HttpResponse, ApiError>;
type Shared = web::Data<Plane>;

pub fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/jobs/{id}/run", web::post().to(start))
        .route("/jobs/{id}/cancel", web::post().to(cancel))
        .route("/runs", web::get().to(list))
        .route("/runs/{id}", web::get().to(show))
        .route("/runs/{id}/download-url", web::get().to(download_url))
        .route("/runs/{id}/decryption-token", web::post().to(decryption_token));
}

/// A run without its key.
fn shown(run: &Run) -> Value {
    let result = run.result.clone().unwrap_or_default();
    let known = run.result.is_some();
    json!({
        "id": run.id,
        "agent_id": run.agent_id,
        "job_id": run.job_id,
        "manual": run.manual,
        "status": run.status,
        "progress_percent": run.progress_percent,
        "current_step": run.current_step,
        "error_message": run.error_message,
        "created_at_ms": run.created_at_ms,
        "started_at_ms": run.started_at_ms,
        "finished_at_ms": run.finished_at_ms,
        "acked": run.acked,
        "sent": run.sent,
        "s3_key": run.s3_key,
        "size_bytes": known.then_some(result.size_bytes),
        "sha256": known.then_some(result.sha256),
        "duration_ms": known.then_some(result.duration_ms),
        "compression": known.then_some(result.compression),
        "db_engine_version": known.then_some(result.db_engine_version),
    })
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RunBody {
    manual: bool,
    agent_id: Option<String>,
}

async fn start(request: HttpRequest, job_id: web::Path<String>, bytes: web::Bytes, plane: Shared) -> Answer {
    const MAX_KEY_CHARS: usize = 255;
    let RunBody { manual, agent_id } = body(&bytes)?;
    let idempotency_key = match request.headers().get("idempotency-key") {
        None => None,
        Some(value) => match value.to_str() {
            Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_CHARS => Some(key.to_owned()),
            _ => {
                let message = format!("Idempotency-Key: must have 1 to {MAX_KEY_CHARS} ASCII characters");
                return Err(ApiError::invalid(message));
            }
        },
    };
    let order = RunRequest { job_id: job_id.into_inner(), agent_id, manual, idempotency_key };
    let run = plane.start_run(order).await?;
    Ok(HttpResponse::Accepted().json(shown(&run)))
}

async fn cancel(job_id: web::Path<String>, bytes: web::Bytes, plane: Shared) -> Answer {
    let RunBody { agent_id, .. } = body(&bytes)?;
    let request = RunRequest { job_id: job_id.into_inner(), agent_id, ..RunRequest::default() };
    let runs = plane.cancel(&request).await?;
    Ok(HttpResponse::Accepted().json(json!({"runs": runs.iter().map(shown).collect::<Vec<_>>()})))
}

#[derive(Deserialize)]
struct RunFilter {
    job_id: Option<String>,
    agent_id: Option<String>,
    status: Option<RunStatus>,
}

async fn list(request: HttpRequest, plane: Shared) -> Answer {
    let page: PageQuery = query(&request)?;
    let filter: RunFilter = query(&request)?;
    let page = plane.store.read(|state| {
        let wanted = state.runs.values().filter(|run| {
            filter.job_id.as_ref().is_none_or(|id| *id == run.job_id)
                && filter.agent_id.as_ref().is_none_or(|id| *id == run.agent_id)
                && filter.status.is_none_or(|status| status == run.status)
        });
        page.page(Order::Newest, wanted.map(|run| (run.no, run)), shown)
    })?;
    Ok(HttpResponse::Ok().json(page))
}

async fn show(id: web::Path<String>, plane: Shared) -> Answer {
    Ok(HttpResponse::Ok().json(shown(&plane.run(&id)?)))
}

/// The run and its result, where its object is verified.
fn finished(plane: &Plane, id: &str) -> Result<(Run, RunResult), ApiError> {
    let run = plane.run(id)?;
    match (run.status, run.result.clone()) {
        (RunStatus::Success, Some(result)) => Ok((run, result)),
        (status, _) => {
            let message = format!("run {id} has no verified object: it is {}", json!(status));
            Err(ApiError::new(Code::Precondition, message))
        }
    }
}

async fn download_url(request: HttpRequest, id: web::Path<String>, plane: Shared) -> Answer {
    let (run, result) = finished(&plane, &id)?;
    let expires_at_ms = unix_ms() + plane.limits.url_lifetime_ms;
    let base = plane.object_base(&caller_base(&request));
    let url =
        presign::url(plane.keys.urls(), &base, "GET", &run.s3_key, presign::Scope::Object, expires_at_ms);
    Ok(HttpResponse::Ok().json(json!({
        "url": url.expose(),
        "expires_at_ms": expires_at_ms,
        "s3_key": run.s3_key,
        "size_bytes": result.size_bytes,
        "sha256": result.sha256,
    })))
}

async fn decryption_token(id: web::Path<String>, plane: Shared) -> Answer {
    let (run, result) = finished(&plane, &id)?;
    let dek = plane.keys.open_dek(&run.id, &run.sealed_dek).map_err(|error| {
        tracing::error!(run_id = run.id, %error, "a run's data key does not open: was master.key replaced?");
        ApiError::new(Code::Internal, "the run's data key does not open")
    })?;
    let issued_at_s = unix_ms() / 1000;
    let claims = token::Claims {
        subject: "admin",
        run_id: &run.id,
        dek: &dek,
        sha256: Some(&result.sha256),
        issued_at_s,
    };
    let token = token::sign(plane.keys.tokens(), &claims);
    tracing::info!(run_id = run.id, "decryption token issued");
    Ok(HttpResponse::Ok().json(json!({
        "token": token.expose(),
        "expires_at_ms": (issued_at_s + token::LIFETIME_S) * 1000,
    })))
}
