//! The embedded control plane. It proves the wire: it never imports the agent's inside.
