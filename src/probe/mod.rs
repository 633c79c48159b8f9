//! What the host looks like: metrics, tools.
