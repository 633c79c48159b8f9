//! Agents, their configuration, and what they said.

use super::super::agent_config::{AgentConfig, Job, Target};
use super::super::config_rules;
use super::super::error::ApiError;
use super::super::plane::{Plane, find};
use super::super::records::Agent;
use super::page::{Order, PageQuery};
use super::{body, query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

type Answer = Result<HttpResponse, ApiError>;
type Shared = web::Data<Plane>;

pub fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/agents", web::get().to(list))
        .route("/agents", web::post().to(create))
        .route("/agents/{id}", web::get().to(show))
        .route("/agents/{id}/rotate-key", web::post().to(rotate_key))
        .route("/agents/{id}/config", web::get().to(config))
        .route("/agents/{id}/config", web::patch().to(patch_config))
        .route("/agents/{id}/targets", web::get().to(targets))
        .route("/agents/{id}/targets", web::post().to(add_target))
        .route("/agents/{id}/jobs", web::get().to(jobs))
        .route("/agents/{id}/jobs", web::post().to(add_job))
        .route("/agents/{id}/metrics", web::get().to(metrics))
        .route("/agents/{id}/discovered", web::get().to(discovered))
        .route("/agents/{id}/messages", web::get().to(messages))
        .route("/health-checks/{id}/results", web::get().to(check_results));
}

/// An agent without its key, which nobody knows, and without its configuration.
fn shown(plane: &Plane, agent: &Agent) -> Value {
    let link = plane.hub.look(
        &agent.id,
        |link| json!({"session_id": link.session_id, "connected_at_ms": link.connected_at_ms}),
    );
    json!({
        "id": agent.id,
        "name": agent.name,
        "created_at_ms": agent.created_at_ms,
        "connected": link.is_some(),
        "connection": link,
        "register": agent.register,
        "config_version": agent.config_version,
        "applied_config_version": agent.heartbeat.as_ref().map(|heartbeat| heartbeat.config_version),
        "active_job_ids": agent.heartbeat.as_ref().map(|heartbeat| &heartbeat.active_job_ids),
        "last_heartbeat_at_ms": agent.heartbeat.as_ref().map(|heartbeat| heartbeat.at_ms),
        "received": agent.received,
        "duplicates": agent.duplicates,
    })
}

/// What `look` makes of an agent.
fn of_agent<R>(plane: &Plane, id: &str, look: impl FnOnce(&Agent) -> R) -> Result<R, ApiError> {
    plane.store.read(|state| find(state.agents.get(id), id).map(look))
}

async fn list(request: HttpRequest, plane: Shared) -> Answer {
    let page: PageQuery = query(&request)?;
    let page = plane.store.read(|state| {
        let agents = state.agents.values().map(|agent| (agent.no, agent));
        page.page(Order::Oldest, agents, |agent| shown(&plane, agent))
    })?;
    Ok(HttpResponse::Ok().json(page))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NewAgent {
    name: String,
}

async fn create(bytes: web::Bytes, plane: Shared) -> Answer {
    let new: NewAgent = body(&bytes)?;
    let key = plane.new_agent_key()?;
    let id = plane.create_agent(&new.name, &key).await?;
    tracing::info!(agent_id = id, name = new.name, "agent created");
    let mut agent = of_agent(&plane, &id, |agent| shown(&plane, agent))?;
    agent["agent_key"] = key.expose().into();
    Ok(HttpResponse::Created().json(agent))
}

async fn show(id: web::Path<String>, plane: Shared) -> Answer {
    Ok(HttpResponse::Ok().json(of_agent(&plane, &id, |agent| shown(&plane, agent))?))
}

async fn rotate_key(id: web::Path<String>, plane: Shared) -> Answer {
    let key = plane.new_agent_key()?;
    plane.set_key(&id, &key).await?;
    Ok(HttpResponse::Ok().json(json!({"id": *id, "agent_key": key.expose()})))
}

async fn config(id: web::Path<String>, plane: Shared) -> Answer {
    let shown = of_agent(&plane, &id, |agent| {
        json!({
            "version": agent.config_version,
            "applied_version": agent.heartbeat.as_ref().map(|heartbeat| heartbeat.config_version),
            "config": config_rules::shown(&agent.config),
        })
    })?;
    Ok(HttpResponse::Ok().json(shown))
}

/// The body is a JSON merge patch (RFC 7396) of the configuration.
async fn patch_config(id: web::Path<String>, bytes: web::Bytes, plane: Shared) -> Answer {
    let patch: Value = body(&bytes)?;
    if !patch.is_object() {
        return Err(ApiError::invalid("body: must be an object with what is to change"));
    }
    plane.change_config(&id, None, |current| patched(current, patch)).await?;
    config(id, plane).await
}

fn patched(current: &AgentConfig, patch: Value) -> Result<AgentConfig, ApiError> {
    let invalid = |error: serde_json::Error| ApiError::invalid(format!("config: {error}"));
    let mut value = serde_json::to_value(current).map_err(invalid)?;
    config_rules::merge(&mut value, patch);
    serde_json::from_value(value).map_err(invalid)
}

/// Lists numbered by their place.
fn numbered<T>(items: Vec<T>) -> impl Iterator<Item = (u64, T)> {
    (0_u64..).zip(items)
}

async fn targets(id: web::Path<String>, request: HttpRequest, plane: Shared) -> Answer {
    let page: PageQuery = query(&request)?;
    let targets = of_agent(&plane, &id, |agent| config_rules::shown(&agent.config).targets)?;
    let page = page.page(Order::Oldest, numbered(targets), |target| json!(target))?;
    Ok(HttpResponse::Ok().json(page))
}

async fn jobs(id: web::Path<String>, request: HttpRequest, plane: Shared) -> Answer {
    let page: PageQuery = query(&request)?;
    let jobs = of_agent(&plane, &id, |agent| agent.config.jobs.clone())?;
    let page = page.page(Order::Oldest, numbered(jobs), |job| json!(job))?;
    Ok(HttpResponse::Ok().json(page))
}

async fn add_target(id: web::Path<String>, bytes: web::Bytes, plane: Shared) -> Answer {
    let target: Target =
        serde_json::from_slice(&bytes).map_err(|error| ApiError::invalid(format!("body: {error}")))?;
    let mut answer = AgentConfig { targets: vec![target.clone()], ..Default::default() };
    let add = |current: &AgentConfig| {
        let mut config = current.clone();
        config.targets.push(target);
        Ok(config)
    };
    plane.change_config(&id, None, add).await?;
    answer = config_rules::shown(&answer);
    Ok(HttpResponse::Created().json(&answer.targets[0]))
}

async fn add_job(id: web::Path<String>, bytes: web::Bytes, plane: Shared) -> Answer {
    let job: Job =
        serde_json::from_slice(&bytes).map_err(|error| ApiError::invalid(format!("body: {error}")))?;
    let added = job.clone();
    let add = |current: &AgentConfig| {
        let mut config = current.clone();
        config.jobs.push(added);
        Ok(config)
    };
    plane.change_config(&id, None, add).await?;
    Ok(HttpResponse::Created().json(job))
}

async fn metrics(id: web::Path<String>, plane: Shared) -> Answer {
    let heartbeat = of_agent(&plane, &id, |agent| agent.heartbeat.clone())?;
    Ok(HttpResponse::Ok().json(json!({
        "at_ms": heartbeat.as_ref().map(|heartbeat| heartbeat.at_ms),
        "metrics": heartbeat.and_then(|heartbeat| heartbeat.metrics),
    })))
}

async fn discovered(id: web::Path<String>, plane: Shared) -> Answer {
    let report = of_agent(&plane, &id, |agent| agent.discovered.clone())?;
    Ok(HttpResponse::Ok().json(report.unwrap_or_else(|| json!({"containers": []}))))
}

#[derive(Deserialize)]
struct KindQuery {
    kind: Option<String>,
}

async fn messages(id: web::Path<String>, request: HttpRequest, plane: Shared) -> Answer {
    let page: PageQuery = query(&request)?;
    let kind = query::<KindQuery>(&request)?.kind;
    let page = of_agent(&plane, &id, |agent| {
        let wanted = agent.messages.iter().filter(|(name, _)| kind.as_ref().is_none_or(|kind| kind == *name));
        let messages = wanted.flat_map(|(_, messages)| messages).map(|message| (message.no, message));
        page.page(Order::Newest, messages, |message| json!(message))
    })??;
    Ok(HttpResponse::Ok().json(page))
}

async fn check_results(id: web::Path<String>, request: HttpRequest, plane: Shared) -> Answer {
    let page: PageQuery = query(&request)?;
    let page = plane.store.read(|state| {
        let known = |agent: &&Agent| agent.config.health_checks.iter().any(|check| check.id == *id);
        let agent =
            state.agents.values().find(known).ok_or_else(|| ApiError::not_found("health check", &id))?;
        let results = agent.check_results.get(id.as_str()).into_iter().flatten();
        page.page(Order::Newest, results.map(|result| (result.no, result)), |result| result.body.clone())
    })?;
    Ok(HttpResponse::Ok().json(page))
}
