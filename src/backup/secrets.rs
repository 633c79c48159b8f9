//! What a run must not show: known before anything is done, and looked up again where it may have changed.

use super::error::RunError;
use super::job::Job;
use super::progress::Progress;
use super::thread::on_thread;
use crate::drivers;
use crate::model::TargetSpec;
use crate::process::Cancel;
use std::time::Duration;

/// For a small file that was read before.
const AGAIN: Duration = Duration::from_secs(2);

/// Everything that the run is given.
///
/// # Errors
/// [`RunError::Cancelled`], also while the password's file system does not answer; [`RunError::Internal`].
pub async fn hide(job: &Job, progress: &Progress, cancel: &Cancel) -> Result<(), RunError> {
    progress.hide_order(&job.order);
    let (target, of_run) = (job.target.clone(), progress.clone());
    // A thread that waits for a dead mount is left behind.
    let hidden = on_thread("run-secret", move || hide_password(&target, &of_run))?;
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(RunError::Cancelled),
        // Where it panicked nothing is hidden, and the dump, which does the same, says why.
        _ = hidden => Ok(()),
    }
}

/// The password once more, after a hook; not waited for where its file system does not answer.
pub async fn hide_again(target: &TargetSpec, progress: &Progress) {
    let (target, of_run) = (target.clone(), progress.clone());
    if let Ok(hidden) = on_thread("run-secret", move || hide_password(&target, &of_run)) {
        // The dump waits for it where it is needed.
        let _ = tokio::time::timeout(AGAIN, hidden).await;
    }
}

/// The password as it is now, wherever it is kept: a hook may have written its file. Where it cannot be had there is
/// nothing to hide, and the dump says why. May block.
pub fn hide_password(target: &TargetSpec, progress: &Progress) {
    if let Ok(password) = drivers::password(target) {
        progress.hide(password);
    }
}
