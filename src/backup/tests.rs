//! Whole runs, from a real database to a store.
