//! Boot order, init system, local control socket.
