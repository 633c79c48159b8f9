//! What the Supervisor tells the init system.

/// The init system, or nobody.
pub trait InitSystem {
    /// The state is open and the first dial was tried.
    fn ready(&mut self);

    /// One line for people.
    fn status(&mut self, line: &str);

    /// Every actor has answered: the watchdog is fed.
    fn alive(&mut self);

    /// The end has begun.
    fn stopping(&mut self);
}
