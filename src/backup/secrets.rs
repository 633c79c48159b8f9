//! What a run must not show: known before anything is done, and looked up again where it may have changed.

use super::job::Job;
use super::progress::Progress;
use crate::drivers;
use crate::model::TargetSpec;

/// Everything that the run is given.
pub fn hide(job: &Job, progress: &Progress) {
    progress.hide_order(&job.order);
    hide_password(&job.target, progress);
}

/// The password as it is now, wherever it is kept: a hook may have written its file. Where it cannot be had there is
/// nothing to hide, and the dump says why.
pub fn hide_password(target: &TargetSpec, progress: &Progress) {
    if let Ok(password) = drivers::password(target) {
        progress.hide(password);
    }
}
