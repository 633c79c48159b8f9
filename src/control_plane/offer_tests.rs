//! Which uploads live on, and how many URLs fit.

use super::*;
use crate::control_plane::keys::Keys;
use crate::control_plane::object_store::ObjectStore;
use crate::control_plane::plane::Limits;
use crate::control_plane::records::RunStatus;
use crate::control_plane::state::Event;
use crate::control_plane::store::Store;
use crate::model::Secret;

const NOW_MS: u64 = 1_000_000_000;

fn plane(dir: &std::path::Path) -> Plane {
    let limits = Limits {
        heartbeat_interval_s: 30,
        url_lifetime_ms: 1000,
        max_object_bytes: 1,
        multipart: true,
        part_size_bytes: 8 << 20,
        part_urls: MAX_PARTS,
        max_upload_bytes_per_sec: None,
        acks: true,
        public_url: None,
    };
    let store = Store::open(&dir.join("state")).unwrap();
    let objects = ObjectStore::open(dir.join("objects")).unwrap();
    Plane::new(store, Keys::open(dir).unwrap(), objects, Secret::default(), limits)
}

fn run(id: &str, status: RunStatus, expires_at_ms: u64) -> Run {
    let upload = Some(Upload { id: id.to_owned(), expires_at_ms });
    Run { id: id.to_owned(), s3_key: "a/b/c".into(), status, upload, ..Run::default() }
}

#[actix_web::test]
async fn an_upload_lives_with_its_run_and_an_hour_longer_than_its_urls() {
    let dir = tempfile::tempdir().unwrap();
    let plane = plane(dir.path());
    let grace = UPLOAD_GRACE_MS;
    for (id, status, expires_at_ms, stays) in [
        ("waiting", RunStatus::Queued, NOW_MS + 1, true),
        ("running", RunStatus::Running, NOW_MS - grace + 1, true),
        ("forgotten", RunStatus::Running, NOW_MS - grace, false),
        ("done", RunStatus::Success, NOW_MS + 1, false),
        ("failed", RunStatus::Failed, NOW_MS + 1, false),
        ("cancelled", RunStatus::Cancelled, NOW_MS + 1, false),
    ] {
        let run = Box::new(run(id, status, expires_at_ms));
        plane.store.change(|change| change.apply(Event::RunChanged { run })).await.unwrap();
        plane.objects.begin_upload(id).unwrap();
        plane.objects.begin_upload("nobody's").unwrap();
        let removed = plane.sweep(NOW_MS).unwrap();
        assert_eq!((removed, plane.objects.has_upload(id)), (if stays { 1 } else { 2 }, stays), "{id}");
    }
    assert_eq!(plane.sweep(NOW_MS).unwrap(), 0);
    plane.store.close();
}

#[actix_web::test]
async fn an_order_fits_into_a_message_however_long_the_base_of_its_urls_is() {
    let dir = tempfile::tempdir().unwrap();
    let plane = plane(dir.path());
    let run = run("00112233445566778899aabbccddeeff", RunStatus::Queued, NOW_MS);
    for (base, given) in [("https://plane.example.org", MAX_PARTS as usize), (&"x".repeat(2000), 940)] {
        let creds = plane.creds(&run, base, NOW_MS, Window::START);
        let bytes: usize = creds.presigned_part_urls.iter().map(String::len).sum();
        assert!(creds.presigned_part_urls.len() >= given && bytes <= MAX_URLS_BYTES, "{given} {bytes}");
    }
    plane.store.close();
}
