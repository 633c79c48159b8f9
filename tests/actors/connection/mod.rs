//! One connection's life, rung by rung.

mod bench;
mod flow;
mod ladder;
