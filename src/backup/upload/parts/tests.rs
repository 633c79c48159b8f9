//! Uploads in parts, against a store that keeps them apart, puts them together, and misbehaves when told.

use super::*;
use crate::backup::dumped::Packed;
use crate::backup::outlet::Outlet;
use crate::backup::pack;
use crate::backup::pipe::pipe;
use crate::backup::test_store::options;
use crate::backup::urls::FreshUrls;
use crate::model::{Compression, Dek, Multipart};
use crate::process::Cancel;
use crate::spool::Room;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PART: u64 = 64 * 1024;
const SECRET: &str = "TOPSECRET";

#[derive(Default)]
struct Held {
    parts: BTreeMap<u32, Vec<u8>>,
    object: Option<Vec<u8>>,
    aborted: bool,
    /// Each request: method, part, generation of its URL.
    requests: Vec<(String, u32, u32)>,
    /// What happens to the next request of that name: `part 2`, `complete`.
    faults: BTreeMap<String, Vec<&'static str>>,
    /// URLs of an earlier generation are refused for their age.
    generation: u32,
    /// URLs of an earlier generation are of an upload that is over.
    over: u32,
}

struct Shop {
    port: u16,
    held: Arc<Mutex<Held>>,
}

impl Shop {
    async fn new(faults: &[(&str, &'static str)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::<Mutex<Held>>::default();
        for (name, fault) in faults {
            held.lock().unwrap().faults.entry((*name).to_owned()).or_default().push(fault);
        }
        let serving = Arc::clone(&held);
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(socket, Arc::clone(&serving)));
            }
        });
        Self { port, held }
    }

    fn multipart(&self, first_part: u32, count: u32, generation: u32) -> Multipart {
        let base = format!("http://127.0.0.1:{}/bucket/key", self.port);
        let url = |what: &str| format!("{base}?{what}&gen={generation}&X-Amz-Signature={SECRET}").into();
        Multipart {
            part_size_bytes: PART,
            part_urls: (first_part..first_part + count).map(|n| url(&format!("partNumber={n}"))).collect(),
            first_part,
            complete_url: url("complete=1"),
            abort_url: url("abort=1"),
            upload_id: "u1".into(),
        }
    }

    fn order(&self, count: u32) -> RunOrder {
        RunOrder {
            run_id: "r1".into(),
            job_id: "j1".into(),
            manual: false,
            put_url: Default::default(),
            expires_at_ms: unix_ms() + 600_000,
            multipart: Some(self.multipart(1, count, 0)),
            s3_key: "key".into(),
            dek: vec![9; 32].into(),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }
}

async fn serve(mut socket: TcpStream, held: Arc<Mutex<Held>>) {
    let mut bytes = Vec::new();
    let at = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let mut body = bytes.split_off(at);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let field = |name: &str| -> u32 {
        let value = head.split(name).nth(1).unwrap_or_default();
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    let method = head.split(' ').next().unwrap().to_owned();
    let (part, generation) = (field("partNumber="), field("gen="));
    let name = match method.as_str() {
        "PUT" => format!("part {part}"),
        "POST" => "complete".into(),
        _ => "abort".into(),
    };
    let (fault, stale, gone) = {
        let mut held = held.lock().unwrap();
        held.requests.push((method.clone(), part, generation));
        let fault = held.faults.get_mut(&name).filter(|faults| !faults.is_empty()).map(|f| f.remove(0));
        (fault, generation < held.generation, generation < held.over)
    };
    let cut_at = if fault == Some("cut") { length / 2 } else { length };
    while body.len() < cut_at {
        if socket.read_buf(&mut body).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let refused = |status: &str, code: &str, message: &str| {
        let xml = format!("<Error><Code>{code}</Code><Message>{message} {SECRET}</Message></Error>");
        format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{xml}", xml.len())
    };
    let answer = match fault {
        Some("cut") => return,
        Some("mute") => std::future::pending().await,
        Some("wrong etag") => {
            format!("HTTP/1.1 200 OK\r\netag: \"{}\"\r\ncontent-length: 0\r\n\r\n", "0".repeat(32))
        }
        Some("error in 200") => refused("200", "InternalError", "try again"),
        Some("bad parts") => refused("200", "InvalidPart", "no"),
        Some("lost answer") => return drop(done(&mut held.lock().unwrap(), &method, part, body)),
        Some("gone") => refused("404", "NoSuchUpload", "gone"),
        Some(status) => refused(status, "AccessDenied", "no"),
        None if method == "POST" && held.lock().unwrap().object.is_some() => {
            refused("404", "NoSuchUpload", "gone")
        }
        None if gone => refused("404", "NoSuchUpload", "no"),
        None if stale => refused("403", "AccessDenied", "Request has expired"),
        None => done(&mut held.lock().unwrap(), &method, part, body),
    };
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.read(&mut [0]).await;
}

fn done(held: &mut Held, method: &str, part: u32, body: Vec<u8>) -> String {
    match method {
        "PUT" => {
            let etag = HEXLOWER.encode(&Md5::digest(&body));
            held.parts.insert(part, body);
            format!("HTTP/1.1 200 OK\r\netag: \"{etag}\"\r\ncontent-length: 0\r\n\r\n")
        }
        "POST" => {
            let xml = String::from_utf8(body).unwrap();
            let named = xml.matches("<PartNumber>").count();
            let mut sums = Md5::new();
            let mut object = Vec::new();
            for (number, bytes) in held.parts.iter().take(named) {
                let etag = HEXLOWER.encode(&Md5::digest(bytes));
                assert!(
                    xml.contains(&format!("<PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag>")),
                    "{xml}"
                );
                sums.update(Md5::digest(bytes));
                object.extend_from_slice(bytes);
            }
            held.object = Some(object);
            let etag = format!("&quot;{}-{named}&quot;", HEXLOWER.encode(&sums.finalize()));
            let xml =
                format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>");
            // As S3 does it: the head at once, the verdict when it is known.
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n \r\n{:x}\r\n{xml}\r\n0\r\n\r\n",
                xml.len()
            )
        }
        _ => {
            held.aborted = true;
            "HTTP/1.1 204 No Content\r\n\r\n".into()
        }
    }
}

/// Seals so many bytes and sends them as parts while they are made.
async fn stream(parts: &Parts, dir: &std::path::Path, bytes: usize) -> Result<Packed, String> {
    let (offered_bytes, url_count) = parts.offer();
    let key = Dek::from(vec![9; 32]);
    let room = Room::default();
    let (sink, items) =
        PartSink::new(SinkOptions { offered_bytes, url_count, key: key.clone(), dir: dir.into(), room });
    let outlet = Outlet::Parts(Arc::new(sink));
    let (mut writer, reader) = pipe(Cancel::new());
    std::thread::spawn(move || {
        let data: Vec<u8> = (0..bytes).map(|n| (n % 253) as u8).collect();
        if writer.write_all(&data).is_ok() {
            let _ = writer.finish();
        }
    });
    let packing = pack::Packing {
        compression: Compression::None,
        zstd_level: 3,
        gzip_level: 6,
        threads: 1,
        key,
        room: Room::default(),
    };
    let packed = std::thread::spawn(move || pack::pack(reader, &outlet, &packing));
    let sent = async {
        let stored = parts.send_all(items).await?.expect("the dump ended well");
        parts.complete(&stored).await
    };
    let sent = timeout(Duration::from_secs(20), sent).await.expect("it ends");
    sent.map_err(|error| error.to_string())?;
    Ok(packed.join().unwrap().unwrap().unwrap())
}

async fn run(faults: &[(&str, &'static str)], bytes: usize, urls: u32) -> (Shop, Result<Packed, String>) {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(faults).await;
    let parts = Parts::new(&shop.order(urls), &options(), &Progress::new()).unwrap().unwrap();
    let sent = stream(&parts, dir.path(), bytes).await;
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is on the disk");
    if let Err(text) = &sent {
        assert!(!text.contains(SECRET), "{text}");
        parts.abort(Duration::from_secs(5)).await;
        assert!(shop.held().aborted);
        assert!(shop.held().object.is_none(), "no object appears");
    }
    (shop, sent)
}

#[actix::test]
async fn parts_make_the_object_and_every_fault_costs_one_part_only() {
    let faults = [
        ("part 1", "500"),
        ("part 2", "cut"),
        ("part 3", "503"),
        ("part 4", "mute"),
        ("part 5", "wrong etag"),
        ("complete", "500"),
        ("complete", "error in 200"),
        ("complete", "cut"),
        // Done, and then the line breaks: the next try hears that there is no such upload.
        ("complete", "lost answer"),
    ];
    let (shop, sent) = run(&faults, 500_000, 100).await;
    let packed = sent.unwrap();
    let held = shop.held();
    let object = held.object.as_ref().unwrap();
    assert_eq!(object.len() as u64, packed.size_bytes);
    assert_eq!(ring::digest::digest(&ring::digest::SHA256, object).as_ref(), packed.sha256);
    let count = packed.size_bytes.div_ceil(PART) as usize;
    let puts = held.requests.iter().filter(|(method, _, _)| method == "PUT").count();
    assert_eq!((held.parts.len(), puts), (count, count + 5));
    assert!(held.parts.values().take(count - 1).all(|part| part.len() as u64 == PART));
}

#[actix::test]
async fn what_the_store_refuses_is_told_and_given_up() {
    for (fault, expected) in [
        (("part 3", "403"), "403 AccessDenied"),
        (("part 3", "307"), "redirected"),
        (("complete", "bad parts"), "it answered 200, and in it InvalidPart"),
        (("complete", "404"), "404 AccessDenied"),
        (("complete", "gone"), "404 NoSuchUpload"),
    ] {
        let (_, sent) = run(&[fault], 500_000, 100).await;
        let text = sent.unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    let (_, sent) = run(&[("part 2", "wrong etag"); 3], 500_000, 100).await;
    assert!(sent.unwrap_err().contains("keeps something else"));
}

#[actix::test]
async fn an_object_that_outgrows_its_urls_is_told_where_nobody_gives_more() {
    let (_, sent) = run(&[], 500_000, 3).await;
    let text = sent.unwrap_err();
    assert!(text.contains("more than the 3 parts that the server signed"), "{text}");
}

#[actix::test]
async fn urls_that_expire_or_run_out_are_asked_for_and_the_upload_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(&[]).await;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    options.timing.offline = Duration::from_secs(10);
    let parts = Parts::new(&shop.order(3), &options, &progress).unwrap().unwrap();
    // From part 2 on, the first URLs are refused for their age.
    shop.held().generation = 1;
    let server = async {
        loop {
            if let Some(wanted) = progress.urls().question() {
                let generation = shop.held().generation;
                progress.urls().sent();
                let multipart = Some(shop.multipart(wanted.first_part.max(1), 4, generation));
                let expires_at_ms = unix_ms() + 600_000;
                progress.urls().give(FreshUrls { put_url: Default::default(), expires_at_ms, multipart });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let sent = tokio::select! {
        sent = stream(&parts, dir.path(), 500_000) => sent,
        () = server => unreachable!(),
    };
    let packed = sent.unwrap();
    assert_eq!(shop.held().object.as_ref().unwrap().len() as u64, packed.size_bytes);
}

/// Uploads where URLs below a generation are of an upload that is over, and the server gives another one when asked.
async fn upload_is_gone(over: u32, faults: &[(&str, &'static str)]) -> (Shop, Result<Packed, String>) {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::new(faults).await;
    shop.held().over = over;
    let progress = Progress::new();
    let mut options = options();
    options.timing.fresh_urls = Duration::from_secs(10);
    let parts = Parts::new(&shop.order(20), &options, &progress).unwrap().unwrap();
    let server = async {
        loop {
            if progress.urls().question().is_some() {
                let another = Multipart { upload_id: "u2".into(), ..shop.multipart(1, 20, 1) };
                let expires_at_ms = unix_ms() + 600_000;
                let (put_url, multipart) = (Default::default(), Some(another));
                progress.urls().give(FreshUrls { put_url, expires_at_ms, multipart });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let sent = tokio::select! {
        sent = stream(&parts, dir.path(), 500_000) => sent,
        () = server => unreachable!(),
    };
    (shop, sent)
}

#[actix::test]
async fn an_upload_that_is_over_before_a_part_is_stored_is_replaced_and_later_it_is_not() {
    let (shop, sent) = upload_is_gone(1, &[]).await;
    let packed = sent.unwrap();
    let (object_len, requests) = {
        let held = shop.held();
        (held.object.as_ref().unwrap().len() as u64, held.requests.clone())
    };
    assert_eq!(object_len, packed.size_bytes);
    let of_the_first = requests.iter().filter(|(_, _, generation)| *generation == 0).count();
    assert!((1..=5).contains(&of_the_first), "nothing more went to the first one: {requests:?}");

    let (_, sent) = upload_is_gone(0, &[("part 6", "gone")]).await;
    let text = sent.unwrap_err();
    assert!(text.contains("404 NoSuchUpload"), "{text}");
}

#[actix::test]
async fn a_store_that_forgot_an_earlier_lifes_upload_has_not_said_that_the_object_is_there() {
    let shop = Shop::new(&[("complete", "503"), ("complete", "gone")]).await;
    let parts = Parts::new(&shop.order(20), &options(), &Progress::new()).unwrap().unwrap();
    let stored = [Stored { number: 1, etag: "\"e\"".into(), md5: None }];
    let text = parts.complete(&stored).await.unwrap_err().to_string();
    assert!(text.contains("NoSuchUpload (the multipart upload is over"), "{text}");
    assert_eq!(shop.held().requests.len(), 2);
}
