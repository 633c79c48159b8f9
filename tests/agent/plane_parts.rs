//! Uploads in parts as the control plane offers and takes them, against an agent and a client of S3 written by hand.

use crate::common::eventually;
use crate::plane_kit::{PATIENCE, Peer, Plane};
use awc::http::Method;
use backupy_agent::control_plane::Config;
use backupy_agent::wire::{Payload, v1};
use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};
use serde_json::Value;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

const MULTIPART: &str = "multipart_upload";
/// The smallest that S3 takes.
const FULL: usize = 5 * 1024 * 1024;

struct Scene {
    plane: Plane,
    peer: Peer,
    key: String,
    _dir: TempDir,
}

impl Scene {
    async fn new(capabilities: &[&str], adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let plane = Plane::start(dir.path(), adjust);
        let (_, key) = plane.agent_with_job("a", "nightly").await;
        let (peer, _) = Peer::register_as(&plane, &key, 0, 0, capabilities).await;
        Self { plane, peer, key, _dir: dir }
    }

    async fn order(&mut self) -> v1::RunBackup {
        self.plane.post("/v1/jobs/nightly/run", Value::Null).await;
        self.peer.order().await
    }

    /// What waits in the store: names of uploads.
    fn uploads(&self) -> Vec<String> {
        let entries = fs::read_dir(self.plane.data_dir.join("objects/.uploads")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn wait_for_no_upload(&self) {
        eventually("no upload in the store", PATIENCE, || self.uploads().is_empty().then_some(()));
    }
}

fn creds(order: &v1::RunBackup) -> &v1::S3UploadCreds {
    order.upload_creds.as_ref().unwrap()
}

fn md5_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Md5::digest(bytes))
}

/// A client of S3: status, ETag and body of a request without any token.
async fn ask(method: Method, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String, String) {
    let client = awc::Client::builder().timeout(PATIENCE).finish();
    let mut request = client.request(method, url);
    for (name, value) in headers {
        request = request.insert_header((*name, *value));
    }
    let mut response = request.send_body(body).await.unwrap();
    let etag = response.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
    let body = response.body().await.unwrap();
    (response.status().as_u16(), etag.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned())
}

async fn put(url: &str, body: &[u8]) -> (u16, String, String) {
    ask(Method::PUT, url, &[], body.to_vec()).await
}

async fn complete(url: &str, parts: &[(u32, &str)]) -> (u16, String) {
    let part = |(number, etag): &(u32, &str)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    };
    let parts: String = parts.iter().map(part).collect();
    let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let (status, _, body) = ask(Method::POST, url, &[], list.into_bytes()).await;
    (status, body)
}

fn report(order: &v1::RunBackup, object: &[u8]) -> Payload {
    let sha256 = ring::digest::digest(&ring::digest::SHA256, object);
    Payload::BackupCompleted(v1::BackupCompleted {
        job_id: order.job_id.clone(),
        run_id: order.run_id.clone(),
        s3_key: creds(order).final_s3_key.clone(),
        size_bytes: object.len() as u64,
        sha256: HEXLOWER.encode(sha256.as_ref()),
        ..Default::default()
    })
}

fn failed(order: &v1::RunBackup) -> Payload {
    over(order, v1::JobStatus::Failed)
}

fn over(order: &v1::RunBackup, status: v1::JobStatus) -> Payload {
    Payload::JobUpdate(v1::JobUpdate {
        job_id: order.job_id.clone(),
        run_id: order.run_id.clone(),
        status: status.into(),
        error_message: "no such table".into(),
        ..Default::default()
    })
}

fn question(order: &v1::RunBackup, first: u32, count: u32) -> v1::UploadUrlsRequest {
    v1::UploadUrlsRequest {
        job_id: order.job_id.clone(),
        run_id: order.run_id.clone(),
        s3_key: creds(order).final_s3_key.clone(),
        multipart_upload_id: creds(order).multipart_upload_id.clone(),
        first_part_number: first,
        part_count: count,
    }
}

#[actix::test]
async fn parts_are_offered_to_an_agent_that_can_where_the_settings_allow_it() {
    let mut can = Scene::new(&["pg_dump", MULTIPART], |config| config.part_urls = 7).await;
    let order = can.order().await;
    let offer = creds(&order);
    assert_eq!((offer.part_size_bytes, offer.presigned_part_urls.len()), (5 << 20, 7));
    assert!(!offer.presigned_complete_url.is_empty() && !offer.presigned_abort_url.is_empty());
    assert!(!offer.presigned_put_url.is_empty(), "one PUT stays possible");
    assert_eq!(can.uploads(), std::slice::from_ref(&offer.multipart_upload_id));

    let mut cannot = Scene::new(&["pg_dump"], |_| {}).await;
    let mut off = Scene::new(&[MULTIPART], |config| config.multipart = false).await;
    for scene in [&mut cannot, &mut off] {
        let order = scene.order().await;
        let offer = creds(&order);
        let one = v1::S3UploadCreds {
            presigned_put_url: offer.presigned_put_url.clone(),
            expires_at_ms: offer.expires_at_ms,
            final_s3_key: offer.final_s3_key.clone(),
            ..Default::default()
        };
        assert_eq!(*offer, one);
        assert_eq!(scene.uploads(), Vec::<String>::new());
    }
}

#[actix::test]
async fn parts_by_their_urls_become_the_object_of_the_run() {
    let mut scene = Scene::new(&[MULTIPART], |_| {}).await;
    let order = scene.order().await;
    let urls = &creds(&order).presigned_part_urls;
    let (one, two) = (vec![1; FULL], b"the last part may be short".to_vec());
    let (status, second, _) = put(&urls[1], &two).await;
    assert_eq!((status, second.as_str()), (200, format!("\"{}\"", md5_hex(&two)).as_str()));
    // A part that comes again replaces the one before.
    put(&urls[0], b"what was sent at first").await;
    let digest = BASE64.encode(&Md5::digest(&one));
    let (status, first, _) = ask(Method::PUT, &urls[0], &[("content-md5", &digest)], one.clone()).await;
    assert_eq!(status, 200);

    let list = [(1, first.as_str()), (2, second.as_str())];
    let (status, body) = complete(&creds(&order).presigned_complete_url, &list).await;
    let sums = [Md5::digest(&one), Md5::digest(&two)].concat();
    let etag = format!("<ETag>&quot;{}-2&quot;</ETag>", md5_hex(&sums));
    assert!(status == 200 && body.contains(&etag), "{status} {body}");
    // Also after a restart of the store: the answer may have got lost.
    let restarted = scene.plane.restart();
    let url = creds(&order).presigned_complete_url.replace(
        creds(&order).presigned_complete_url.split("/objects/").next().unwrap(),
        restarted.running.base_url(),
    );
    assert_eq!(complete(&url, &list).await, (200, body));

    let (mut peer, _) = Peer::register_as(&restarted, &scene.key, scene.peer.seq, 1, &[MULTIPART]).await;
    let object = [one, two].concat();
    peer.say(report(&order, &object)).await;
    let run = restarted.run_when(&order.run_id, "the verified run", |run| run["status"] == "SUCCESS").await;
    assert_eq!(run["size_bytes"], object.len());
    scene.plane = restarted;
    scene.wait_for_no_upload();
    let (status, late) = complete(&url, &list).await;
    assert!(status == 409, "a verified object stays: {status} {late}");
}

#[actix::test]
async fn one_put_stays_possible_for_an_agent_that_could_send_parts() {
    let mut scene = Scene::new(&[MULTIPART], |_| {}).await;
    let order = scene.order().await;
    let head_url = &creds(&order).presigned_head_url;
    assert_eq!(ask(Method::HEAD, head_url, &[], Vec::new()).await.0, 404, "nothing is there yet");
    let (status, etag, _) = put(&creds(&order).presigned_put_url, b"in one piece").await;
    assert_eq!((status, etag), (200, format!("\"{}\"", md5_hex(b"in one piece"))));
    // It proves the object, and opens nothing.
    assert_eq!(ask(Method::HEAD, head_url, &[], Vec::new()).await.0, 200);
    assert_eq!(ask(Method::GET, head_url, &[], Vec::new()).await.0, 403);
    scene.peer.say(report(&order, b"in one piece")).await;
    scene.plane.run_when(&order.run_id, "the verified run", |run| run["status"] == "SUCCESS").await;
    scene.wait_for_no_upload();
}

#[actix::test]
async fn what_s3_refuses_is_refused_with_its_words() {
    let mut scene = Scene::new(&[MULTIPART], |config| config.max_object_bytes = 2 * FULL as u64).await;
    let order = scene.order().await;
    let offer = creds(&order).clone();
    let urls = &offer.presigned_part_urls;
    let refused = |(status, _, body): (u16, String, String), expected: u16, code: &str| {
        assert!(
            status == expected && body.contains(&format!("<Code>{code}</Code>")),
            "{code}: {status} {body}"
        );
    };
    let wrong = BASE64.encode(&[0; 16]);
    refused(ask(Method::PUT, &urls[0], &[("content-md5", &wrong)], b"abc".to_vec()).await, 400, "BadDigest");
    refused(
        ask(Method::PUT, &urls[0], &[("content-md5", "abc")], b"abc".to_vec()).await,
        400,
        "InvalidDigest",
    );
    let third = urls[0].replace("partNumber=1&", "partNumber=3&");
    refused(put(&third, b"abc").await, 403, "SignatureDoesNotMatch");
    refused(ask(Method::GET, &urls[0], &[], Vec::new()).await, 403, "SignatureDoesNotMatch");
    refused(put(&offer.presigned_complete_url, b"abc").await, 403, "SignatureDoesNotMatch");

    let (_, small, _) = put(&urls[0], b"small").await;
    let (_, full, _) = put(&urls[1], &vec![2; FULL]).await;
    let (_, third, _) = put(&urls[2], &vec![3; FULL]).await;
    let of = async |list: &[(u32, &str)]| {
        let (status, body) = complete(&offer.presigned_complete_url, list).await;
        (status, String::new(), body)
    };
    refused(of(&[(1, &small), (2, &full)]).await, 400, "EntityTooSmall");
    refused(of(&[(2, &full), (1, &small)]).await, 400, "InvalidPartOrder");
    refused(of(&[(2, &full), (4, &full)]).await, 400, "InvalidPart");
    refused(of(&[(2, &small)]).await, 400, "InvalidPart");
    refused(of(&[]).await, 400, "MalformedXML");
    put(&urls[0], &vec![1; FULL]).await;
    let first = format!("\"{}\"", md5_hex(&vec![1; FULL]));
    refused(of(&[(1, &first), (2, &full), (3, &third)]).await, 400, "EntityTooLarge");

    let abort = async || ask(Method::DELETE, &offer.presigned_abort_url, &[], Vec::new()).await;
    assert_eq!(abort().await.0, 204);
    assert_eq!(scene.uploads(), Vec::<String>::new());
    refused(abort().await, 404, "NoSuchUpload");
    refused(put(&urls[0], b"abc").await, 404, "NoSuchUpload");
    refused(of(&[(2, &full)]).await, 404, "NoSuchUpload");
}

#[actix::test]
async fn an_expired_url_of_a_part_is_refused_and_fresh_ones_of_the_same_upload_come_when_asked() {
    let mut scene = Scene::new(&[MULTIPART], |config| {
        config.url_lifetime = Duration::from_millis(1);
        config.part_urls = 3;
    })
    .await;
    let order = scene.order().await;
    let (status, _, body) = put(&creds(&order).presigned_part_urls[0], b"abc").await;
    assert!(status == 403 && body.contains("expired"), "{status} {body}");

    scene.peer.say(Payload::UploadUrlsRequest(question(&order, 4, 2))).await;
    let fresh = scene.peer.order().await;
    assert_eq!((&fresh.run_id, &fresh.encrypted_dek), (&order.run_id, &order.encrypted_dek));
    let (old, new) = (creds(&order), creds(&fresh));
    assert_eq!(new.multipart_upload_id, old.multipart_upload_id);
    assert!(new.expires_at_ms > old.expires_at_ms);
    assert_eq!((new.first_part_number, new.presigned_part_urls.len()), (4, 2));
    assert!(new.presigned_part_urls[0].contains("partNumber=4&"));
    // More than one message has: fewer come. None where only the completing URL is needed.
    for (first, count, given) in [(2, 1_000, 3), (9_999, 1_000, 2), (10_001, 5, 0), (0, 0, 0)] {
        scene.peer.say(Payload::UploadUrlsRequest(question(&order, first, count))).await;
        let fresh = scene.peer.order().await;
        assert_eq!(creds(&fresh).presigned_part_urls.len(), given, "{first} {count}");
        assert!(!creds(&fresh).presigned_complete_url.is_empty());
    }
    // The agent has taken the run on: a refusal of the repeated order is no end.
    let no = v1::Ack { correlation_id: order.run_id.clone(), accepted: false, reason: "ending".into() };
    let yes = v1::Ack { accepted: true, ..no.clone() };
    scene.peer.say(Payload::Ack(yes)).await;
    scene.peer.say(Payload::Ack(no)).await;
    scene.peer.barrier().await;
    assert_eq!(scene.plane.get(&format!("/v1/runs/{}", order.run_id)).await["status"], "QUEUED");
}

#[actix::test]
async fn urls_of_a_run_that_is_unknown_over_or_somebody_elses_are_not_given() {
    let mut scene = Scene::new(&[MULTIPART], |_| {}).await;
    let over = scene.order().await;
    scene.peer.say(failed(&over)).await;
    let open = scene.order().await;
    let (_, stranger) = scene.plane.agent("b").await;
    let (mut stranger, _) = Peer::register_as(&scene.plane, &stranger, 0, 0, &[MULTIPART]).await;
    stranger.say(Payload::UploadUrlsRequest(question(&open, 1, 5))).await;
    let wrong_key = v1::UploadUrlsRequest { s3_key: "other".into(), ..question(&open, 1, 5) };
    let unknown = v1::UploadUrlsRequest { run_id: "nobody".into(), ..question(&open, 1, 5) };
    for question in [question(&over, 1, 5), wrong_key, unknown] {
        scene.peer.say(Payload::UploadUrlsRequest(question)).await;
    }
    // The last one is answered, and nothing came before.
    scene.peer.say(Payload::UploadUrlsRequest(question(&open, 1, 5))).await;
    let answer = scene.peer.order().await;
    assert_eq!(answer.run_id, open.run_id);
    stranger.say(Payload::UploadUrlsRequest(question(&over, 1, 5))).await;
    stranger.barrier().await;
    let run = scene.plane.get(&format!("/v1/runs/{}", open.run_id)).await;
    assert_eq!(run["sent"], 2, "{run}");
    assert_eq!(scene.plane.get(&format!("/v1/runs/{}", over.run_id)).await["sent"], 1);
}

#[actix::test]
async fn an_order_that_comes_again_names_the_same_upload_and_parts_outlive_a_restart() {
    let mut scene = Scene::new(&[MULTIPART], |_| {}).await;
    let order = scene.order().await;
    let (_, etag, _) = put(&creds(&order).presigned_part_urls[0], b"all of it").await;
    let plane = scene.plane.restart();
    let (mut peer, _) = Peer::register_as(&plane, &scene.key, scene.peer.seq, 1, &[MULTIPART]).await;
    let again = peer.order().await;
    assert_eq!(creds(&again).multipart_upload_id, creds(&order).multipart_upload_id);
    let (status, body) = complete(&creds(&again).presigned_complete_url, &[(1, &etag)]).await;
    assert_eq!(status, 200, "{body}");
    peer.say(report(&again, b"all of it")).await;
    plane.run_when(&again.run_id, "the verified run", |run| run["status"] == "SUCCESS").await;
    (scene.plane, scene.peer) = (plane, peer);
    scene.wait_for_no_upload();
}

#[actix::test]
async fn an_upload_ends_with_its_run_also_where_the_agent_left_it_behind() {
    let mut scene = Scene::new(&[MULTIPART], |_| {}).await;
    for how in ["failed", "cancelled", "refused", "reported, but not stored"] {
        let order = scene.order().await;
        put(&creds(&order).presigned_part_urls[0], b"left behind").await;
        assert_eq!(scene.uploads().len(), 1, "{how}");
        let end = match how {
            "failed" => failed(&order),
            "cancelled" => over(&order, v1::JobStatus::Cancelled),
            "refused" => Payload::Ack(v1::Ack {
                correlation_id: order.run_id.clone(),
                accepted: false,
                reason: "disk is full".into(),
            }),
            _ => report(&order, b"nothing of it came"),
        };
        scene.peer.say(end).await;
        scene.wait_for_no_upload();
        let run = scene.plane.get(&format!("/v1/runs/{}", order.run_id)).await;
        assert_ne!(run["status"], "SUCCESS", "{how}");
        let (status, _, body) = put(&creds(&order).presigned_part_urls[1], b"late").await;
        assert!(status == 404 && body.contains("NoSuchUpload"), "{how}: {status} {body}");
    }
}

#[actix::test]
async fn uploads_that_no_run_claims_are_gone_after_a_start() {
    let mut scene = Scene::new(&[MULTIPART], |_| {}).await;
    let order = scene.order().await;
    put(&creds(&order).presigned_part_urls[0], b"wanted").await;
    let stray = scene.plane.data_dir.join("objects/.uploads/0123456789abcdef");
    fs::create_dir(&stray).unwrap();
    fs::write(stray.join("00001"), b"nobody's").unwrap();
    scene.plane = scene.plane.restart();
    eventually("the stray upload gone", PATIENCE, || (!stray.exists()).then_some(()));
    assert_eq!(scene.uploads(), [creds(&order).multipart_upload_id.clone()]);
}

#[actix::test]
async fn settings_that_no_store_could_keep_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut config = Config::new(dir.path());
    config.listen = "127.0.0.1:0".into();
    for (part_size_bytes, part_urls, named) in [
        (5_000_000, 10, "part_size_bytes"),
        (6 << 30, 10, "part_size_bytes"),
        (8 << 20, 0, "part_urls"),
        (8 << 20, 10_001, "part_urls"),
    ] {
        (config.part_size_bytes, config.part_urls) = (part_size_bytes, part_urls);
        let Err(error) = backupy_agent::control_plane::serve(config.clone()) else { panic!("{named}") };
        assert!(error.to_string().contains(named), "{error}");
    }
}
