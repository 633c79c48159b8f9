//! Uploads against a store that misbehaves in every way.
