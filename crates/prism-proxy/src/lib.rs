//! The control-plane server, the router, the admin endpoint.
