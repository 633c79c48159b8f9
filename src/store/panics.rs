//! redb panics on some damage. That is an error here like any other, and is told once, as that error:
//! what the panic hook would print beside it is kept to the debug log.
//!
//! Over a damaged tree of free pages redb panics again while the first panic unwinds, and the language ends
//! such a process by an abort. What can be done then is to end it first, with the line that an operator needs.

use super::StoreError;
use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// What this thread is in.
#[derive(Default)]
struct Scope {
    /// How many [`catch`].
    depth: u32,
    /// The first panic of the innermost one, while it unwinds.
    panic: Option<String>,
    /// The state file that it works on.
    file: Option<PathBuf>,
}

thread_local! {
    static SCOPE: RefCell<Scope> = RefCell::default();
}

/// This thread works on that file, until it works on another one.
pub(super) fn working_on(file: &Path) {
    SCOPE.with_borrow_mut(|scope| {
        if scope.file.as_deref() != Some(file) {
            scope.file = Some(file.to_owned());
        }
    });
}

/// Does the work; a panic in it is what it said.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static WRAPPED: Once = Once::new();
    // The hook that the process has by now, whichever it is, hears of every other panic.
    WRAPPED.call_once(|| {
        let other = take_hook();
        set_hook(Box::new(move |panic| {
            if !heard(panic) {
                other(panic)
            }
        }));
    });
    let outer = SCOPE.with_borrow_mut(|scope| {
        scope.depth += 1;
        scope.panic.take()
    });
    let done = catch_unwind(AssertUnwindSafe(work));
    SCOPE.with_borrow_mut(|scope| {
        scope.depth -= 1;
        scope.panic = outer;
    });
    done.map_err(|panic| text(&*panic).unwrap_or(UNSAID).to_owned())
}

const UNSAID: &str = "an impossible state";

fn text(panic: &(dyn std::any::Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}

/// Whether the panic is one of those that [`catch`] takes care of.
fn heard(panic: &PanicHookInfo<'_>) -> bool {
    // A thread that is ending has no scope any more, and is in no `catch` either.
    let heard = SCOPE.try_with(|scope| {
        let mut scope = scope.try_borrow_mut().ok().filter(|scope| scope.depth > 0)?;
        let said = text(panic.payload()).unwrap_or(UNSAID).to_owned();
        let Some(first) = scope.panic.replace(said) else { return Some(None) };
        // Nobody else catches, so the first one is still on its way out: this one cannot be caught.
        Some(scope.file.take().map(|path| (path, first)))
    });
    let Ok(Some(beyond_catching)) = heard else { return false };
    let place = panic.location().map(ToString::to_string);
    tracing::debug!(place, "the library of the state file met an impossible state");
    if let Some((path, first)) = beyond_catching {
        end(StoreError::Damaged { path, cause: format!("redb met {first}") });
    }
    true
}

/// The end of the process, an abort's place. What was acknowledged is on the disk.
fn end(error: StoreError) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(%error, "the agent ends: it cannot go on over this damage");
    } else {
        // Nobody is left to hear that it could not be written.
        let _ = writeln!(std::io::stderr().lock(), "backupy-agent: {error}");
    }
    std::process::exit(error.exit().code().into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_what_it_said_at_any_depth() {
        let said = catch(|| {
            let inner = catch(|| panic!("an inner page"));
            assert_eq!(inner, Err("an inner page".to_owned()));
            if inner.is_err() {
                panic!("page {}", 7)
            }
        });
        assert_eq!(said, Err("page 7".to_owned()));
        assert_eq!(catch(|| 5), Ok(5));
        assert_eq!(SCOPE.with_borrow(|scope| (scope.depth, scope.panic.clone())), (0, None));
    }

    /// What runs while a panic unwinds may itself meet one and catch it.
    #[test]
    fn a_panic_that_is_caught_while_another_unwinds_ends_nothing() {
        struct Careful;
        impl Drop for Careful {
            fn drop(&mut self) {
                assert_eq!(catch(|| panic!("the second")), Err("the second".to_owned()));
            }
        }
        working_on(Path::new("/state.redb"));
        let said = catch(|| {
            let _careful = Careful;
            panic!("the first")
        });
        assert_eq!(said, Err("the first".to_owned()));
    }
}
