//! redb panics on some damage. That is an error here like any other, and is told once, as that error:
//! what the panic hook would print beside it is kept to the debug log.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// How many [`catch`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Does the work; a panic in it is what it said.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static WRAPPED: Once = Once::new();
    // The hook that the process has by now, whichever it is, hears of every other panic.
    WRAPPED.call_once(|| {
        let other = take_hook();
        set_hook(Box::new(move |panic| {
            // A thread that is ending has no such count any more, and is in no `catch` either.
            if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 { note(panic) } else { other(panic) }
        }));
    });
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    done.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("an impossible state").to_owned()
    })
}

fn note(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::debug!(place, "the library of the state file met an impossible state");
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
        assert_eq!(DEPTH.with(Cell::get), 0);
    }
}
