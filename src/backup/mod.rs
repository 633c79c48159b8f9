//! One run: dump, compress, seal, spool, upload, verify.
