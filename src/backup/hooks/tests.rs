use super::super::secrets;
use super::{Hooks, Job, MAX_COMMAND_BYTES, MAX_HOOKS, Options, Progress, RunError, check};
use crate::model::{
    Compression, Connection, Engine, EventLevel, JobSpec, RunEvent, RunOrder, RunOutcome, Step, TargetSpec,
};
use crate::process::Cancel;
use std::path::Path;
use std::time::{Duration, Instant};

const ON: Options = Options { enabled: true, timeout: Duration::from_secs(20) };

fn job(pre: &[&str], post: &[&str]) -> Job {
    let texts = |hooks: &[&str]| hooks.iter().map(|text| (*text).to_owned()).collect();
    Job {
        order: RunOrder {
            run_id: "r1".into(),
            job_id: "j1".into(),
            manual: true,
            put_url: "https://store.test/o?sig=TOPSECRET".into(),
            expires_at_ms: 0,
            multipart: None,
            s3_key: "o".into(),
            dek: vec![1; 32].into(),
        },
        job: JobSpec {
            id: "j1".into(),
            target_id: "t1".into(),
            compression: Some(Compression::Zstd),
            pre_hooks: texts(pre),
            post_hooks: texts(post),
            timeout: None,
        },
        target: TargetSpec {
            id: "t1".into(),
            engine: Some(Engine::Sqlite),
            display_name: "main".into(),
            connection: Connection { password_ref: "literal:hunter22".into(), ..Connection::default() },
        },
    }
}

fn failed() -> RunOutcome {
    RunOutcome::Failed { error: "the disk is full".into() }
}

fn output(event: &RunEvent) -> &str {
    event.fields.iter().find(|(name, _)| *name == "output").map_or("", |(_, text)| text.as_str())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn hooks_are_refused_where_they_are_off_too_many_or_too_long() {
    let text = |job: &Job, options: &Options| check(&job.job, options).unwrap_err().to_string();
    assert_eq!(text(&job(&["true"], &[]), &Options::default()), "hooks are disabled on this agent");
    assert_eq!(text(&job(&[], &["true"]), &Options::default()), "hooks are disabled on this agent");
    check(&job(&[], &[]).job, &Options::default()).unwrap();
    check(&job(&["true"; MAX_HOOKS], &["true"; MAX_HOOKS]).job, &ON).unwrap();
    assert!(text(&job(&[], &["true"; MAX_HOOKS + 1]), &ON).contains("17 post-hooks"));
    let fits = "x".repeat(MAX_COMMAND_BYTES);
    check(&job(&[&fits], &[]).job, &ON).unwrap();
    assert!(text(&job(&["true", &format!("{fits}x")], &[]), &ON).contains("4097 bytes (number 2)"));
    assert!(text(&job(&["a\0b"], &[]), &ON).contains("zero byte"));
}

#[tokio::test]
async fn a_hook_knows_its_run_and_no_secret_and_its_output_is_told_without_them() {
    let text = "env | grep -c -e CARGO -e AGENT_KEY; echo $BACKUPY_JOB_ID $BACKUPY_RUN_ID $BACKUPY_TARGET_ID \
                $BACKUPY_HOOK $BACKUPY_STATUS; echo 'sig=TOPSECRET hunter22'; true";
    let job = job(&[text], &[text, "echo $BACKUPY_STATUS, $BACKUPY_ERROR"]);
    let (progress, cancel) = (Progress::new(), Cancel::new());
    secrets::hide(&job, &progress, &cancel).await.unwrap();
    let mut hooks = Hooks::new(&job, &ON, &progress, &cancel);
    hooks.before().await.unwrap();
    let told = progress.take_events();
    assert_eq!((told[0].message.as_str(), told[0].level), ("pre-hook 1 of 1 ended well", EventLevel::Info));
    assert_eq!(output(&told[0]), "0\nj1 r1 t1 pre\n*** ***\n");
    hooks.after(&failed()).await;
    assert_eq!(progress.now().0, Step::PostHooks);
    let told = progress.take_events();
    assert_eq!(output(&told[0]), "0\nj1 r1 t1 post failed\n*** ***\n");
    assert_eq!(output(&told[1]), "failed, the disk is full\n");
}

#[tokio::test]
async fn a_password_that_a_hook_writes_and_shows_is_masked_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    std::fs::write(&file, "the first one\n").unwrap();
    let path = file.display();
    let rotate = format!("cat {path}; echo 'another \"one\"' > {path}; echo now $(cat {path})");
    let mut job = job(&[&rotate, &format!("cat {path} >&2; exit 1")], &[]);
    job.target.connection.password_ref = format!("file:{path}").as_str().into();
    let (progress, cancel) = (Progress::new(), Cancel::new());
    secrets::hide(&job, &progress, &cancel).await.unwrap();
    let error = Hooks::new(&job, &ON, &progress, &cancel).before().await.unwrap_err().to_string();
    assert!(error.ends_with("it said: ***"), "{error}");
    let told = progress.take_events();
    assert_eq!(output(&told[0]), "***\nnow ***\n");
    assert_eq!(output(&told[1]), "***\n");
}

#[tokio::test]
async fn a_failed_pre_hook_ends_the_row_and_a_failed_post_hook_only_warns() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let touch = format!("echo x >> {}", mark.display());
    let job = job(&[&touch, "echo no room >&2; exit 3", &touch], &["exit 4", &touch]);
    let (progress, cancel) = (Progress::new(), Cancel::new());
    let mut hooks = Hooks::new(&job, &ON, &progress, &cancel);
    let error = hooks.before().await.unwrap_err().to_string();
    assert_eq!(error, "pre-hook 2 of 3 failed: it ended with exit code 3; it said: no room");
    assert_eq!(read(&mark), "x\n");
    progress.take_events();
    hooks.after(&failed()).await;
    let told = progress.take_events();
    assert_eq!(told[0].level, EventLevel::Warn);
    assert!(told[0].message.contains("post-hook 1 of 2 failed: it ended with exit code 4"));
    assert_eq!(read(&mark), "x\nx\n");
}

#[tokio::test]
async fn a_hook_has_its_time_and_no_more() {
    let job = job(&["sleep 300"], &[]);
    let (progress, cancel) = (Progress::new(), Cancel::new());
    let quick = Options { timeout: Duration::from_millis(200), ..ON };
    let begin = Instant::now();
    let error = Hooks::new(&job, &quick, &progress, &cancel).before().await.unwrap_err().to_string();
    assert!(error.contains("did not end within 0.2 s") && error.contains("hooks.timeout"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn post_hooks_run_after_a_cancel_and_are_cut_short_when_the_agent_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let post = format!("sleep 0.1; echo $BACKUPY_STATUS >> {}", mark.display());
    let job = job(&["sleep 300"], &[&post, "sleep 300"]);
    let quick = Options { timeout: Duration::from_secs(2), ..ON };
    for (interrupt, status) in [(false, "cancelled\n"), (true, "cancelled\ninterrupted\n")] {
        let (progress, cancel) = (Progress::new(), Cancel::new());
        let mut hooks = Hooks::new(&job, &quick, &progress, &cancel);
        let begin = Instant::now();
        let (result, ()) = tokio::join!(hooks.before(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if interrupt { cancel.interrupt() } else { cancel.cancel() }
        });
        assert!(matches!(result, Err(RunError::Cancelled)));
        hooks.after(&RunOutcome::Cancelled).await;
        assert_eq!(read(&mark), status);
        let limit = if interrupt { Duration::from_millis(1_900) } else { Duration::from_secs(10) };
        assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
    }
}
