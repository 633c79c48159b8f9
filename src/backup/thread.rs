//! Work on a thread of its own, waited for by a future.

use super::error::RunError;
use tokio::sync::oneshot;

/// Starts `work`. The receiver fails where it panicked.
///
/// # Errors
/// [`RunError::Internal`] where the machine has no room for a thread.
pub fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, RunError> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody waits for a thread that was left behind.
            let _ = done.send(work());
        })
        .map_err(|error| RunError::Internal(format!("no thread could be started: {error}")))?;
    Ok(ended)
}
