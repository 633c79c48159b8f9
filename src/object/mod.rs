//! Backup object format v1 (protocol section 6) and decryption tokens (section 7).
